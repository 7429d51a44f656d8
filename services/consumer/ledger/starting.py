"""Where reading begins, and whether Kafka proves that the ledger has lost history.

Kafka's committed offset follows the ledger's and never leads: the ledger commits first. Its metadata says which database wrote
it. So an offset ahead of ours, another database or a higher activity counter can only mean that this ledger forgot something.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, NamedTuple

import orjson

from services.consumer.ledger import offsets, recovery
from services.consumer.ledger.offsets import LogPartition
from services.kit.postgres import Connection, DatabaseIdentity

Loss = Literal["kafka_ahead", "database", "activity", "trimmed", "log_shorter", "recreated"]
"""What proves it: Kafka has committed further than we know; it was another database; this one has counted further; the log no
longer holds what comes next; the log ends before what we have read; the topic was deleted and made anew."""

LOG_LOST: frozenset[Loss] = frozenset({"trimmed", "log_shorter", "recreated"})
"""It is the log that lost something, and reading it cannot bring that back: the publisher is asked for the current state."""


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


def judge(stored: int | None, kafka: InKafka, identity: DatabaseIdentity, activity: int, *, recreated: bool = False) -> Start:
    """Where to begin, given the ledger's own `stored` offset, and what is wrong if anything is.

    `recreated`: the ledger has read a topic of this name, and it was another one.
    """
    if stored is None:
        return Start(kafka.low, "recreated" if recreated else "kafka_ahead" if kafka.committed is not None else None, record=True)
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


@dataclass(frozen=True, slots=True)
class Placed:
    """Where partitions begin, and what was found out on the way."""

    starts: dict[LogPartition, int]
    losses: dict[LogPartition, Loss]
    """Recovery mode has been entered because of them."""
    added: list[LogPartition]
    """Partitions that the topic did not have when the ledger last read it."""


def review(
    connection: Connection, found: Mapping[LogPartition, InKafka], identity: DatabaseIdentity, suspect_seconds: float
) -> dict[LogPartition, Loss]:
    """Ask, before anything is driven, whether Kafka remembers more than this ledger; enters recovery mode if it does.

    Only what the ledger itself lost counts here: a partition is placed, and its log judged, by whoever is assigned it.
    """
    with connection.transaction():
        recovery.check_session(connection, identity)
        starts = _judge_all(connection, found, identity)
        losses = {place: one.loss for place, one in starts.items() if one.loss and one.loss not in LOG_LOST}
        if losses:
            recovery.enter(connection, _reason(losses), suspect_seconds)
    _count_from(connection, found)
    return losses


def begin(
    connection: Connection,
    found: Mapping[LogPartition, InKafka],
    identity: DatabaseIdentity,
    suspect_seconds: float,
    accounted: Mapping[LogPartition, Loss] = MappingProxyType({}),
) -> Placed:
    """Where each partition begins; enters recovery mode, for good, before it returns an offset that history was lost for.

    Not for what `review` has `accounted` for: entering starts everything over.
    """
    with connection.transaction():
        recovery.check_session(connection, identity)
        known = offsets.incarnations(connection, {place.topic for place in found})
        starts = _judge_all(connection, found, identity)
        losses = {place: one.loss for place, one in starts.items() if one.loss}
        if losses.items() - dict(accounted).items():
            kinds = set(losses.values())
            recovery.enter(
                connection, _reason(losses), suspect_seconds, log_lost=bool(LOG_LOST & kinds), behind=bool(kinds - LOG_LOST)
            )
        offsets.begin(connection, _chosen(starts, lost=False))
        offsets.restart(connection, _chosen(starts, lost=True))
        offsets.forget_others(connection, {place.topic: place.topic_id for place in found})
    _count_from(connection, found)
    added = [place for place, one in starts.items() if one.record and not one.loss and place.topic_id in known[place.topic]]
    return Placed({place: start.offset for place, start in starts.items()}, losses, added)


def _judge_all(
    connection: Connection, found: Mapping[LogPartition, InKafka], identity: DatabaseIdentity
) -> dict[LogPartition, Start]:
    stored = offsets.stored(connection, list(found))
    activity = offsets.last_activity(connection)
    known = offsets.incarnations(connection, {place.topic for place in found})
    return {
        place: judge(
            stored.get(place),
            kafka,
            identity,
            activity,
            # With a row of this very incarnation beside it, the partition is a new one of the same topic.
            recreated=bool(known[place.topic]) and place.topic_id not in known[place.topic],
        )
        for place, kafka in found.items()
    }


def _reason(losses: Mapping[LogPartition, Loss]) -> str:
    return ", ".join(sorted(set(losses.values())))


def _count_from(connection: Connection, found: Mapping[LogPartition, InKafka]) -> None:
    """The evidence has been used: later starts must not find it again. Only after the commit, because this is never undone."""
    offsets.count_from(connection, max((one.metadata.activity for one in found.values() if one.metadata), default=0))


def _chosen(starts: Mapping[LogPartition, Start], lost: bool) -> dict[LogPartition, int]:
    return {place: start.offset for place, start in starts.items() if start.record and bool(start.loss) == lost}
