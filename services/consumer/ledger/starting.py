"""Where reading begins, and whether Kafka proves that the ledger has lost history.

Kafka's committed offset follows the ledger's and never leads: the ledger commits first. Its metadata says which database wrote
it. So an offset ahead of ours, another database or a higher activity counter can only mean that this ledger forgot something.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import orjson

from services.consumer.ledger import offsets, recovery
from services.consumer.ledger.offsets import LogPartition
from services.kit.postgres import Connection, DatabaseIdentity

Loss = Literal["kafka_ahead", "database", "activity", "trimmed", "log_shorter"]
"""What proves it: Kafka has committed further than we know; it was another database; this one has counted further; the log no
longer holds what comes next; the log ends before what we have read."""


class CommitMetadata(NamedTuple):
    """What rides with every commit to Kafka."""

    identity: DatabaseIdentity
    activity: int

    def encode(self) -> str:
        """JSON; short, because a broker keeps at most 4 KiB."""
        return orjson.dumps({"s": self.identity.system_id, "t": self.identity.timeline, "a": self.activity}).decode()

    @classmethod
    def decode(cls, text: str | None) -> CommitMetadata | None:
        """None for what somebody else wrote: a tool that moved the group's offsets, for example."""
        try:
            data = orjson.loads(text or "")
            return cls(DatabaseIdentity(str(data["s"]), int(data["t"])), int(data["a"]))
        except (orjson.JSONDecodeError, TypeError, KeyError, ValueError):
            return None


class InKafka(NamedTuple):
    """What Kafka knows about one partition. Ask Kafka before the ledger: between the two, both may only move forward."""

    committed: int | None
    metadata: CommitMetadata | None
    low: int
    """The oldest offset that is kept."""
    high: int
    """One past the newest."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where one partition begins."""

    offset: int
    loss: Loss | None
    """What we cannot account for; None in normal life."""
    record: bool
    """The ledger has no offset that fits: it is set to this one, which is the log's start."""


def judge(stored: int | None, kafka: InKafka, identity: DatabaseIdentity, activity: int) -> Start:
    """Where to begin, given the ledger's own `stored` offset, and what is wrong if anything is."""
    if stored is None:
        return Start(kafka.low, None if kafka.committed is None else "kafka_ahead", record=True)
    if stored < kafka.low:
        return Start(kafka.low, "trimmed", record=True)
    if stored > kafka.high:
        return Start(kafka.low, "log_shorter", record=True)
    return Start(stored, _loss(stored, kafka, identity, activity), record=False)


def _loss(stored: int, kafka: InKafka, identity: DatabaseIdentity, activity: int) -> Loss | None:
    if kafka.committed is not None and kafka.committed > stored:
        return "kafka_ahead"
    if kafka.metadata is not None and kafka.metadata.identity != identity:
        return "database"
    if kafka.metadata is not None and kafka.metadata.activity > activity:
        return "activity"
    return None


def begin(
    connection: Connection, found: dict[LogPartition, InKafka], identity: DatabaseIdentity, suspect_seconds: float
) -> dict[LogPartition, int]:
    """Where each partition begins; enters recovery mode, for good, before it returns an offset that history was lost for."""
    with connection.transaction():
        recovery.check_session(connection, identity)
        stored = offsets.stored(connection, list(found))
        activity = offsets.last_activity(connection)
        starts = {place: judge(stored.get(place), kafka, identity, activity) for place, kafka in found.items()}
        losses = sorted({start.loss for start in starts.values() if start.loss})
        if losses:
            recovery.enter(connection, ", ".join(losses), suspect_seconds)
        offsets.begin(connection, _chosen(starts, lost=False))
        offsets.restart(connection, _chosen(starts, lost=True))
    return {place: start.offset for place, start in starts.items()}


def _chosen(starts: dict[LogPartition, Start], lost: bool) -> dict[LogPartition, int]:
    return {place: start.offset for place, start in starts.items() if start.record and bool(start.loss) == lost}
