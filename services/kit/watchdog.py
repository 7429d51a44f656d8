"""Ending a process that does not end by itself."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

_LOOK_SECONDS = 0.5


class Watchdog:
    """Once `armed`, the process has so many seconds left, whatever hangs.

    Its thread runs from the beginning: when a process ends for want of memory, there may be none for another thread.
    """

    def __init__(self, seconds: float, end: Callable[[int], object] = os._exit) -> None:
        self._seconds = seconds
        self._end = end
        self._bites_at: float | None = None

    def start(self) -> Watchdog:
        """Begin to watch."""
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def arm(self) -> None:
        """The process should end now. From any thread; only the first time counts."""
        if self._bites_at is None:
            self._bites_at = time.monotonic() + self._seconds

    def _watch(self) -> None:
        while self._bites_at is None or time.monotonic() < self._bites_at:
            time.sleep(_LOOK_SECONDS)
        self._end(1)
