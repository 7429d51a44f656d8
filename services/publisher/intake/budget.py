"""How much may be in hand at once: deliveries, and the bytes of their bodies. What is beyond is sent away before it is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Gauge

from services.publisher.changes import Unavailable
from services.publisher.metrics import Metrics


class Room:
    """Bytes that may lie in one place at once. Shared by all requests of a process; used from its event loop only."""

    def __init__(self, max_bytes: int, taken: Gauge) -> None:
        self._max_bytes = max_bytes
        self._taken = taken
        self._bytes = 0

    @contextmanager
    def share(self, declared_bytes: int) -> Iterator[Share]:
        """One request's part until it is answered; raises ``Unavailable("overload")`` when what it declares has no room."""
        share = Share(self)
        share.hold(declared_bytes)
        try:
            yield share
        finally:
            self.change(-share.bytes)

    def change(self, by_bytes: int) -> None:
        """Hold more, or less; raises ``Unavailable("overload")`` when there is no room."""
        if by_bytes > 0 and self._bytes + by_bytes > self._max_bytes:
            raise Unavailable("overload")
        self._bytes += by_bytes
        self._taken.set(self._bytes)


class Share:
    """What one request holds of a room."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.bytes = 0

    def hold(self, size: int) -> None:
        """Hold at least so many bytes: a body without a declared length grows while it arrives. Raises `Unavailable`."""
        if size > self.bytes:
            self._room.change(size - self.bytes)
            self.bytes = size


class Budget:
    """Deliveries, and the memory that their bodies take. Shared by all routes of a process; used from its event loop only."""

    def __init__(self, max_requests: int, max_bytes: int, metrics: Metrics) -> None:
        self._max_requests = max_requests
        self._memory = Room(max_bytes, metrics.body_bytes_in_hand)
        self._in_hand = metrics.requests_in_hand
        self._requests = 0

    @contextmanager
    def share(self, declared_bytes: int) -> Iterator[Share]:
        """A delivery's part until it is answered; raises ``Unavailable("overload")`` when what it declares has no room."""
        if self._requests >= self._max_requests:
            raise Unavailable("overload")
        with self._memory.share(declared_bytes) as share:
            self._count(1)
            try:
                yield share
            finally:
                self._count(-1)

    def _count(self, more: int) -> None:
        self._requests += more
        self._in_hand.set(self._requests)
