"""The topic of returns as the publisher reads it: one member of a group, which commits after the effect.

Used from one task at a time. A group that has never committed begins at the start of the topic; nothing else ever jumps.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import structlog
from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, TopicPartition

from schemas.topics import Topics
from services.kit.kafka import KafkaSettings

log = structlog.get_logger()
_TIMEOUT_SECONDS = 5


class Returned(NamedTuple):
    """One record."""

    partition: int
    offset: int
    value: bytes | None


class ReturnsLog:
    """Blocking. Trouble with Kafka is logged and looks like an empty topic: it passes, and nothing is lost."""

    def __init__(self, settings: KafkaSettings, topics: Topics, group: str) -> None:
        self._topic = topics.returns
        self._misplaced = False
        self._consumer = Consumer(settings.group_member(group), logger=logging.getLogger("librdkafka"))
        self._join()

    def poll(self, limit: int, wait_seconds: float) -> list[Returned]:
        """What comes within the time; returns at once when something is there."""
        if self._misplaced:
            self._misplaced = False
            self._consumer.unsubscribe()
            self._join()
        first = self._consumer.poll(wait_seconds)
        messages = [] if first is None else [first, *self._consumer.consume(limit - 1, 0)]
        for error in filter(None, (message.error() for message in messages)):
            log.warning("returns_log_error", code=error.name())
            self._misplaced |= error.code() == KafkaError._AUTO_OFFSET_RESET
        good = [message for message in messages if message.error() is None]
        return [Returned(message.partition() or 0, message.offset() or 0, message.value()) for message in good]

    def stay(self) -> None:
        """Remain a member while what was polled cannot be done yet; nothing more is taken."""
        assigned = self._consumer.assignment()
        self._consumer.pause(assigned)
        self._consumer.poll(0)
        self._consumer.resume(assigned)

    def commit(self, records: Sequence[Returned]) -> None:
        """These have had their effect. A commit that fails means that they come again, which is harmless."""
        ends = {record.partition: record.offset + 1 for record in records}
        try:
            self._consumer.commit(
                offsets=[TopicPartition(self._topic, partition, end) for partition, end in ends.items()], asynchronous=False
            )
        except KafkaException as error:
            log.warning("returns_not_committed", code=error.args[0].name())

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _join(self) -> None:
        self._consumer.subscribe([self._topic], on_assign=self._on_assign)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        # An exception must not leave this callback: the client would assign by itself.
        try:
            starts = [self._start(one) for one in consumer.committed(partitions, timeout=_TIMEOUT_SECONDS)]
        except KafkaException as error:
            log.warning("returns_not_placed", code=error.args[0].name())
            self._misplaced = True
            starts = [TopicPartition(one.topic, one.partition, OFFSET_END) for one in partitions]
        consumer.incremental_assign(starts)
        if self._misplaced:
            consumer.pause(partitions)

    def _start(self, committed: TopicPartition) -> TopicPartition:
        """Where the group was, if the topic still has it."""
        if committed.error is not None:
            raise KafkaException(committed.error)
        place = TopicPartition(committed.topic, committed.partition)
        marks = self._consumer.get_watermark_offsets(place, timeout=_TIMEOUT_SECONDS)
        if marks is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        low, high = marks
        place.offset = committed.offset if low <= committed.offset <= high else low
        return place
