"""The ledger's half of the agreement with the mirror: reads digests, compares, and tells the publisher what differs.

One process at a time does it, whichever holds the ledger's lock. Its position is in the ledger, but nothing hangs on that:
comparing a page once more changes nothing, and one that was missed is one of the next round.

1. Read a page, *then* ask where the log ends, and wait until the intake has stored everything below. Now whatever the page calls
   published must be here, however far behind the intake was.
2. Compare, in slices, without a lock.
3. Tell the publisher: which keys to emit again, and which of our events it has lost. Both name versions, so that a second look
   under the mirror's lock finds what has gone right meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import psycopg
import structlog

from schemas import digests as digest_format
from schemas import returns
from schemas.digests import DigestEnd, DigestPage, UnreadableDigest
from schemas.returns import WHATEVER_IT_IS, DigestsWanted, KeyAt, RepublishKeys, Return, ReturnedEvent
from schemas.topics import Topics
from services.consumer.ledger import database, differences, digests
from services.consumer.ledger.differences import TO_REPUBLISH, Found
from services.consumer.ledger.digests import Reading
from services.consumer.ledger.offsets import LogPartition
from services.consumer.log.digests import DigestLog, Read
from services.consumer.log.records import LogUnavailable
from services.consumer.metrics import Metrics
from services.consumer.provision import asking
from services.consumer.settings import Settings
from services.kit.kafka import KafkaSettings
from services.kit.postgres import Connection

log = structlog.get_logger()

_POLL_SECONDS = 0.5
_LOOK_SECONDS = 0.25
_RETRY_SECONDS = 10.0
_SAY_SECONDS = 60.0
_STANDBY_SECONDS = 5.0
_KEYS_PER_RECORD = 500


class Stopped(Exception):
    """`stop` was called while something was waited for."""


class DigestReader:
    """A thread with a connection of its own; every process has one, and one of them works."""

    def __init__(self, settings: Settings, kafka: KafkaSettings, metrics: Metrics) -> None:
        self._settings = settings
        self._kafka = kafka
        self._metrics = metrics
        self._stopping = threading.Event()

    def stop(self) -> None:
        """End `run` soon. From any thread."""
        self._stopping.set()

    def run(self) -> None:
        """Work until `stop`; waits out a ledger or a Kafka that is away."""
        while not self._stopping.is_set():
            try:
                with database.connect(self._settings.database_url.get_secret_value()) as connection:
                    self._stand_by(connection)
            except Stopped:
                return
            except psycopg.Error as error:
                log.warning("digests_wait", exc_info=error)
            except LogUnavailable as error:
                log.warning("digests_wait", reason=str(error))
            self._stopping.wait(_RETRY_SECONDS)

    def _stand_by(self, connection: Connection) -> None:
        while not self._stopping.is_set():
            with digests.only_reader(connection) as mine:
                if mine:
                    self._work(connection)
            self._observe(connection)
            self._stopping.wait(_STANDBY_SECONDS)

    def _work(self, connection: Connection) -> None:
        topics = Topics(self._settings.topic_prefix)
        source = DigestLog(self._kafka, topics, f"{self._settings.group_id}-digests")
        try:
            comparison = Comparison(source, self._settings, self._metrics, self._wait)
            comparison.begin(connection)
            while not self._stopping.is_set():
                comparison.step(connection)
                self._observe(connection)
        finally:
            source.close()

    def _observe(self, connection: Connection) -> None:
        age = digests.age_seconds(connection)
        if age is not None:
            self._metrics.digest_age.set(age)
        self._metrics.digest_stubborn.set(differences.stubborn(connection))

    def _wait(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise Stopped


class Comparison:
    """The work itself, one record at a time. Raises `LogUnavailable` and what psycopg raises; begin again then."""

    def __init__(self, source: DigestLog, settings: Settings, metrics: Metrics, wait: Callable[[float], None]) -> None:
        self._log = source
        self._settings = settings
        self._metrics = metrics
        self._wait = wait

    def begin(self, connection: Connection) -> None:
        """Read on where the ledger's position is; at the end of the topic when it has none, or one that is not there any more."""
        topic_id = self._log.topic_id()
        known = digests.reading(connection)
        position = known.next if known is not None and known.topic_id == topic_id else None
        start = self._log.begin(position)
        if start != position:
            digests.begin_reading(connection, Reading(topic_id, start))

    def step(self, connection: Connection) -> None:
        """Send what is wished for, and take the next record if there is one."""
        self._send_wishes(connection)
        read = self._log.poll(_POLL_SECONDS)
        if read is not None:
            self._take(connection, read)

    def _take(self, connection: Connection, read: Read) -> None:
        try:
            digest = digest_format.decode(read.value)
        except UnreadableDigest as error:
            log.error("digest_unreadable", offset=read.offset, reason=str(error))
            digests.skip(connection, read.offset)
            return
        match digest:
            case DigestPage():
                self._wait_for_the_intake(connection)
                digests.page_compared(connection, digest, read.offset, self._compare(connection, digest))
            case DigestEnd():
                self._end(connection, digest, read.offset)

    def _wait_for_the_intake(self, connection: Connection) -> None:
        ends = self._log.ends()
        say_at = time.monotonic() + _SAY_SECONDS
        while not digests.passed(connection, ends):
            if time.monotonic() >= say_at:
                log.info("digest_waits_for_intake")
                say_at = time.monotonic() + _SAY_SECONDS
                ends = _still_to_be_read(ends, self._log.ends())
            self._wait(_LOOK_SECONDS)

    def _compare(self, connection: Connection, page: DigestPage) -> int:
        """How many differences there are that a repetition may cure."""
        curable = 0
        for part in differences.slices(connection, page):
            found = differences.compare(connection, page, part)
            self._sound_alarm(found)
            recorded = differences.record(connection, part, found)
            self._count(found, recorded.repaired)
            self._tell(connection, recorded.tell)
            curable += recorded.curable
        return curable

    def _end(self, connection: Connection, end: DigestEnd, offset: int) -> None:
        left = digests.round_ended(connection, end, offset)
        if left is None:
            log.info("digest_round_incomplete")
        else:
            log.info("digest_round_compared", count=left)

    def _sound_alarm(self, found: Sequence[Found]) -> None:
        for one in found:
            if one.difference == "hash":
                log.error("digest_hash_alarm", kind=one.key.kind, version=one.theirs)

    def _count(self, found: Sequence[Found], repaired: Counter[differences.Difference]) -> None:
        for difference, count in Counter(one.difference for one in found).items():
            self._metrics.digest_differences.labels(difference).inc(count)
            log.warning("digest_differs", reason=difference, count=count)
        for difference, count in repaired.items():
            self._metrics.digest_repaired.labels(difference).inc(count)
            log.info("digest_repaired", reason=difference, count=count)

    # To the publisher

    def _tell(self, connection: Connection, found: Sequence[Found]) -> None:
        """At most so many a second: the mirror folds each one, and the driver may follow."""
        for start in range(0, len(found), _KEYS_PER_RECORD):
            some = found[start : start + _KEYS_PER_RECORD]
            self._send([*_to_republish(some), *self._to_give_back(connection, some)])
            differences.told(connection, some, self._settings.digest_tell_again_seconds)
            self._wait(len(some) / self._settings.digest_repairs_per_second)

    def _to_give_back(self, connection: Connection, found: Sequence[Found]) -> list[Return]:
        keys = [one.key for one in found if one.difference not in TO_REPUBLISH]
        return [ReturnedEvent(kind=kind, event=event) for kind, event in differences.events(connection, keys)]

    def _send_wishes(self, connection: Connection) -> None:
        for wish in digests.take_republish_wishes(connection):
            self._send([wish.message])
            digests.republish_wish_sent(connection, wish.request)
            log.warning("republish_wished", reason=wish.message.reason)
        untold = asking.to_ask(connection, _KEYS_PER_RECORD)
        if untold:
            self._send([RepublishKeys(keys=[KeyAt(*key, WHATEVER_IT_IS) for key in untold])])
            asking.asked(connection, untold)
            log.info("entities_wished", count=len(untold))
        request = digests.round_wish(connection, self._settings.digest_tell_again_seconds)
        if request is not None:
            self._send([DigestsWanted(request=request)])
            digests.round_wish_sent(connection, request)

    def _send(self, messages: Sequence[Return]) -> None:
        self._log.send([returns.encode(message) for message in messages])


def _to_republish(found: Sequence[Found]) -> list[Return]:
    keys = [KeyAt(*one.key, one.theirs) for one in found if one.difference in TO_REPUBLISH]
    return [RepublishKeys(keys=keys)] if keys else []


def _still_to_be_read(ends: Mapping[LogPartition, int], now: Mapping[LogPartition, int]) -> dict[LogPartition, int]:
    """Without what nobody can read any more: a topic that was made anew, a log that was cut. Recovery mode sees to those."""
    return {place: min(end, now[place]) for place, end in ends.items() if place in now}
