"""What the parts of a policy are made of."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from typing import Annotated
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict

_PADDING = re.compile(r"[^{}]?[<>^][1-9][0-9]?")


class Part(BaseModel):
    """A part of the policy: it has no other fields than its own, and no value of another kind."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


def word_or_more(rule: object) -> str:
    """Which of the two an error is about: a problem of the other one would only confuse."""
    return "more" if isinstance(rule, dict | Part) else "a word"


def template(*known: str, needs: str | tuple[str, ...] = ()) -> AfterValidator:
    """Accepts text with ``{field}`` and ``{field:0>5}``; anything cleverer could fail. Of what it `needs` one has to be in it, or
    two objects would share one id."""
    needed = (needs,) if isinstance(needs, str) else needs

    def check(text: str) -> str:
        used = set()
        for _literal, field, padding, conversion in pieces(text):
            if field is None:
                continue
            if field not in known:
                raise ValueError(f"unknown field {{{field}}}; known are {', '.join(known)}")
            if conversion or (padding and not _PADDING.fullmatch(padding)):
                raise ValueError(f"{{{field}}} may only be padded, for example {{{field}:0>5}}")
            used.add(field)
        if needed and used.isdisjoint(needed):
            wanted = " or ".join(f"{{{name}}}" for name in needed)
            raise ValueError(f"must contain {wanted}, otherwise all of them would share one id")
        return text

    return AfterValidator(check)


def pieces(text: str) -> Iterator[tuple[str, str | None, str | None, str | None]]:
    """Of a template: text before a field, the field, how it is filled up, and how it is converted."""
    try:
        yield from string.Formatter().parse(text)
    except ValueError as error:
        raise ValueError(f"unbalanced braces ({error})") from error


def _a_zone(given: str) -> str:
    try:
        ZoneInfo(given)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"{given} is no time zone of this machine; write one like America/New_York") from error
    return given


TimeZone = Annotated[str, AfterValidator(_a_zone)]
"""The name of a time zone."""
