"""Chores of one loop, each at an interval of its own."""

from __future__ import annotations

import time


class Intervals:
    """Says which chore is due. Each is the first time that it is asked for."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}
        """Monotonic time of the next turn of each chore."""

    def is_due(self, chore: str, every_seconds: float) -> bool:
        """Whether it should be done now; if so, it is not due again before the interval is over."""
        now = time.monotonic()
        if now < self._due.get(chore, now):
            return False
        self._due[chore] = now + every_seconds
        return True
