"""Where a member of the group stands in the log, and what it has in its hands. No I/O."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from schemas.codec import NewerEvent, UndecodableEvent, decode
from schemas.topics import Topics
from services.consumer.ledger.entities import Arrival
from services.consumer.ledger.offsets import LogPartition, Span
from services.consumer.ledger.parked import Parked
from services.consumer.ledger.storing import Batch, Undecodable
from services.consumer.log.letters import Letter
from services.consumer.log.records import Coordinates, Place, Record


@dataclass
class Reading:
    """Positions and records of the partitions that are ours. Owned by the intake's thread."""

    positions: dict[Place, int] = field(default_factory=dict)
    """The next offset of each partition; what lies before it is in the ledger."""
    ids: dict[str, str] = field(default_factory=dict)
    """Topic ids as they were at the last assignment."""
    held: list[Record] = field(default_factory=list)
    """Polled, not stored yet, in the order of their partitions."""
    blocked: set[Place] = field(default_factory=set)
    """Partitions whose next record waits for the dead-letter topic to take it; the others go on."""

    def hold(self, records: Sequence[Record]) -> None:
        """Keep what can be stored. A record of a partition without a position was read from the wrong place: it comes again."""
        self.held += [record for record in records if record.place in self.positions]

    def forget(self, places: Collection[Place]) -> None:
        """These are not ours any more."""
        for place in places:
            self.positions.pop(place, None)
        self.held = [record for record in self.held if record.place in self.positions]
        self.blocked &= set(self.positions)

    def next(self, limit: int) -> list[Record]:
        """The first `limit` records in hand that may be stored now."""
        return list(islice((record for record in self.held if record.place not in self.blocked), limit))

    def stored(self, ends: Mapping[Place, int]) -> None:
        """The ledger has everything below these offsets."""
        self.positions |= ends
        self.held = [record for record in self.held if record.offset >= ends.get(record.place, 0)]

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
    return Arrival.of(decode(kind, record.value), record.value or b"", *record.place, record.offset)


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


def before(records: Sequence[Record], first: Collection[Coordinates]) -> list[Record]:
    """The records, of each partition only what comes before the first of these."""
    bounds: dict[Place, int] = {}
    for place, offset in first:
        bounds[place] = min(offset, bounds.get(place, offset))
    return [record for record in records if record.place not in bounds or record.offset < bounds[record.place]]


def without_repetition(records: Sequence[Record]) -> list[Record]:
    """The first records, as many as have keys of their own: of no entity more than one version."""
    found: list[Record] = []
    seen: set[tuple[str, bytes]] = set()
    for record in records:
        if record.key is not None:
            key = (record.place.topic, record.key)
            if key in seen:
                break
            seen.add(key)
        found.append(record)
    return found


def set_aside(record: Record, reading: Reading, reason: str, message: str) -> tuple[Batch, list[Letter]]:
    """The same for a record that can be decoded, but not stored."""
    letter = Letter(record, reason, message)
    return Batch([], [], [_undecodable(letter, reading)], reading.spans([record])), [letter]


def _undecodable(letter: Letter, reading: Reading) -> Undecodable:
    return Undecodable(reading.place(letter.record.place), letter.record.offset, letter.reason)
