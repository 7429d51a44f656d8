"""What the parts that read the log say to each other: partitions, records, positions, and what Kafka may do to us. No I/O."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol


class LogUnavailable(RuntimeError):
    """Kafka did not answer, or did not take a record, in time; trying again later may help."""


class LogFailed(RuntimeError):
    """The client cannot go on; only a new process can."""


class Place(NamedTuple):
    """One partition."""

    topic: str
    partition: int


class Record(NamedTuple):
    """One record as it is in the log."""

    place: Place
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


Coordinates = tuple[Place, int]
"""A record's partition and offset."""


class Known(NamedTuple):
    """What Kafka holds of one partition and of our group's progress in it."""

    committed: int | None
    metadata: str | None
    low: int
    high: int


class Polled(NamedTuple):
    """What a poll gave."""

    records: list[Record]
    lost_track: bool
    """An offset that we asked for is not in the log: it was trimmed, or the topic was created anew. Rejoin."""


class Membership(Protocol):
    """Who is told about assignments, from within `EventLog.poll`."""

    def assigned(self, places: Sequence[Place]) -> Mapping[Place, int] | None:
        """Where to begin reading these; None when that cannot be known now: they stay paused until a rejoin."""

    def revoked(self, places: Sequence[Place]) -> None:
        """They are somebody else's from here on, or were taken from us before we knew."""
