"""From the log to the ledger: one thread that polls, stores a batch in one transaction, and tells the driver.

The ledger's offset is the one that counts. Kafka's commit follows it, and the LMS is never waited for. While the ledger is away
the batch is held, the partitions are paused and polling goes on, so that the membership lives.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import psycopg
import structlog

from schemas.codec import NewerEvent, UndecodableEvent
from schemas.topics import ENTITY_KINDS, Topics
from services.consumer.ledger import database, offsets, parked, recovery, starting, storing
from services.consumer.ledger.offsets import OffsetConflict
from services.consumer.ledger.policies import Policies
from services.consumer.ledger.recovery import HistoryChanged
from services.consumer.ledger.starting import CommitMetadata, InKafka
from services.consumer.ledger.storing import Batch, Stored
from services.consumer.log import DeadLetters, EventLog, LogUnavailable, Place, Record
from services.consumer.metrics import Metrics
from services.consumer.nouns import WORK_CHANNEL, SeatRef
from services.consumer.reading import Letter, Reading, decoded, set_aside, sort_out
from services.consumer.settings import Settings
from services.kit.failpoints import failpoint
from services.kit.kafka import KafkaSettings
from services.kit.postgres import Connection, DatabaseIdentity

log = structlog.get_logger()

BATCH = 500
_POLL_SECONDS = 0.1
_FIRST_RETRY_SECONDS = 0.05
_LONGEST_RETRY_SECONDS = 5.0
_SILENT_SECONDS = 15
_LAG_SECONDS = 5
_ALIVE_SECONDS = 30
_LONG_STEP_SECONDS = 900
_REFUSED = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded)
"""The database refuses the data itself: trying again cannot help."""
_AWAY = (psycopg.OperationalError, psycopg.InterfaceError)
"""It is about the moment: unreachable, restarting, a deadlock, a time limit."""

Handover = Callable[[Collection[SeatRef]], None]
"""Tells this process's driver about committed work; called from the intake's thread."""


@dataclass
class _Session:
    """One connection to one history of the ledger."""

    connection: Connection
    identity: DatabaseIdentity


class Intake:
    """Reads the log into the ledger until `stop`. `run` owns the thread; everything else may be called from others."""

    def __init__(
        self, settings: Settings, kafka: KafkaSettings, policies: Policies, metrics: Metrics, handover: Handover
    ) -> None:
        self._settings = settings
        self._kafka = kafka
        self._topics = Topics(settings.topic_prefix)
        self._policies = policies
        self._metrics = metrics
        self._handover = handover
        self._stopping = threading.Event()
        self._session: _Session | None = None
        self._reading = Reading()
        self._log: EventLog | None = None
        self._dead_letters: DeadLetters | None = None
        self._assigned_once = False
        self._misplaced = False
        self._ledger_reachable = False
        self._turned_at = time.monotonic()
        self._long_step = False
        self._retry_at = 0.0
        self._retry_seconds = _FIRST_RETRY_SECONDS
        self._checked_at = 0.0
        self._lag_at = 0.0
        self._joined_at = 0.0
        self._rejoined_at = 0.0

    # Asked by other threads

    def stop(self) -> None:
        """Ask `run` to end after the batch at hand."""
        self._stopping.set()

    def alive(self) -> bool:
        """Whether the loop turned within 30 s. Entering recovery mode may take minutes on a large ledger, and counts as alive."""
        return self.turn_age_seconds() < (_LONG_STEP_SECONDS if self._long_step else _ALIVE_SECONDS)

    def turn_age_seconds(self) -> float:
        """Since the loop last turned."""
        return time.monotonic() - self._turned_at

    def ready(self) -> dict[str, bool]:
        """What has to hold before this process counts as ready."""
        return {"assigned": self._assigned_once, "ledger": self._ledger_reachable, "placed": not self._misplaced}

    # The thread

    def run(self) -> None:
        """Work until `stop`; raises `log.LogFailed`, or a defect, when only a new process can go on."""
        self._metrics.poll_age.set_function(self.turn_age_seconds)
        try:
            while not self._stopping.is_set() and not self._open():
                self._turned_at = time.monotonic()
                self._stopping.wait(self._next_delay())
            if not self._stopping.is_set():
                self._join()
            while not self._stopping.is_set():
                self._turned_at = time.monotonic()
                self._turn()
        finally:
            self._close()

    def _open(self) -> bool:
        """Connect, find out which history this is, and take what was parked for a newer reader. False: not now."""
        try:
            self._ledger()
            self._release_parked()
        except (*_AWAY, HistoryChanged) as error:
            self._lose_ledger(error)
            return False
        self._ledger_reachable = True
        return True

    def _join(self) -> None:
        self._dead_letters = DeadLetters(self._kafka, self._topics.dead_letter)
        names = [self._topics.entity(kind) for kind in ENTITY_KINDS]
        self._log = EventLog(self._kafka, self._settings.group_id, names, self, self._metrics)
        self._log.join()
        self._joined_at = time.monotonic()

    @property
    def _events(self) -> EventLog:
        assert self._log is not None  # noqa: S101  (made by _join, before the first turn)
        return self._log

    def _turn(self) -> None:
        polled = self._events.poll(BATCH, _POLL_SECONDS)
        self._reading.hold(polled.records)
        self._warn_when_never_assigned()
        self._observe_lag()
        if polled.lost_track:
            self._abandon("offset is not in the log")
        elif time.monotonic() < self._retry_at:
            if polled.records:
                # Of a partition that was assigned meanwhile.
                self._events.pause()
        elif self._misplaced:
            self._find_place()
        elif self._reading.held:
            self._attempt(self._store_held)
        elif time.monotonic() >= self._checked_at + self._settings.offset_check_seconds:
            self._attempt(self._check)

    def _attempt(self, step: Callable[[], None]) -> None:
        """Do a step that needs ledger and log; when either is away, hold everything and come back."""
        try:
            step()
        except OffsetConflict as error:
            self._metrics.offset_conflicts.inc()
            self._abandon(f"the ledger has not seen what comes before, in {error}")
        except HistoryChanged:
            self._disconnect()
            self._abandon("the ledger is another database now")
        except (*_AWAY, LogUnavailable) as error:
            self._hold(error)
        else:
            self._go_on()

    def _hold(self, error: Exception) -> None:
        if isinstance(error, LogUnavailable):
            log.warning("dead_letters_wait", reason=str(error))
        else:
            self._lose_ledger(error)
        self._events.pause()
        self._retry_at = time.monotonic() + self._next_delay()

    def _go_on(self) -> None:
        if self._retry_at:
            self._events.resume()
        self._retry_at, self._retry_seconds, self._ledger_reachable = 0.0, _FIRST_RETRY_SECONDS, True

    def _next_delay(self) -> float:
        delay, self._retry_seconds = self._retry_seconds, min(self._retry_seconds * 2, _LONGEST_RETRY_SECONDS)
        return delay

    def _abandon(self, reason: str) -> None:
        """Drop what was read and have every partition placed anew. At most once a second: it disturbs the whole group."""
        log.warning("intake_rejoins", reason=reason)
        self._reading.forget_all()
        self._misplaced = True
        self._events.pause()
        self._retry_at = max(self._retry_at, self._rejoined_at + 1)

    def _find_place(self) -> None:
        """The ledger is asked first: an assignment that cannot be placed would only be paused again."""
        if self._open():
            self._rejoined_at = time.monotonic()
            self._retry_at, self._retry_seconds = 0.0, _FIRST_RETRY_SECONDS
            self._reading.forget_all()
            self._misplaced = False
            self._events.rejoin()
        else:
            self._retry_at = time.monotonic() + self._next_delay()

    def _warn_when_never_assigned(self) -> None:
        if not self._assigned_once and time.monotonic() > self._joined_at + _SILENT_SECONDS:
            self._joined_at = time.monotonic()
            log.warning("no_assignment_yet", reason="broker too old for group.protocol=consumer, no such topic, or ACL")

    # Membership: called from within a poll

    def assigned(self, places: Sequence[Place]) -> Mapping[Place, int] | None:
        """Begin at the ledger's offsets; None, and nothing is read, while they cannot be known."""
        try:
            starts = self._starts(places) if places else {}
        except (psycopg.Error, HistoryChanged, LogUnavailable) as error:
            log.warning("assignment_not_placed", count=len(places), exc_info=error)
            self._disconnect()
            self._misplaced = True
            return None
        if self._misplaced:
            return None
        self._assigned_once = True
        self._reading.positions |= starts
        self._metrics.assigned.set(len(self._reading.positions))
        log.info("partitions_assigned", count=len(places))
        return starts

    def revoked(self, places: Sequence[Place]) -> None:
        """What was read of them and not stored is read by whoever has them now."""
        self._reading.forget(set(places))
        self._metrics.assigned.set(len(self._reading.positions))
        log.info("partitions_revoked", count=len(places))

    def _starts(self, places: Sequence[Place]) -> dict[Place, int]:
        """Kafka is asked first, then the ledger: another member's progress in between must not look like a loss of ours."""
        ids = self._events.topic_ids()
        if not {place.topic for place in places} <= set(ids):
            raise LogUnavailable("topic ids unknown")
        self._reading.ids |= ids
        found = {
            self._reading.place(place): InKafka(known.committed, CommitMetadata.decode(known.metadata), known.low, known.high)
            for place, known in self._events.known(places).items()
        }
        session = self._ledger()
        self._long_step = True
        try:
            starts = starting.begin(session.connection, found, session.identity, self._suspect_seconds)
        finally:
            self._turned_at, self._long_step = time.monotonic(), False
        return {Place(place.topic, place.partition): offset for place, offset in starts.items()}

    # The ledger

    @property
    def _suspect_seconds(self) -> float:
        return self._settings.late_bound_seconds + self._settings.replica_lag_seconds

    def _ledger(self) -> _Session:
        if self._session is None:
            url, timeout = self._settings.database_url.get_secret_value(), self._settings.ledger_timeout_seconds
            connection = database.connect(url, statement_timeout_seconds=timeout)
            try:
                self._long_step = True
                self._session = _Session(connection, recovery.begin_session(connection, self._suspect_seconds))
            except BaseException:
                connection.close()
                raise
            finally:
                self._turned_at, self._long_step = time.monotonic(), False
        return self._session

    def _lose_ledger(self, error: Exception) -> None:
        log.warning("ledger_away", exc_info=error)
        self._ledger_reachable = False
        self._disconnect()

    def _disconnect(self) -> None:
        if self._session is not None:
            self._session.connection.close()
            self._session = None

    def _release_parked(self) -> None:
        """Records that an older reader did not understand, and this one may."""
        session = self._ledger()
        for row in parked.waiting(session.connection):
            record = Record(Place(row.place.topic, row.place.partition), row.offset, row.key, row.value)
            try:
                arrival = decoded(record, self._topics)
                stored = storing.release(session.connection, Batch([arrival], [row]), self._policies, session.identity)
            except NewerEvent:
                continue
            except (UndecodableEvent, *_REFUSED) as error:
                log.error(
                    "parked_record_refused",
                    topic=row.place.topic,
                    partition=row.place.partition,
                    offset=row.offset,
                    exc_info=error,
                )
            else:
                self._announce(session, stored)

    # A batch

    def _store_held(self) -> None:
        while self._reading.held:
            self._store(self._reading.held[:BATCH])
            self._reading.stored(BATCH)

    def _store(self, records: list[Record]) -> None:
        """Store the records; one that the database refuses goes to the dead letters, the others do not suffer for it."""
        try:
            self._store_together(*sort_out(records, self._reading, self._topics))
        except _REFUSED as error:
            if len(records) > 1:
                middle = len(records) // 2
                self._store(records[:middle])
                self._store(records[middle:])
            else:
                log.error("record_refused_by_ledger", topic=records[0].place.topic, offset=records[0].offset, exc_info=error)
                message = "the database does not take this content"
                self._store_together(*set_aside(records[0], self._reading, "refused_by_ledger", message))

    def _store_together(self, batch: Batch, letters: list[Letter]) -> None:
        """A crash between two of these steps repeats the earlier ones, which changes nothing.

        1. What nobody can use is in the dead-letter topic, acknowledged.
        2. Everything else, and the offset, are in the ledger.
        3. Kafka hears of it.
        4. The drivers hear of it.
        """
        failpoint("consumer.after_poll")
        self._write_dead_letters(letters)
        session = self._ledger()
        with self._metrics.intake_seconds.time():
            stored = storing.store(session.connection, batch, self._policies, session.identity)
        failpoint("consumer.after_ledger_commit")
        moved = {Place(span.place.topic, span.place.partition): span.end for span in batch.spans}
        self._reading.positions |= moved
        self._checked_at = time.monotonic()
        self._events.commit(moved, CommitMetadata(session.identity, stored.activity).encode())
        failpoint("consumer.after_commit")
        self._count(stored, batch)
        self._announce(session, stored)

    def _write_dead_letters(self, letters: list[Letter]) -> None:
        new = [one for one in letters if (one.record.place, one.record.offset) not in self._reading.written]
        if new and self._dead_letters is not None:
            self._dead_letters.put(new)
            self._reading.written |= {(one.record.place, one.record.offset) for one in new}

    def _announce(self, session: _Session, stored: Stored) -> None:
        if not stored.work:
            return
        self._handover(stored.work)
        # A statement of its own: inside the transaction it would let the whole server commit one by one.
        session.connection.execute("select pg_notify(%s, %s)", [WORK_CHANNEL, self._policies.target])

    def _count(self, stored: Stored, batch: Batch) -> None:
        for arrival, fate in stored.fates:
            self._metrics.events.labels(arrival.event.entity_key.kind, fate).inc()
            if fate == "hash_alarm":
                log.error(
                    "hash_alarm",
                    kind=arrival.event.entity_key.kind,
                    topic=arrival.topic,
                    partition=arrival.partition,
                    offset=arrival.offset,
                )
        for result, others in (("parked", batch.parked), ("undecodable", batch.undecodable)):
            for one in others:
                self._metrics.events.labels(self._topics.kind(one.place.topic) or "unknown", result).inc()
        for effect, count in stored.effects.items():
            self._metrics.decisions.labels(effect).inc(count)

    def _check(self) -> None:
        """Is the ledger still where we left it? An idle member that lost it must not wait for the next record to notice."""
        self._checked_at = time.monotonic()
        session = self._ledger()
        recovery.check_session(session.connection, session.identity)
        expected = {self._reading.place(place): position for place, position in self._reading.positions.items()}
        found = offsets.stored(session.connection, list(expected))
        wrong = [place for place, position in expected.items() if found.get(place) != position]
        if wrong:
            raise OffsetConflict(wrong)

    def _observe_lag(self) -> None:
        if time.monotonic() >= self._lag_at:
            self._lag_at = time.monotonic() + _LAG_SECONDS
            for topic, behind in self._events.lag(self._reading.positions).items():
                self._metrics.lag.labels(topic).set(behind)

    def _close(self) -> None:
        try:
            if self._log is not None:
                self._log.close(wait_seconds=3)
        finally:
            self._disconnect()
