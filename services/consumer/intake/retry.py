"""When a step that needed ledger or log is tried again."""

from __future__ import annotations

import time

_FIRST_SECONDS = 0.05
LONGEST_SECONDS = 5.0


class Retry:
    """Waits that double from 50 ms to 5 s until something works again."""

    def __init__(self) -> None:
        self._at = 0.0
        self._seconds = _FIRST_SECONDS

    @property
    def due(self) -> bool:
        """Whether no wait is under way any more."""
        return time.monotonic() >= self._at

    @property
    def begun(self) -> bool:
        """Whether something has failed, or had to wait, since the last `over`."""
        return self._at > 0

    def next_seconds(self) -> float:
        """How long to wait now; the next time it is twice as long."""
        seconds, self._seconds = self._seconds, min(2 * self._seconds, LONGEST_SECONDS)
        return seconds

    def later(self, seconds: float | None = None) -> None:
        """Wait for so long, or for `next_seconds`."""
        self._at = time.monotonic() + (self.next_seconds() if seconds is None else seconds)

    def not_before(self, at: float) -> None:
        """Wait at least until then (monotonic seconds)."""
        self._at = max(self._at, at)

    def over(self) -> None:
        """It works."""
        self._at, self._seconds = 0.0, _FIRST_SECONDS
