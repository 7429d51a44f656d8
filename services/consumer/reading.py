"""Where a member of the group stands in the log, and what it has in its hands. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from schemas.codec import NewerEvent, UndecodableEvent, decode
from schemas.topics import Topics
from services.consumer.ledger.entities import Arrival
from services.consumer.ledger.offsets import LogPartition, Span
from services.consumer.ledger.parked import Parked
from services.consumer.ledger.storing import Batch, Undecodable
from services.consumer.log import Place, Record


class Letter(NamedTuple):
    """A record for the dead-letter topic."""

    record: Record
    reason: str
    """Closed code."""
    message: str
    """What is wrong, without a value."""


@dataclass
class Reading:
    """Positions and records of the partitions that are ours. Owned by the intake's thread."""

    positions: dict[Place, int] = field(default_factory=dict)
    """The next offset of each partition; what lies before it is in the ledger."""
    ids: dict[str, str] = field(default_factory=dict)
    """Topic ids as they were at the last assignment."""
    held: list[Record] = field(default_factory=list)
    """Polled, not stored yet, in the order of their partitions."""
    written: set[tuple[Place, int]] = field(default_factory=set)
    """Which of them are in the dead-letter topic already: an attempt to store them again does not write them again."""

    def hold(self, records: Sequence[Record]) -> None:
        """Keep what can be stored. A record of a partition without a position was read from the wrong place: it comes again."""
        self.held += [record for record in records if record.place in self.positions]

    def forget(self, places: Collection[Place]) -> None:
        """These are not ours any more."""
        for place in places:
            self.positions.pop(place, None)
        self.held = [record for record in self.held if record.place in self.positions]
        self.written = {(place, offset) for place, offset in self.written if place in self.positions}

    def forget_all(self) -> None:
        """Nothing is ours any more."""
        self.forget(list(self.positions))

    def stored(self, count: int) -> None:
        """The first `count` records in hand are in the ledger."""
        self.written -= {(record.place, record.offset) for record in self.held[:count]}
        self.held = self.held[count:]

    def place(self, place: Place) -> LogPartition:
        """The partition with its topic's id."""
        return LogPartition(self.ids[place.topic], *place)

    def spans(self, records: Sequence[Record]) -> list[Span]:
        """From where we stood, not from the first record: a log has gaps, and what was skipped must not go unnoticed."""
        ends = {record.place: record.offset + 1 for record in records}
        return [Span(self.place(place), self.positions[place], end) for place, end in ends.items()]


def decoded(record: Record, topics: Topics) -> Arrival:
    """Raises `UndecodableEvent`, or `NewerEvent`."""
    kind = topics.kind(record.place.topic)
    if kind is None:
        raise UndecodableEvent("unknown_topic", "not a topic of events")
    return Arrival(decode(kind, record.value), record.value or b"", *record.place, record.offset)


def sort_out(records: Sequence[Record], reading: Reading, topics: Topics) -> tuple[Batch, list[Letter]]:
    """What the ledger takes, and what has to be in the dead-letter topic before it does."""
    arrivals, parking, letters = [], [], []
    for record in records:
        try:
            arrivals.append(decoded(record, topics))
        except NewerEvent as error:
            parking.append(Parked(reading.place(record.place), record.offset, record.key, record.value or b"", error.field))
        except UndecodableEvent as error:
            letters.append(Letter(record, error.reason, str(error)))
    undecodable = [_undecodable(letter, reading) for letter in letters]
    return Batch(arrivals, parking, undecodable, reading.spans(records)), letters


def set_aside(record: Record, reading: Reading, reason: str, message: str) -> tuple[Batch, list[Letter]]:
    """The same for a record that can be decoded, but not stored."""
    letter = Letter(record, reason, message)
    return Batch([], [], [_undecodable(letter, reading)], reading.spans([record])), [letter]


def _undecodable(letter: Letter, reading: Reading) -> Undecodable:
    return Undecodable(reading.place(letter.record.place), letter.record.offset, letter.reason)
