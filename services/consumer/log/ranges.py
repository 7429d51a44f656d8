"""Reading one bounded range of one partition, apart from the live group: the Kafka side of a replay.

The reader assigns itself explicit offsets under a group id that it never joins and never commits to, so nothing that it does
can move the live consumer. Only this module and the intake's `log` import the Kafka client.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from services.consumer.replay.log import Bounds, LogRecord, LogRefused, LogUnavailable, Missing
from services.kit.kafka import KafkaSettings, topic_ids

log = structlog.get_logger()

_REFUSALS = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
    }
)
"""Errors that waiting does not cure. The client retries every other one by itself."""


class RangeLog:
    """A `Log` over Kafka; every call makes a client of its own."""

    def __init__(self, settings: KafkaSettings, group: str, timeout_seconds: float = 5) -> None:
        """`group` is only a name that the access rules of the cluster must allow."""
        self._settings = settings
        self._group = group
        self._timeout = timeout_seconds

    def bounds(self, topic: str, partition: int) -> Bounds | None:
        with self._asking() as consumer:
            if partition not in self._partitions(consumer, topic):
                return None
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=self._timeout)
        return Bounds(self._topic_id(topic), low, high)

    def between(self, topic: str, since: datetime, until: datetime) -> dict[int, Bounds]:
        with self._asking() as consumer:
            partitions = self._partitions(consumer, topic)
            if not partitions:
                return {}
            firsts, ends = self._first_at(consumer, topic, partitions, since), self._first_at(consumer, topic, partitions, until)
        topic_id = self._topic_id(topic)
        found = {partition: Bounds(topic_id, firsts[partition], ends[partition]) for partition in partitions}
        return {partition: held for partition, held in found.items() if held.low < held.high}

    def read(self, topic: str, partition: int, first: int, last: int) -> RangeReader:
        consumer = self._consumer()
        try:
            return RangeReader(consumer, TopicPartition(topic, partition, first), last, self._timeout)
        except BaseException:
            consumer.close()
            raise

    @contextmanager
    def _asking(self) -> Iterator[Consumer]:
        consumer = self._consumer()
        try:
            yield consumer
        except KafkaException as error:
            raise LogUnavailable(error.args[0].name()) from error
        finally:
            consumer.close()

    def _partitions(self, consumer: Consumer, topic: str) -> list[int]:
        known = consumer.list_topics(timeout=self._timeout).topics.get(topic)
        return sorted(known.partitions) if known else []

    def _topic_id(self, topic: str) -> str:
        topic_id = topic_ids(self._settings, [topic], self._timeout).get(topic)
        if topic_id is None:
            raise LogUnavailable("topic id unknown")
        return topic_id

    def _first_at(self, consumer: Consumer, topic: str, partitions: list[int], at: datetime) -> dict[int, int]:
        """Where each partition's first record at or after an instant is; its end when there is none."""
        asked = [TopicPartition(topic, partition, int(at.timestamp() * 1000)) for partition in partitions]
        found = {one.partition: one.offset for one in consumer.offsets_for_times(asked, timeout=self._timeout)}
        return {
            one.partition: consumer.get_watermark_offsets(TopicPartition(topic, one.partition), timeout=self._timeout)[1]
            if found[one.partition] < 0
            else found[one.partition]
            for one in asked
        }

    def _consumer(self) -> Consumer:
        configuration = self._settings.reader(self._group) | {"enable.partition.eof": True}
        return Consumer(configuration, logger=logging.getLogger("librdkafka"))


class RangeReader:
    """A `Reader` over one consumer of its own."""

    def __init__(self, consumer: Consumer, start: TopicPartition, last: int, timeout_seconds: float) -> None:
        self._consumer = consumer
        self._partition = TopicPartition(start.topic, start.partition)
        self._next: int = start.offset
        self._last = last
        self._timeout = timeout_seconds
        self._ahead: deque[LogRecord] = deque()
        self._low = 0
        """Offsets below are expired."""
        self._empty_below = 0
        """Offsets below that are not in `_ahead` have no record."""
        self._assign()

    @property
    def done(self) -> bool:
        return self._next > self._last

    def read(self, limit: int, wait_seconds: float) -> list[LogRecord | Missing]:
        found = list(self._known(limit))
        if not found and not self.done:
            self._fetch(limit, wait_seconds)
            found = list(self._known(limit))
        return found

    def close(self) -> None:
        self._consumer.close()

    def _known(self, limit: int) -> Iterator[LogRecord | Missing]:
        while limit and not self.done:
            found = self._at(self._next)
            if found is None:
                return
            yield found
            self._next, limit = self._next + 1, limit - 1

    def _at(self, offset: int) -> LogRecord | Missing | None:
        """What is at the offset; None while the broker has not told."""
        if self._ahead and self._ahead[0].offset == offset:
            return self._ahead.popleft()
        if offset < self._low:
            return Missing(offset, "expired")
        if self._ahead or offset < self._empty_below:
            return Missing(offset, "absent")
        return None

    def _fetch(self, limit: int, wait_seconds: float) -> None:
        first = self._consumer.poll(wait_seconds)
        if first is None:
            return
        for message in [first, *self._consumer.consume(limit, 0)]:
            self._take(message)

    def _take(self, message: Message) -> None:
        error = message.error()
        if error is None:
            offset = message.offset()
            assert offset is not None  # noqa: S101  (a record has one)
            self._ahead.append(LogRecord(offset, message.key(), message.value()))
        elif error.code() == KafkaError._PARTITION_EOF:
            # Not every offset has a record: compaction and transaction markers leave gaps, also at the very end.
            if (message.offset() or 0) > self._last or self._ends_early():
                self._empty_below = self._last + 1
        elif error.code() == KafkaError._AUTO_OFFSET_RESET:
            self._step_over_what_is_gone()
        elif error.code() in _REFUSALS:
            raise LogRefused(error.name())
        else:
            log.info("replay_log_error", code=error.name(), topic=self._partition.topic, partition=self._partition.partition)

    def _step_over_what_is_gone(self) -> None:
        """The log begins later than we asked (it was trimmed meanwhile), or ends earlier (it was truncated)."""
        self._assign()
        if self._low <= self._next and self._ends_early():
            self._empty_below = self._last + 1

    def _ends_early(self) -> bool:
        """Has the log lost its end since the range was bounded by it? An election may also hide it for a moment."""
        return self._watermarks()[1] <= self._last

    def _assign(self) -> None:
        position = self._ahead[-1].offset + 1 if self._ahead else self._next
        self._low, _ = self._watermarks()
        start = max(position, self._low)
        self._consumer.assign([TopicPartition(self._partition.topic, self._partition.partition, start)])

    def _watermarks(self) -> tuple[int, int]:
        try:
            return self._consumer.get_watermark_offsets(self._partition, timeout=self._timeout)
        except KafkaException as error:
            raise LogUnavailable(error.args[0].name()) from error
