"""The topics between mirror and ledger as the ledger sees them: digests come in, returns go out.

Belongs to one thread. The reader joins no group and commits nothing: the ledger keeps the position.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from schemas.topics import ENTITY_KINDS, Topics
from services.consumer.ledger.offsets import LogPartition
from services.consumer.log.clients import error_name
from services.consumer.log.records import LogUnavailable
from services.kit.kafka import KafkaSettings, log_ends, topic_ids

_TIMEOUT_SECONDS = 5
_SEND_MS = 8_000
_A_DAY_MS = 24 * 3600 * 1000


class Read(NamedTuple):
    """One record of the topic of digests."""

    offset: int
    value: bytes | None


class DigestLog:
    """Every method may raise `LogUnavailable`."""

    def __init__(self, settings: KafkaSettings, topics: Topics, name: str) -> None:
        """`name` is a group that is never joined, which the access rules of the cluster must allow."""
        self._settings = settings
        self._topics = topics
        # Polls may be far apart: a page is in hand until the intake has read as far.
        configuration = settings.reader(name) | {"max.poll.interval.ms": _A_DAY_MS, "queued.min.messages": 2}
        self._consumer = Consumer(configuration, logger=logging.getLogger("librdkafka"))
        self._producer = Producer(settings.producer(_SEND_MS), logger=logging.getLogger("librdkafka"))

    def topic_id(self) -> str:
        """Kafka's own id of the topic of digests."""
        try:
            return topic_ids(self._settings, [self._topics.digests], _TIMEOUT_SECONDS)[self._topics.digests]
        except KafkaException as error:
            raise LogUnavailable(error_name(error)) from error
        except KeyError:
            raise LogUnavailable("topic id unknown") from None

    def begin(self, position: int | None) -> int:
        """Read from `position`, or from the end when there is none or it is not in the log any more; returns which."""
        low, high = self._watermarks(TopicPartition(self._topics.digests, 0))
        start = position if position is not None and low <= position <= high else high
        self._consumer.assign([TopicPartition(self._topics.digests, 0, start)])
        return start

    def poll(self, wait_seconds: float) -> Read | None:
        """The next record. None: there is none yet."""
        message = self._consumer.poll(wait_seconds)
        error = message.error() if message is not None else None
        if error is not None:
            raise LogUnavailable(error.name())
        return _read(message) if message is not None else None

    def ends(self) -> dict[LogPartition, int]:
        """Where each partition of events ends now."""
        try:
            found = log_ends(self._settings, [self._topics.entity(kind) for kind in ENTITY_KINDS], _TIMEOUT_SECONDS)
        except KafkaException as error:
            raise LogUnavailable(error_name(error)) from error
        return {LogPartition(end.topic_id, end.topic, end.partition): end.offset for end in found}

    def send(self, values: Sequence[bytes]) -> None:
        """Put returns into their topic; comes back when Kafka has them all. Twice is harmless."""
        failed: list[str] = []

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                failed.append(error.name())

        try:
            for value in values:
                self._producer.produce(self._topics.returns, value, on_delivery=delivered)
            left = self._producer.flush(_SEND_MS / 1000 + 1)
        except (BufferError, KafkaException) as error:
            raise LogUnavailable("returns refused") from error
        if failed or left:
            raise LogUnavailable(f"returns not taken: {', '.join(sorted(set(failed))) or 'no answer'}")

    def close(self) -> None:
        """Let go of both clients."""
        self._consumer.close()
        self._producer.purge()

    def _watermarks(self, place: TopicPartition) -> tuple[int, int]:
        try:
            marks = self._consumer.get_watermark_offsets(place, timeout=_TIMEOUT_SECONDS)
        except KafkaException as error:
            raise LogUnavailable(error_name(error)) from error
        if marks is None:
            raise LogUnavailable("no watermarks in time")
        return marks


def _read(message: Message) -> Read:
    return Read(message.offset() or 0, message.value())
