"""One batch of a replay: some offsets of the log, or some seats of the ledger. A step is carried out in one transaction, which
begins with `advance`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from schemas.codec import NewerEvent, UndecodableEvent, decode
from schemas.keys import EntityKind
from services.consumer.ledger import parked, replay_batch, replays
from services.consumer.ledger.entities import Arrival
from services.consumer.ledger.offsets import LogPartition
from services.consumer.ledger.parked import Parked
from services.consumer.ledger.policies import Policies
from services.consumer.ledger.replay_batch import Outcome
from services.consumer.ledger.replay_selection import NamedSeat
from services.consumer.ledger.replays import Judged, Range, Replay
from services.consumer.replay.log import LogRecord, Missing
from services.kit.postgres import Connection


class Step(Protocol):
    """A batch; both methods work within the caller's open transaction."""

    @property
    def partition(self) -> int | None:
        """Of the log."""

    def advance(self, connection: Connection, owner: str, seconds: float) -> int:
        """Move the replay behind this batch and keep it for some seconds; returns the number of the batch's first line.

        Raises `replays.ReplayLost`.
        """

    def carry_out(self, connection: Connection) -> Outcome:
        """Do what the batch is for."""


@dataclass(frozen=True, slots=True)
class Records:
    """Some offsets of one partition, in a row."""

    replay: Replay
    place: Range
    batch: Batch
    policies: Policies

    @property
    def partition(self) -> int:
        return self.place.partition

    def advance(self, connection: Connection, owner: str, seconds: float) -> int:
        batch = self.batch
        return replays.advance_in_log(
            connection, self.replay.replay, owner, self.place, batch.end, batch.end - batch.first, seconds
        )

    def carry_out(self, connection: Connection) -> Outcome:
        batch, replay = self.batch, self.replay
        parked.park(connection, batch.parked)
        outcome = replay_batch.replay(connection, batch.arrivals, self.policies, replay.replay, verify=replay.verify)
        judged = sorted([*batch.judged, *outcome.judged], key=lambda one: one.offset or 0)
        return replace(outcome, judged=judged)


@dataclass(frozen=True, slots=True)
class Seats:
    """A page of seats."""

    replay: Replay
    page: Sequence[NamedSeat]

    @property
    def partition(self) -> None:
        return None

    def advance(self, connection: Connection, owner: str, seconds: float) -> int:
        last = self.page[-1].ref
        return replays.advance_in_ledger(connection, self.replay.replay, owner, last, len(self.page), seconds)

    def carry_out(self, connection: Connection) -> Outcome:
        return replay_batch.open_seats(connection, self.page, self.replay.replay, verify=self.replay.verify)


@dataclass(frozen=True, slots=True)
class Batch:
    """Some offsets in a row, sorted by what can be done with them."""

    first: int
    end: int
    """One past the last of them."""
    judged: list[Judged] = field(default_factory=list)
    """Offsets without an event."""
    parked: list[Parked] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)


def sort_out(place: Range, kind: EntityKind, found: Sequence[LogRecord | Missing]) -> Batch:
    """Decode what was found; nothing here asks the ledger."""
    batch = Batch(found[0].offset, found[-1].offset + 1)
    for one in found:
        if isinstance(one, Missing):
            batch.judged.append(Judged(one.offset, one.fate))
            continue
        try:
            event = decode(kind, one.value)
        except UndecodableEvent as error:
            batch.judged.append(Judged(one.offset, "undecodable", error.reason))
        except NewerEvent as error:
            partition = LogPartition(place.topic_id, place.topic, place.partition)
            batch.judged.append(Judged(one.offset, "parked", error.field))
            batch.parked.append(Parked(partition, one.offset, one.key, one.value or b"", error.field))
        else:
            batch.arrivals.append(Arrival.of(event, one.value or b"", place.topic, place.partition, one.offset))
    return batch


def set_aside(refused: LogRecord | Missing) -> Batch:
    """The same for a record that can be decoded, but not stored."""
    return Batch(refused.offset, refused.offset + 1, [Judged(refused.offset, "undecodable", "refused_by_ledger")])
