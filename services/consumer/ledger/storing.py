"""One batch of the log in one transaction: entities, decisions, history and the offset together, or none of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from services.consumer.ledger import entities, history, offsets, parked, recovery
from services.consumer.ledger.deciding import decide_persons
from services.consumer.ledger.decision_writing import Cause
from services.consumer.ledger.entities import Arrival, Fate
from services.consumer.ledger.history import Happening
from services.consumer.ledger.offsets import LogPartition, Span
from services.consumer.ledger.parked import Parked
from services.consumer.ledger.policies import Policies
from services.consumer.nouns import Effect, SeatRef
from services.consumer.provision import taking_up
from services.kit.postgres import Connection, DatabaseIdentity


class Undecodable(NamedTuple):
    """A record that is in the dead-letter topic by now."""

    place: LogPartition
    offset: int
    reason: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What was read from the log, sorted by what can be done with it."""

    arrivals: Sequence[Arrival]
    parked: Sequence[Parked] = ()
    undecodable: Sequence[Undecodable] = ()
    spans: Sequence[Span] = ()


@dataclass(frozen=True, slots=True)
class Stored:
    """What the transaction did."""

    fates: list[tuple[Arrival, Fate]]
    work: set[SeatRef]
    """Seats that the driver has to look at."""
    effects: Counter[Effect | Literal["none"]] = field(default_factory=Counter)
    activity: int = 0
    """The ledger's counter, for the commit to Kafka."""


def store(
    connection: Connection, batch: Batch, policies: Policies, began_with: DatabaseIdentity, cause: Cause = "intake"
) -> Stored:
    """Take the batch. Raises `offsets.OffsetConflict` or `recovery.HistoryChanged`, and then nothing is stored."""
    effects: Counter[Effect | Literal["none"]] = Counter()
    with connection.transaction():
        recovery.check_session(connection, began_with)
        taken = entities.take(connection, batch.arrivals, policies)
        parked.park(connection, batch.parked)
        history.append(connection, _set_aside(batch))
        work = decide_persons(connection, taken.persons, policies, cause=cause, effects=effects)
        taking_up.hear(connection, (arrival for arrival, fate in taken.fates if fate == "taken"), policies)
        # Last, because it is what others wait for: the offset's row is locked until the commit.
        offsets.advance(connection, batch.spans)
        activity = offsets.next_activity(connection)
    return Stored(taken.fates, work, effects, activity)


def release(connection: Connection, batch: Batch, policies: Policies, began_with: DatabaseIdentity) -> Stored:
    """Take records that were parked and can be read now; `batch.parked` are the rows that they came from."""
    with connection.transaction():
        parked.release(connection, batch.parked)
        return store(connection, Batch(batch.arrivals), policies, began_with, cause="release")


def _set_aside(batch: Batch) -> Iterable[Happening]:
    for parking in batch.parked:
        yield _happening("parked", parking.place, parking.offset, parking.reason)
    for record in batch.undecodable:
        yield _happening("undecodable", record.place, record.offset, record.reason)


def _happening(what: str, place: LogPartition, offset: int, reason: str) -> Happening:
    """Of nobody's: who it concerns could not be read."""
    return Happening("", "", what, topic=place.topic, partition=place.partition, offset=offset, detail={"reason": reason})
