"""The log as the mirror reads it when it has to: markers, ends, and events from a position on."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from pydantic import ValidationError

from schemas.markers import MARKER_KEY, Marker
from schemas.topics import ENTITY_KINDS, Topics
from services.kit.kafka import KafkaSettings

log = structlog.get_logger()
_TIMEOUT_SECONDS = 10.0


class Place(NamedTuple):
    """One partition."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}"


class Bounds(NamedTuple):
    """The first offset that is still there, and the next one to be written."""

    low: int
    high: int


class Found(NamedTuple):
    """One record of the log."""

    place: Place
    offset: int
    value: bytes | None


class History:
    """Reads without a group and commits nothing. Blocking; raises `KafkaException` when Kafka does not answer."""

    def __init__(self, settings: KafkaSettings, topics: Topics) -> None:
        self._settings = settings
        self._topics = topics

    def newest_marker(self) -> Marker | None:
        """The last marker in the log; None when there is none."""
        newest = None
        with self._consumer() as consumer:
            bounds = _bounds(consumer, [self._topics.markers])
            for message in _read(consumer, {place: bound.low for place, bound in bounds.items()}, bounds):
                if message.key() == MARKER_KEY and message.value():
                    newest = _marker(message) or newest
        return newest

    def bounds(self) -> dict[Place, Bounds]:
        """Of every partition that holds events."""
        with self._consumer() as consumer:
            return _bounds(consumer, [self._topics.entity(kind) for kind in ENTITY_KINDS])

    def events(self, positions: Mapping[str, int], bounds: Mapping[Place, Bounds]) -> Iterator[Found]:
        """Every record from the given positions (by ``topic/partition``) to the bounds. A position outside is no position."""
        starts = {}
        for place, bound in bounds.items():
            wanted = positions.get(str(place), bound.low)
            starts[place] = wanted if bound.low <= wanted <= bound.high else bound.low
        with self._consumer() as consumer:
            yield from (_found(message) for message in _read(consumer, starts, bounds))

    @contextmanager
    def _consumer(self) -> Iterator[Consumer]:
        name = f"{self._topics.prefix}-mirror-{uuid.uuid4().hex}"  # never joined: partitions are assigned by hand
        consumer = Consumer(self._settings.reader(name) | {"enable.partition.eof": True, "log_level": 2})
        try:
            yield consumer
        finally:
            consumer.close()


def _bounds(consumer: Consumer, topics: list[str]) -> dict[Place, Bounds]:
    found = {}
    for topic in topics:
        described = consumer.list_topics(topic, _TIMEOUT_SECONDS).topics[topic]
        if described.error is not None:
            raise KafkaException(described.error)
        for partition in described.partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), _TIMEOUT_SECONDS)
            found[Place(topic, partition)] = Bounds(low, high)
    return found


def _read(consumer: Consumer, starts: Mapping[Place, int], bounds: Mapping[Place, Bounds]) -> Iterator[Message]:
    """All records of each partition from its start to its bound; records that come meanwhile are not waited for."""
    open_places = {place for place, start in starts.items() if start < bounds[place].high}
    if not open_places:
        return
    consumer.assign([TopicPartition(place.topic, place.partition, starts[place]) for place in sorted(open_places)])
    while open_places:
        message = consumer.poll(_TIMEOUT_SECONDS)
        if message is None:
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        error = message.error()
        if error is not None and error.code() != KafkaError._PARTITION_EOF:
            raise KafkaException(error)
        place = _place(message)
        if error is not None or (message.offset() or 0) + 1 >= bounds[place].high:
            open_places.discard(place)
        if error is None:
            yield message


def _place(message: Message) -> Place:
    return Place(message.topic() or "", message.partition() or 0)


def _found(message: Message) -> Found:
    return Found(_place(message), message.offset() or 0, message.value())


def _marker(message: Message) -> Marker | None:
    try:
        return Marker.model_validate_json(message.value() or b"")
    except ValidationError:
        log.error("marker_unreadable", offset=message.offset())
        return None
