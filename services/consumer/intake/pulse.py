"""Whether the intake's thread turns."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

_ALIVE_SECONDS = 30
_LONG_STEP_SECONDS = 900


class Pulse:
    """Beaten by the intake's thread, felt by others."""

    def __init__(self) -> None:
        self._at = time.monotonic()
        self._long_step = False

    def beat(self) -> None:
        """The loop turns."""
        self._at = time.monotonic()

    @contextmanager
    def long_step(self) -> Iterator[None]:
        """Inside, minutes of silence count as being alive: entering recovery mode touches every seat."""
        self._long_step = True
        try:
            yield
        finally:
            self._at, self._long_step = time.monotonic(), False

    def age_seconds(self) -> float:
        """Since the last beat."""
        return time.monotonic() - self._at

    def alive(self) -> bool:
        """Whether the last beat is less than 30 s old, or 15 minutes within a long step."""
        return self.age_seconds() < (_LONG_STEP_SECONDS if self._long_step else _ALIVE_SECONDS)
