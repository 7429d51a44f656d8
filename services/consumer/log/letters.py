"""The dead-letter topics: records that nobody can use, kept with their bytes and the reason."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from services.consumer.log.clients import error_name, sparse_logger
from services.consumer.log.records import Coordinates, Place, Record
from services.kit.kafka import KafkaSettings

_DEAD_LETTER_MS = 8_000
_LARGEST_LETTER_BYTES = 950_000
"""Below the producer's limit of a million; a broker and other producers may allow more in the topics that we read."""


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


class DeadLetters:
    """Writes records that nobody can use to ``dlq.<topic>``, bytes untouched, with where they came from and why.

    Nobody waits long for it: what Kafka has not acknowledged yet is under way, and is asked for again. A record too large for
    Kafka to take again goes without its value, with length and digest in its place: one record must not hold the intake, and the
    bytes stay where the letter points to, for as long as the topic keeps them.
    """

    def __init__(self, settings: KafkaSettings, name_of: Callable[[str], str]) -> None:
        """`name_of` gives a topic's dead-letter topic."""
        self._configuration = settings.producer(_DEAD_LETTER_MS)
        self._producer = self._client()
        self._outdated = False
        self._name_of = name_of
        self._under_way: set[Coordinates] = set()
        self._written: set[Coordinates] = set()
        self.refusal: str | None = None
        """Why Kafka did not take the last one that it did not take."""

    def _client(self) -> Producer:
        return Producer(self._configuration, logger=sparse_logger())

    def written(self, letters: Sequence[Letter], wait_seconds: float) -> set[Coordinates]:
        """Have them written; which of them Kafka has acknowledged by now. Each is written once, or again when Kafka refused it
        or did not answer: twice is possible, and harmless."""
        if self._outdated and not self._under_way:
            # A letter that times out may mean a topic that was made anew, which this client would never find (see `log.events`).
            self._producer, self._outdated = self._client(), False
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
                self._outdated |= error.code() == KafkaError._MSG_TIMED_OUT
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
                    *context(letter),
                ],
                on_delivery=delivered,
            )
        except BufferError:
            self.refusal = "buffer full"
            return False
        except KafkaException as error:
            self.refusal = error_name(error)
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


def context(letter: Letter) -> list[tuple[str, bytes]]:
    """Where it came from and why, as headers: Kafka Connect's names, which tools know, and our own reason code."""
    record, reason = letter.record, letter.reason
    where = {"topic": record.place.topic, "partition": record.place.partition, "offset": record.offset}
    cause = {"exception.class.name": reason, "exception.message": letter.message}
    connect = [(f"__connect.errors.{name}", str(value).encode()) for name, value in (where | cause).items()]
    return [*connect, ("enrollstream.reason", reason.encode()), ("enrollstream.stage", b"intake")]
