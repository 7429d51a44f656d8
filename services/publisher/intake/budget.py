"""How much may be in hand at once: deliveries, and the bytes of their bodies. What is beyond is sent away before it is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from services.publisher.changes import Unavailable
from services.publisher.metrics import Metrics


class Budget:
    """Shared by all routes of a process; used from its event loop only."""

    def __init__(self, max_requests: int, max_bytes: int, metrics: Metrics) -> None:
        self._max_requests = max_requests
        self._max_bytes = max_bytes
        self._metrics = metrics
        self._requests = 0
        self._bytes = 0

    @contextmanager
    def share(self, declared_bytes: int) -> Iterator[Share]:
        """A delivery's part until it is answered; raises ``Unavailable("overload")`` when what it declares has no room."""
        if self._requests >= self._max_requests:
            raise Unavailable("overload")
        share = Share(self)
        share.hold(declared_bytes)
        self._requests += 1
        self._metrics.requests_in_hand.set(self._requests)
        try:
            yield share
        finally:
            self._requests -= 1
            self._metrics.requests_in_hand.set(self._requests)
            self.change(-share.bytes)

    def change(self, by_bytes: int) -> None:
        """Hold more, or less; raises ``Unavailable("overload")`` when there is no room."""
        if by_bytes > 0 and self._bytes + by_bytes > self._max_bytes:
            raise Unavailable("overload")
        self._bytes += by_bytes
        self._metrics.body_bytes_in_hand.set(self._bytes)


class Share:
    """What one delivery holds."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.bytes = 0

    def hold(self, size: int) -> None:
        """Hold at least so many bytes: a body without a declared length grows while it arrives. Raises `Unavailable`."""
        if size > self.bytes:
            self._budget.change(size - self.bytes)
            self.bytes = size
