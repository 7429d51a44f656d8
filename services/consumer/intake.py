"""From the log to the ledger: one thread that polls, stores a batch in one transaction, and tells the driver.

The ledger's offset is the one that counts. Kafka's commit follows it, and the LMS is never waited for. While the ledger is away
the batch is held, the partitions are paused and polling goes on, so that the membership lives.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
import structlog

from schemas.codec import NewerEvent, UndecodableEvent
from schemas.topics import ENTITY_KINDS, Topics
from services.consumer.flood import Flood, FloodGauge, Limit
from services.consumer.ledger import database, offsets, parked, recovery, starting, stops, storing
from services.consumer.ledger.offsets import LogPartition, OffsetConflict
from services.consumer.ledger.parked import Parked
from services.consumer.ledger.policies import Policies
from services.consumer.ledger.recovery import HistoryChanged, Witness
from services.consumer.ledger.starting import CommitMetadata, InKafka, Loss
from services.consumer.ledger.storing import Batch, Stored
from services.consumer.log import (
    Change,
    Coordinates,
    DeadLetters,
    EventLog,
    Letter,
    LogFailed,
    LogUnavailable,
    LogWatch,
    Place,
    Record,
)
from services.consumer.metrics import Metrics
from services.consumer.nouns import WORK_CHANNEL, SeatRef
from services.consumer.reading import Reading, before, decoded, set_aside, sort_out
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
_LETTER_WAIT_SECONDS = 0.5
_LETTER_RETRY_SECONDS = 1.0
_STOP_LOOK_SECONDS = 1.0
_PARKED_PAGE = 100
_REFUSED = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded)
"""The database refuses the data itself: trying again cannot help."""

Handover = Callable[[Collection[SeatRef]], None]
"""Tells this process's driver about committed work; called from the intake's thread."""


@dataclass
class _Session:
    """One connection to one history of the ledger."""

    connection: Connection
    identity: DatabaseIdentity


class _Flooded(Exception):
    """More records cannot be used than is believable."""

    def __init__(self, flood: Flood, reason: str) -> None:
        super().__init__(reason)
        self.flood = flood
        self.reason = reason


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
        self.witness = Witness()
        self._stopping = threading.Event()
        self._session: _Session | None = None
        self._reading = Reading()
        self._gauge = FloodGauge(Limit(settings.dead_letter_limit, settings.dead_letter_window, settings.dead_letter_share))
        self._log: EventLog | None = None
        self._letters: DeadLetters | None = None
        self._watch: LogWatch | None = None
        self._stopped: _Flooded | None = None
        self._history_known = False
        self._accounted: dict[LogPartition, Loss] = {}
        self._parked_after: parked.Mark | None = None
        self._parked_read = False
        self._to_tell = False
        self._counted = 0
        self._missing: set[str] = set()
        self._assigned_once = False
        self._misplaced = False
        self._ledger_reachable = False
        self._turned_at = time.monotonic()
        self._long_step = False
        self._retry_at = 0.0
        self._retry_seconds = _FIRST_RETRY_SECONDS
        self._checked_at = 0.0
        self._watched_at = 0.0
        self._letters_at = 0.0
        self._letter_wait = _LETTER_WAIT_SECONDS
        self._lag_at = 0.0
        self._joined_at = 0.0
        self._rejoined_at = 0.0
        self._failed_placings = 0

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
        return {
            "assigned": self._assigned_once,
            "ledger": self._ledger_reachable,
            "placed": not self._misplaced,
            "flowing": self._stopped is None,
        }

    def reasons(self) -> dict[str, str]:
        """Why the intake does not do all that it should, in closed codes and names of topics."""
        found = {"letters": "dead letters not taken by Kafka"} if self._reading.blocked else {}
        if self._missing:
            found["topics"] = f"missing: {', '.join(sorted(self._missing))}"
        if self._stopped is not None:
            flood = self._stopped.flood
            found["flowing"] = (
                f"{flood.bad} of the last {flood.seen} records of {flood.place.topic} [{flood.place.partition}] cannot be used "
                f"({self._stopped.reason}); stopped before offset {flood.offset}"
            )
        return found

    def history_known(self) -> bool:
        """Whether Kafka has been asked what it remembers of this ledger; before, nobody may act upon what the ledger says."""
        return self._history_known

    # The thread

    def run(self) -> None:
        """Work until `stop`; raises `log.LogFailed`, or a defect, when only a new process can go on."""
        self._metrics.poll_age.set_function(self.turn_age_seconds)
        try:
            while not self._stopping.is_set() and not (self._open() and self._review()):
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
        """Connect, and find out which history this is. False: not now."""
        try:
            self._ledger()
        except (psycopg.Error, HistoryChanged) as error:
            self._lose_ledger(error)
            return False
        self._ledger_reachable = True
        return True

    def _review(self) -> bool:
        """Ask Kafka what it remembers of this ledger, in all partitions and before anybody is told to act. False: not now."""
        if self._log is None:
            names = [self._topics.entity(kind) for kind in ENTITY_KINDS]
            self._log = EventLog(self._kafka, self._settings.group_id, names, self, self._metrics)
        try:
            found = self._in_kafka(self._log.places())
            session = self._ledger()
            with self._taking_long():
                self._accounted = starting.review(session.connection, found, session.identity, self._suspect_seconds)
        except LogUnavailable as error:
            log.warning("log_away", reason=str(error))
            return False
        except (psycopg.Error, HistoryChanged) as error:
            self._lose_ledger(error)
            return False
        self._history_known = True
        return True

    def _join(self) -> None:
        self._letters = DeadLetters(self._kafka, self._topics.dead_letter)
        self._watch = LogWatch(self._kafka)
        self._events.join()
        self._joined_at = time.monotonic()

    @property
    def _events(self) -> EventLog:
        assert self._log is not None  # noqa: S101  (made by _review, before the first turn)
        return self._log

    def _turn(self) -> None:
        polled = self._events.poll(BATCH, _POLL_SECONDS)
        self._reading.hold(polled.records)
        self._warn_when_never_assigned()
        self._observe_lag()
        self._watch_topics()
        if polled.lost_track:
            self._abandon("offset is not in the log")
        elif time.monotonic() < self._retry_at:
            if polled.records:
                # Of a partition that was assigned meanwhile.
                self._events.pause()
        elif self._misplaced:
            self._find_place()
        elif self._stopped is not None:
            self._attempt(self._look_whether_to_go_on)
        else:
            self._work()

    def _work(self) -> None:
        if self._to_tell:
            self._attempt(self._tell_positions)
        elif not self._parked_read and self._assigned_once:
            self._attempt(self._release_parked)
        elif self._reading.next(1) or (self._reading.blocked and time.monotonic() >= self._letters_at):
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
        except _Flooded as flooded:
            self._stop_line(flooded)
        except (psycopg.Error, LogUnavailable) as error:
            self._hold(error)
        else:
            self._go_on()

    def _hold(self, error: Exception) -> None:
        if isinstance(error, LogUnavailable):
            log.warning("log_away", reason=str(error))
        else:
            self._lose_ledger(error)
        self._events.pause()
        self._retry_at = time.monotonic() + self._next_delay()

    def _go_on(self) -> None:
        if self._retry_at and self._stopped is None:
            self._events.resume(but=self._reading.blocked)
        self._ledger_reachable = True
        if self._stopped is None:
            self._retry_at, self._retry_seconds = 0.0, _FIRST_RETRY_SECONDS

    def _next_delay(self) -> float:
        delay, self._retry_seconds = self._retry_seconds, min(self._retry_seconds * 2, _LONGEST_RETRY_SECONDS)
        return delay

    def _abandon(self, reason: str) -> None:
        """Drop what was read and have every partition placed anew. At most once a second: it disturbs the whole group."""
        log.warning("intake_rejoins", reason=reason)
        self._let_go(list(self._reading.positions))
        self._misplaced = True
        self._events.pause()
        self._retry_at = max(self._retry_at, self._rejoined_at + 1)

    def _find_place(self) -> None:
        """The ledger is asked first: an assignment that cannot be placed would only be paused again."""
        if self._open():
            self._rejoined_at = time.monotonic()
            self._retry_at, self._retry_seconds = 0.0, _FIRST_RETRY_SECONDS
            self._let_go(list(self._reading.positions))
            self._misplaced = False
            self._events.rejoin()
        else:
            self._retry_at = time.monotonic() + self._next_delay()

    def _warn_when_never_assigned(self) -> None:
        if not self._assigned_once and time.monotonic() > self._joined_at + _SILENT_SECONDS:
            self._joined_at = time.monotonic()
            log.warning("no_assignment_yet", reason="broker too old for group.protocol=consumer, no such topic, or ACL")

    # The log as a whole

    def _watch_topics(self) -> None:
        """Are these still the topics that we read, and as long as what we have read of them?"""
        if self._watch is None or self._misplaced or not self._reading.positions:
            return
        if self._watch.asked:
            self._notice(self._watch.found())
        elif time.monotonic() >= self._watched_at + self._settings.log_check_seconds:
            self._watched_at = time.monotonic()
            self._watch.ask(self._reading.ids, self._reading.positions)

    def _notice(self, change: Change | None) -> None:
        if change is None:
            return
        if change.what != "topic_missing":
            self._abandon(change.what)
        elif change.topic not in self._missing:
            self._missing.add(change.topic)
            self._metrics.log_faults.labels(change.what).inc()
            log.error("log_fault", reason=change.what, topic=change.topic)

    def _say(self, placed: starting.Placed) -> None:
        for place, loss in placed.losses.items():
            self._metrics.log_faults.labels(loss).inc()
            log.error("log_fault", reason=loss, topic=place.topic, partition=place.partition, offset=placed.starts[place])
        for place in placed.added:
            log.warning("partition_added", topic=place.topic, partition=place.partition, offset=placed.starts[place])

    def _tell_positions(self) -> None:
        """Kafka hears where the partitions begin, and in which database: else an old commit would prove the same loss again."""
        session = self._ledger()
        metadata = CommitMetadata(session.identity, offsets.last_activity(session.connection)).encode()
        self._events.commit(self._reading.positions, metadata)
        self._to_tell = False

    # Membership: called from within a poll

    def assigned(self, places: Sequence[Place]) -> Mapping[Place, int] | None:
        """Begin at the ledger's offsets; None, and nothing is read, while they cannot be known."""
        try:
            starts = self._starts(places) if places else {}
        except (psycopg.Error, HistoryChanged, LogUnavailable) as error:
            log.warning("assignment_not_placed", count=len(places), exc_info=error)
            self._disconnect()
            self._misplaced = True
            self._failed_placings += 1
            self._retry_at = max(self._retry_at, time.monotonic() + min(2 ** (self._failed_placings - 1), _LONGEST_RETRY_SECONDS))
            return None
        if self._misplaced:
            return None
        self._failed_placings = 0
        self._assigned_once = True
        self._reading.positions |= starts
        self._to_tell = bool(self._reading.positions)
        self._metrics.assigned.set(len(self._reading.positions))
        log.info("partitions_assigned", count=len(places))
        return starts

    def revoked(self, places: Sequence[Place]) -> None:
        """What was read of them and not stored is read by whoever has them now."""
        self._let_go(places)
        log.info("partitions_revoked", count=len(places))

    def _let_go(self, places: Collection[Place]) -> None:
        self._reading.forget(places)
        self._gauge.forget(places)
        if self._letters is not None:
            self._letters.forget(places)
        if self._watch is not None:
            self._watch.forget()
        if self._stopped is not None and self._stopped.flood.place in places:
            self._start_line()
        self._metrics.assigned.set(len(self._reading.positions))
        self._metrics.letters_waiting.set(len(self._reading.blocked))

    def _starts(self, places: Sequence[Place]) -> dict[Place, int]:
        """Kafka is asked first, then the ledger: another member's progress in between must not look like a loss of ours."""
        found = self._in_kafka(places)
        if len(found) < len(places):
            raise LogUnavailable("topic ids unknown")
        session = self._ledger()
        with self._taking_long():
            placed = starting.begin(session.connection, found, session.identity, self._suspect_seconds, self._accounted)
        for place in found:
            self._accounted.pop(place, None)
        self._missing -= {place.topic for place in places}
        self._say(placed)
        self._allow(session, list(found))
        return {Place(place.topic, place.partition): offset for place, offset in placed.starts.items()}

    def _in_kafka(self, places: Sequence[Place]) -> dict[LogPartition, InKafka]:
        """What Kafka knows of those whose topic has an id; raises `LogUnavailable`."""
        ids = self._events.topic_ids()
        self._reading.ids |= ids
        return {
            self._reading.place(place): InKafka(known.committed, CommitMetadata.decode(known.metadata), known.low, known.high)
            for place, known in self._events.known([place for place in places if place.topic in ids]).items()
        }

    # The ledger

    @property
    def _suspect_seconds(self) -> float:
        return self._settings.late_bound_seconds + self._settings.replica_lag_seconds

    def _ledger(self) -> _Session:
        if self._session is None:
            url, timeout = self._settings.database_url.get_secret_value(), self._settings.ledger_timeout_seconds
            connection = database.connect(url, statement_timeout_seconds=timeout)
            try:
                with self._taking_long():
                    began_with = recovery.begin_session(connection, self._suspect_seconds, self.witness)
                self._session = _Session(connection, began_with)
            except BaseException:
                connection.close()
                raise
        return self._session

    @contextmanager
    def _taking_long(self) -> Iterator[None]:
        """Entering recovery mode may take minutes, and counts as being alive."""
        self._long_step = True
        try:
            yield
        finally:
            self._turned_at, self._long_step = time.monotonic(), False

    def _lose_ledger(self, error: Exception) -> None:
        log.warning("ledger_away", exc_info=error)
        self._ledger_reachable = False
        self._disconnect()

    def _disconnect(self) -> None:
        if self._session is not None:
            self._session.connection.close()
            self._session = None

    def _release_parked(self) -> None:
        """One page of the records that an older reader did not understand, and this one may. Once per process and record."""
        session = self._ledger()
        rows = parked.waiting(session.connection, self._parked_after, _PARKED_PAGE)
        for row in rows:
            self._release(session, row)
            self._parked_after = parked.Mark(row.place.topic_id, row.place.partition, row.offset)
        self._parked_read = len(rows) < _PARKED_PAGE

    def _release(self, session: _Session, row: Parked) -> None:
        record = Record(Place(row.place.topic, row.place.partition), row.offset, row.key, row.value)
        try:
            arrival = decoded(record, self._topics)
            stored = storing.release(session.connection, Batch([arrival], [row]), self._policies, session.identity)
        except NewerEvent:
            return
        except (UndecodableEvent, *_REFUSED) as error:
            log.error(
                "parked_record_refused", topic=row.place.topic, partition=row.place.partition, offset=row.offset, exc_info=error
            )
        else:
            self._announce(session, stored)

    # A batch

    def _store_held(self) -> None:
        waited: set[Place] = set()
        if time.monotonic() >= self._letters_at:
            waited, self._reading.blocked = self._reading.blocked, set()
        # Who has waited before has had its moment; the others must not wait for it again and again.
        self._letter_wait = 0.0 if waited else _LETTER_WAIT_SECONDS
        while records := self._reading.next(BATCH):
            self._store(records)
        if waited - self._reading.blocked:
            self._events.resume(but=self._reading.blocked)
        self._metrics.letters_waiting.set(len(self._reading.blocked))

    def _store(self, records: Sequence[Record]) -> None:
        """Store the records. One that cannot be used goes to the dead letters, and the others do not suffer for it."""
        records = [record for record in records if record.place not in self._reading.blocked]
        if not records:
            return
        try:
            batch, letters = sort_out(records, self._reading, self._topics)
            if missing := self._without_letter(records, letters):
                self._store(before(records, missing))
                self._block({place for place, _ in missing})
                return
            stored = self._transaction(batch)
        except Exception as error:
            if not _is_the_records_fault(error):
                raise
            if len(records) > 1:
                middle = len(records) // 2
                self._store(records[:middle])
                self._store(records[middle:])
            else:
                self._set_aside(records[0], error)
        else:
            self._after_commit(records, batch, letters, stored)

    def _set_aside(self, record: Record, error: Exception) -> None:
        """A record that can be decoded, but neither decided nor stored."""
        refused = isinstance(error, psycopg.Error)
        reason, message = (
            ("refused_by_ledger", "the database does not take this content")
            if refused
            else ("defect", f"the reader failed: {type(error).__name__}")
        )
        log.error("record_refused", reason=reason, topic=record.place.topic, offset=record.offset, exc_info=error)
        batch, letters = set_aside(record, self._reading, reason, message)
        if self._without_letter([record], letters):
            self._block({record.place})
        else:
            self._after_commit([record], batch, letters, self._transaction(batch))

    def _without_letter(self, records: Sequence[Record], letters: Sequence[Letter]) -> set[Coordinates]:
        """The records whose letter Kafka has not acknowledged, after a moment. Raises `_Flooded`."""
        if not letters:
            return set()
        self._refuse_flood(records, letters)
        assert self._letters is not None  # noqa: S101  (made by _join, before the first record)
        return {letter.at for letter in letters} - self._letters.written(letters, self._letter_wait)

    def _block(self, places: Collection[Place]) -> None:
        """The next record of these must not be passed before its letter is written; other partitions go on."""
        assert self._letters is not None  # noqa: S101  (see above)
        log.warning("dead_letters_wait", count=len(places), reason=self._letters.refusal or "no answer yet")
        self._letters_at = time.monotonic() + _LETTER_RETRY_SECONDS
        self._reading.blocked |= set(places)
        self._events.pause(places)

    def _transaction(self, batch: Batch) -> Stored:
        failpoint("consumer.after_poll")
        session = self._ledger()
        with self._metrics.intake_seconds.time():
            return storing.store(session.connection, batch, self._policies, session.identity)

    def _after_commit(self, records: Sequence[Record], batch: Batch, letters: Sequence[Letter], stored: Stored) -> None:
        """A crash before one of these steps repeats what came before it, which changes nothing.

        1. What nobody can use is in the dead-letter topic, acknowledged.
        2. Everything else, and the offset, are in the ledger.
        3. Kafka hears of it.
        4. The drivers hear of it.
        """
        failpoint("consumer.after_ledger_commit")
        session = self._ledger()
        self.witness.saw(stored.activity)
        moved = {Place(span.place.topic, span.place.partition): span.end for span in batch.spans}
        self._reading.stored(moved)
        self._checked_at = time.monotonic()
        self._events.commit(moved, CommitMetadata(session.identity, stored.activity).encode())
        failpoint("consumer.after_commit")
        self._gauge.note(records, {letter.at for letter in letters})
        if self._letters is not None:
            self._letters.stored(letters)
        self._count(stored, batch)
        self._announce(session, stored)

    # Too many that cannot be used

    def _refuse_flood(self, records: Sequence[Record], letters: Sequence[Letter]) -> None:
        flood = self._gauge.flood(records, {letter.at for letter in letters})
        if flood is None:
            return
        reason = Counter(letter.reason for letter in letters if letter.record.place == flood.place).most_common(1)[0][0]
        place = self._reading.place(flood.place)
        stops.put(self._ledger().connection, place, flood.offset, flood.bad, flood.seen, reason)
        raise _Flooded(flood, reason)

    def _stop_line(self, flooded: _Flooded) -> None:
        flood = flooded.flood
        self._stopped = flooded
        self._metrics.stopped.set(1)
        log.error(
            "intake_stopped",
            reason=flooded.reason,
            topic=flood.place.topic,
            partition=flood.place.partition,
            offset=flood.offset,
            count=flood.bad,
        )
        self._events.pause()
        self._retry_at = time.monotonic() + _STOP_LOOK_SECONDS

    def _look_whether_to_go_on(self) -> None:
        """A person may have said so. A new process, or whoever is assigned the partition next, tries by itself."""
        assert self._stopped is not None  # noqa: S101  (asked by _turn)
        session = self._ledger()
        place = self._reading.place(self._stopped.flood.place)
        stop = stops.of(session.connection, [place]).get(place)
        if stop is not None and stop.divert_before is None:
            self._retry_at = time.monotonic() + _STOP_LOOK_SECONDS
            return
        self._gauge.begin_anew(self._stopped.flood.place)
        self._allow(session, [place])
        self._start_line()

    def _allow(self, session: _Session, places: Collection[LogPartition]) -> None:
        """Begin to count anew in these partitions, and let pass what a person has let pass."""
        for place, stop in stops.of(session.connection, places).items():
            self._gauge.begin_anew(Place(place.topic, place.partition), stop.divert_before or 0)
            stops.remove(session.connection, [place])

    def _start_line(self) -> None:
        self._stopped = None
        self._metrics.stopped.set(0)
        log.info("intake_goes_on")

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
        self._tell_activity(session)

    def _tell_activity(self, session: _Session) -> None:
        """The driver counts as well, and nobody commits for it. What it had counted at the last look is on disk by now."""
        if self._counted > self.witness.activity and self._reading.positions:
            self.witness.saw(self._counted)
            place, position = next(iter(self._reading.positions.items()))
            self._events.commit({place: position}, CommitMetadata(session.identity, self._counted).encode())
        self._counted = offsets.last_activity(session.connection)

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


def _is_the_records_fault(error: Exception) -> bool:
    """The database refuses the content, or our own code fails on it; not: ledger, log or the flood limit speak of the moment."""
    if isinstance(error, psycopg.Error):
        return isinstance(error, _REFUSED)
    return not isinstance(error, OffsetConflict | HistoryChanged | LogUnavailable | LogFailed | _Flooded)
