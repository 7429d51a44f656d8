"""Membership in the consumer group over the event topics."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import cast

import structlog
from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from services.consumer.log.clients import error_name, sparse_logger
from services.consumer.log.records import Known, LogFailed, LogUnavailable, Membership, Place, Polled, Record
from services.consumer.metrics import Metrics
from services.kit.kafka import KafkaSettings, topic_ids

log = structlog.get_logger()

_PASSING = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError.REBALANCE_IN_PROGRESS,
        113,  # STALE_MEMBER_EPOCH, which the client does not name
    }
)
"""A commit met a rebalance. The next one commits more; the ledger's offset is the one that counts."""


class EventLog:
    """A member of the consumer group over the event topics. Begins where its membership says, never where Kafka would.

    Everything belongs to one thread: the client makes every call of another thread wait until a poll returns.
    """

    def __init__(self, settings: KafkaSettings, group: str, topics: Sequence[str], metrics: Metrics) -> None:
        self._settings = settings
        self._topics = list(topics)
        self._metrics = metrics
        self._membership: Membership
        self._unacknowledged = 0
        self._fatal: str | None = None
        self._configuration = settings.group_member(group) | {
            "on_commit": self._on_commit,
            "error_cb": self._on_error,
            "client.id": "consumer",
        }
        self._consumer = self._client()

    def _client(self) -> Consumer:
        return Consumer(self._configuration, logger=sparse_logger())

    def join(self, membership: Membership) -> None:
        """Become a member. Assignments arrive during `poll`, and `membership` is told."""
        self._membership = membership
        self._subscribe()

    def _subscribe(self) -> None:
        self._consumer.subscribe(self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def rejoin(self) -> None:
        """Leave and become a member again, so that every partition is assigned, and its start decided, anew."""
        self._consumer.unsubscribe()
        self._subscribe()

    def renew(self) -> None:
        """The same with a new client, for a topic that was made anew.

        librdkafka believes that leader epochs only grow. Those of a new topic begin at 0: a client that has seen a later one of
        the old topic takes the new leaders for stale news and fetches nothing, for ever and in silence.
        """
        self.close(wait_seconds=1)
        self._unacknowledged = 0
        self._consumer = self._client()
        self._subscribe()

    def poll(self, limit: int, wait_seconds: float) -> Polled:
        """At most `limit` records: waits for the first, takes what is there of the others. Raises `LogFailed`.

        Waiting for all of them (`consume` alone) would hold a single record back for the whole time.
        """
        first = self._consumer.poll(wait_seconds)
        messages = [] if first is None else [first, *self._consumer.consume(limit - 1, 0)] if limit > 1 else [first]
        if self._fatal:
            raise LogFailed(self._fatal)
        errors = [error for message in messages if (error := message.error()) is not None]
        for error in errors:
            log.warning("log_error", code=error.name())
        return Polled(
            [_record(message) for message in messages if message.error() is None],
            any(error.code() == KafkaError._AUTO_OFFSET_RESET for error in errors),
        )

    def places(self, timeout_seconds: float = 5) -> list[Place]:
        """Every partition of our topics, as far as they exist; raises `LogUnavailable`."""
        try:
            found = self._consumer.list_topics(timeout=timeout_seconds).topics
        except KafkaException as error:
            raise LogUnavailable(error_name(error)) from error
        return [Place(topic, number) for topic in self._topics if topic in found for number in found[topic].partitions]

    def known(self, places: Collection[Place], timeout_seconds: float = 5) -> dict[Place, Known]:
        """What Kafka has; raises `LogUnavailable`."""
        try:
            committed = self._consumer.committed([TopicPartition(*place) for place in places], timeout=timeout_seconds)
            return {Place(one.topic, one.partition): self._known(one, timeout_seconds) for one in committed}
        except KafkaException as error:
            raise LogUnavailable(error_name(error)) from error

    def _known(self, committed: TopicPartition, timeout_seconds: float) -> Known:
        if committed.error is not None:
            raise KafkaException(committed.error)
        marks = self._consumer.get_watermark_offsets(
            TopicPartition(committed.topic, committed.partition), timeout=timeout_seconds
        )
        if marks is None:
            raise LogUnavailable("no watermarks in time")
        offset = committed.offset if committed.offset >= 0 else None
        return Known(offset, committed.metadata, *marks)

    def topic_ids(self) -> dict[str, str]:
        """Kafka's own ids of our topics, those that exist; raises `LogUnavailable`."""
        try:
            return topic_ids(self._settings, self._topics, timeout_seconds=5)
        except KafkaException as error:
            raise LogUnavailable(error_name(error)) from error

    def commit(self, positions: Mapping[Place, int], metadata: str) -> None:
        """Tell Kafka how far the ledger is; does not wait. For lag tools, and as evidence should the ledger lose history."""
        offsets = [TopicPartition(*place, offset, metadata) for place, offset in positions.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            log.info("commit_not_sent", code=error_name(error))
        else:
            self._unacknowledged += 1

    def pause(self, places: Collection[Place] | None = None) -> None:
        """Let nothing more arrive of these partitions (None: of any) while polling goes on, which keeps the membership."""
        self._consumer.pause(self._ours(places))

    def resume(self, but: Collection[Place] = ()) -> None:
        """Let everything arrive again, except from these partitions."""
        self._consumer.resume([one for one in self._consumer.assignment() if Place(one.topic, one.partition) not in but])

    def _ours(self, places: Collection[Place] | None) -> list[TopicPartition]:
        return [one for one in self._consumer.assignment() if places is None or Place(one.topic, one.partition) in places]

    def lag(self, positions: Mapping[Place, int]) -> dict[str, int]:
        """Records behind, by topic, as the client last heard."""
        behind = dict.fromkeys(self._topics, 0)
        for place, position in positions.items():
            _low, high = self._consumer.get_watermark_offsets(TopicPartition(*place), cached=True) or (0, 0)
            behind[place.topic] += max(0, high - position)
        return behind

    def close(self, wait_seconds: float) -> None:
        """Leave the group, after waiting so long for commits under way: with one open, leaving may wait for the whole session."""
        end = time.monotonic() + wait_seconds
        try:
            self.pause()
            while self._unacknowledged > 0 and time.monotonic() < end:
                self._consumer.poll(0.05)
        except KafkaException as error:
            log.info("commits_not_awaited", code=error_name(error))
        self._consumer.close()

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # An exception must not leave this callback: the client would assign by itself, at Kafka's offset.
        places = [Place(one.topic, one.partition) for one in partitions]
        self._metrics.rebalances.labels("assigned").inc()
        starts = self._membership.assigned(places)
        if starts is None:
            consumer.incremental_assign([TopicPartition(*place, OFFSET_END) for place in places])
            consumer.pause([TopicPartition(*place) for place in places])
        else:
            consumer.incremental_assign([TopicPartition(*place, starts[place]) for place in places])
            # A partition that was paused when it left comes back paused.
            consumer.resume([TopicPartition(*place) for place in places])

    def _on_revoke(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._metrics.rebalances.labels("revoked").inc()
        self._membership.revoked([Place(one.topic, one.partition) for one in partitions])

    def _on_lost(self, _consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._metrics.rebalances.labels("lost").inc()
        self._membership.revoked([Place(one.topic, one.partition) for one in partitions])

    def _on_commit(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        self._unacknowledged = max(0, self._unacknowledged - 1)
        for problem in filter(None, [error, *(one.error for one in partitions)]):
            if problem.code() not in _PASSING:
                log.warning("commit_refused", code=problem.name())

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error.name()


def _record(message: Message) -> Record:
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    pairs = cast("list[tuple[str, bytes | None]]", message.headers() or [])  # which says that a value may be str: it never is
    assert topic is not None and partition is not None and offset is not None  # noqa: S101, PT018  (a record has all three)
    return Record(
        Place(topic, partition), offset, message.key(), message.value(), [(name, value or b"") for name, value in pairs]
    )
