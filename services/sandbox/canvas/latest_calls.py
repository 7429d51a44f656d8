"""The newest calls of the REST side, for people who watch."""

from __future__ import annotations

import statistics
from collections import deque
from typing import NamedTuple

_KEPT = 200
_RATE_OVER_SECONDS = 5.0


class LatestCall(NamedTuple):
    at: float
    """Seconds since the epoch when it was answered, or when it was clear that it never will be."""
    method: str
    endpoint: str
    outcome: str
    """The status; ``hang`` or ``reset`` for a call without an answer."""
    seconds: float
    section: str | None
    """SIS id, of a call that changes a roster."""


class LatestCalls:
    """Bounded: the newest calls, the newest last."""

    def __init__(self) -> None:
        self._calls: deque[LatestCall] = deque(maxlen=_KEPT)

    def add(self, call: LatestCall) -> None:
        """Keep one."""
        self._calls.append(call)

    def newest(self, count: int) -> list[LatestCall]:
        """The newest first."""
        return list(self._calls)[: -count - 1 : -1]

    def per_second(self, now: float) -> float:
        """Over the last seconds; of more calls than are kept, over the time that those cover."""
        since = now - _RATE_OVER_SECONDS
        recent = [call.at for call in self._calls if call.at > since]
        if len(recent) < _KEPT:
            return len(recent) / _RATE_OVER_SECONDS
        return len(recent) / max(now - recent[0], 0.001)

    def latency(self) -> tuple[float, float] | None:
        """p50 and p95 of those that are kept, in seconds; None when there are none."""
        if not self._calls:
            return None
        took = [call.seconds for call in self._calls]
        cuts = statistics.quantiles(took, n=20, method="inclusive") if len(took) > 1 else took * 19
        return cuts[9], cuts[18]
