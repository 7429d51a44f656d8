"""The log as the intake sees it: a narrow port, and its adapter over the Kafka client.

Only this module and the replay's `log_range` import the client. Everything here belongs to one thread: the client makes every
call of another thread wait until a poll returns.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol, cast

import structlog
from confluent_kafka import (
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # exported without saying so

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

_DEAD_LETTER_MS = 8_000
_LARGEST_LETTER_BYTES = 950_000
"""Below the producer\'s limit of a million; a broker and other producers may allow more in the topics that we read."""


class LogUnavailable(RuntimeError):
    """Kafka did not answer, or did not take a record, in time; trying again later may help."""


class LogFailed(RuntimeError):
    """The client cannot go on; only a new process can."""


class Place(NamedTuple):
    """One partition."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Record:
    """One record as it is in the log."""

    place: Place
    offset: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]] = field(default_factory=list)


Coordinates = tuple[Place, int]
"""A record's partition and offset."""


class Known(NamedTuple):
    """What Kafka holds of one partition and of our group's progress in it."""

    committed: int | None
    metadata: str | None
    low: int
    high: int


class Polled(NamedTuple):
    """What a poll gave."""

    records: list[Record]
    lost_track: bool
    """An offset that we asked for is not in the log: it was trimmed, or the topic was created anew. Rejoin."""


class Membership(Protocol):
    """Who is told about assignments, from within `EventLog.poll`."""

    def assigned(self, places: Sequence[Place]) -> Mapping[Place, int] | None:
        """Where to begin reading these; None when that cannot be known now: they stay paused until a rejoin."""

    def revoked(self, places: Sequence[Place]) -> None:
        """They are somebody else's from here on, or were taken from us before we knew."""


class EventLog:
    """A member of the consumer group over the event topics. Begins where its `membership` says, never where Kafka would."""

    def __init__(
        self, settings: KafkaSettings, group: str, topics: Sequence[str], membership: Membership, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._topics = list(topics)
        self._membership = membership
        self._metrics = metrics
        self._unacknowledged = 0
        self._fatal: str | None = None
        self._consumer = Consumer(
            settings.group_member(group) | {"on_commit": self._on_commit, "error_cb": self._on_error, "client.id": "consumer"},
            logger=_sparse_logger(),
        )

    def join(self) -> None:
        """Become a member. Assignments arrive during `poll`."""
        self._consumer.subscribe(self._topics, on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost)

    def rejoin(self) -> None:
        """Leave and become a member again, so that every partition is assigned, and its start decided, anew."""
        self._consumer.unsubscribe()
        self.join()

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
            raise LogUnavailable(_name(error)) from error
        return [Place(topic, number) for topic in self._topics if topic in found for number in found[topic].partitions]

    def known(self, places: Collection[Place], timeout_seconds: float = 5) -> dict[Place, Known]:
        """What Kafka has; raises `LogUnavailable`."""
        try:
            committed = self._consumer.committed([TopicPartition(*place) for place in places], timeout=timeout_seconds)
            return {Place(one.topic, one.partition): self._known(one, timeout_seconds) for one in committed}
        except KafkaException as error:
            raise LogUnavailable(_name(error)) from error

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
            raise LogUnavailable(_name(error)) from error

    def commit(self, positions: Mapping[Place, int], metadata: str) -> None:
        """Tell Kafka how far the ledger is; does not wait. For lag tools, and as evidence should the ledger lose history."""
        offsets = [TopicPartition(*place, offset, metadata) for place, offset in positions.items()]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            log.info("commit_not_sent", code=_name(error))
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
            log.info("commits_not_awaited", code=_name(error))
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


class Letter(NamedTuple):
    """A record for the dead-letter topic."""

    record: Record
    reason: str
    """Closed code."""
    message: str
    """What is wrong, without a value."""

    @property
    def at(self) -> Coordinates:
        """Where the record is in the log."""
        return self.record.place, self.record.offset


class LogWatch:
    """Looks now and then whether the topics are still the ones that are read, and as long as what was read of them.

    The client notices neither by itself: a topic that was made anew and has grown past our position is read on as if nothing had
    happened, and a position behind the end of a log that became shorter waits in silence. Nothing here blocks: the answers of one
    look are collected by a later call.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._admin = AdminClient(settings.client(), logger=_sparse_logger())
        self._asked: _Asked | None = None

    @property
    def asked(self) -> bool:
        """Whether a look is under way."""
        return self._asked is not None

    def forget(self) -> None:
        """What was asked is out of date."""
        self._asked = None

    def ask(self, ids: Mapping[str, str], positions: Mapping[Place, int]) -> None:
        """Begin a look: do the topics still have these `ids`, and their partitions what lies before these `positions`?"""
        topics = sorted({place.topic for place in positions})
        newest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        ends = {TopicPartition(*place): newest for place in positions}
        self._asked = _Asked(
            {topic: ids[topic] for topic in topics},
            dict(positions),
            self._admin.describe_topics(TopicCollection(topics), request_timeout=10) if topics else {},
            self._admin.list_offsets(ends, request_timeout=10) if ends else {},
        )

    def found(self) -> Change | None:
        """What is not as it was, once the answers are there; None also when Kafka did not answer."""
        asked = self._asked
        if asked is None or not all(answer.done() for answer in (*asked.topics.values(), *asked.ends.values())):
            return None
        self._asked = None
        gone = [topic for topic, answer in asked.topics.items() if _code(answer) in _NO_SUCH_TOPIC]
        if gone:
            return Change("topic_missing", gone[0])
        anew = [topic for topic, answer in asked.topics.items() if not answer.exception() and _id(answer) != asked.ids[topic]]
        if anew:
            return Change("topic_recreated", anew[0])
        shorter = [
            one.topic
            for one, answer in asked.ends.items()
            if not answer.exception() and answer.result().offset < asked.positions[Place(one.topic, one.partition)]
        ]
        return Change("log_shorter", shorter[0]) if shorter else None


class Change(NamedTuple):
    """What happened to a topic that we read."""

    what: Literal["topic_missing", "topic_recreated", "log_shorter"]
    topic: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """One look, and its answers to be."""

    ids: dict[str, str]
    positions: dict[Place, int]
    topics: dict[str, Future[Any]]
    ends: dict[TopicPartition, Future[Any]]


_NO_SUCH_TOPIC = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})


def _code(answer: Future[Any]) -> int | None:
    error = answer.exception()
    return error.args[0].code() if isinstance(error, KafkaException) else None


def _id(answer: Future[Any]) -> str:
    return str(answer.result().topic_id)


class DeadLetters:
    """Writes records that nobody can use to ``dlq.<topic>``, bytes untouched, with where they came from and why.

    Nobody waits long for it: what Kafka has not acknowledged yet is under way, and is asked for again. A record too large for
    Kafka to take again goes without its value, with length and digest in its place: one record must not hold the intake, and the
    bytes stay where the letter points to, for as long as the topic keeps them.
    """

    def __init__(self, settings: KafkaSettings, name_of: Callable[[str], str]) -> None:
        """`name_of` gives a topic's dead-letter topic."""
        self._producer = Producer(settings.producer(_DEAD_LETTER_MS), logger=_sparse_logger())
        self._name_of = name_of
        self._under_way: set[Coordinates] = set()
        self._written: set[Coordinates] = set()
        self.refusal: str | None = None
        """Why Kafka did not take the last one that it did not take."""

    def written(self, letters: Sequence[Letter], wait_seconds: float) -> set[Coordinates]:
        """Have them written; which of them Kafka has acknowledged by now. Each is written once, or again when Kafka refused it
        or did not answer: twice is possible, and harmless."""
        wanted = {letter.at for letter in letters}
        for letter in letters:
            if letter.at not in self._written | self._under_way and not self._send(letter):
                break
        end = time.monotonic() + wait_seconds
        self._producer.poll(0)
        while wanted & self._under_way and (left := end - time.monotonic()) > 0:
            self._producer.poll(min(left, 0.05))
        return wanted & self._written

    def stored(self, letters: Collection[Letter]) -> None:
        """Their offsets are in the ledger: nobody asks again."""
        self._written -= {letter.at for letter in letters}

    def forget(self, places: Collection[Place]) -> None:
        """These partitions are not ours any more. Should one come back, it may be another log with the same offsets."""
        self._written = {at for at in self._written if at[0] not in places}
        self._under_way = {at for at in self._under_way if at[0] not in places}

    def _send(self, letter: Letter) -> bool:
        record, at = letter.record, letter.at

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                self.refusal = error.name()
            elif at in self._under_way:
                self._written.add(at)
            self._under_way.discard(at)

        try:
            self._producer.produce(
                self._name_of(record.place.topic),
                key=record.key,
                value=record.value if _fits(record) else None,
                headers=[
                    *(record.headers if _fits(record) else _digest(record)),
                    *_context(record, letter.reason, letter.message),
                ],
                on_delivery=delivered,
            )
        except BufferError:
            self.refusal = "buffer full"
            return False
        except KafkaException as error:
            self.refusal = _name(error)
            return False
        self._under_way.add(at)
        return True


def _fits(record: Record) -> bool:
    """Whether Kafka takes the record once more, with our headers added."""
    sizes = [len(record.value or b""), len(record.key or b""), *(len(name) + len(value) for name, value in record.headers)]
    return sum(sizes) <= _LARGEST_LETTER_BYTES


def _digest(record: Record) -> list[tuple[str, bytes]]:
    value = record.value or b""
    return [
        ("enrollstream.value_bytes", str(len(value)).encode()),
        ("enrollstream.value_sha256", hashlib.sha256(value).hexdigest().encode()),
    ]


def _context(record: Record, reason: str, message: str) -> list[tuple[str, bytes]]:
    """Kafka Connect's names, which tools know, and our own reason code."""
    where = {"topic": record.place.topic, "partition": record.place.partition, "offset": record.offset}
    cause = {"exception.class.name": reason, "exception.message": message}
    connect = [(f"__connect.errors.{name}", str(value).encode()) for name, value in (where | cause).items()]
    return [*connect, ("enrollstream.reason", reason.encode()), ("enrollstream.stage", b"intake")]


def _record(message: Message) -> Record:
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    pairs = cast("list[tuple[str, bytes | str | None]]", message.headers() or [])
    assert topic is not None and partition is not None and offset is not None  # noqa: S101, PT018  (a record has all three)
    headers = [(str(name), value.encode() if isinstance(value, str) else value or b"") for name, value in pairs]
    return Record(Place(topic, partition), offset, message.key(), message.value(), headers)


def _name(error: KafkaException) -> str:
    cause = error.args[0]
    return cause.name() if isinstance(cause, KafkaError) else str(cause)


class _Sparse(logging.Filter):
    """At most one line in five seconds: a broker that is away makes the client write twenty a second."""

    _next = 0.0

    def filter(self, _record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now < self._next:
            return False
        self._next = now + 5
        return True


def _sparse_logger() -> logging.Logger:
    logger = logging.getLogger("librdkafka")
    if not any(isinstance(known, _Sparse) for known in logger.filters):
        logger.addFilter(_Sparse())
    return logger
