"""Policies for tests that are about something else than the guard."""

from __future__ import annotations

from services.consumer.policy.model import default_text


def unguarded() -> str:
    """The packaged policy without its guard: for feeds that no campus would send."""
    before, _, rest = default_text().partition("\nguard:")
    return before + "\nguard: none\n\ndrift:" + rest.partition("\ndrift:")[2]
