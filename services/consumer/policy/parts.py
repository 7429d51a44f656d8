"""What the parts of a policy have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """Refuses what it does not know: a misspelt rule would be no rule."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def word_or_more(rule: object) -> str:
    """Which of the two an error is about: a problem of the other one would only confuse."""
    return "more" if isinstance(rule, dict | Part) else "a word"
