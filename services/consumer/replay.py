"""Running replays: reads a range of the log apart from the live group and opens the seats of its records again.

A replay is a row that any consumer process may run; the one that does holds it for some seconds at a time. Each batch is one
transaction with its verdicts and its progress, so a process that dies loses nothing and repeats nothing.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
import structlog

from schemas.codec import NewerEvent, UndecodableEvent, decode
from schemas.keys import EntityKind
from schemas.topics import Topics
from services.consumer.ledger import database, offsets, parked, recovery, replay_batch, replays
from services.consumer.ledger.entities import Arrival
from services.consumer.ledger.offsets import LogPartition
from services.consumer.ledger.parked import Parked
from services.consumer.ledger.policies import Policies
from services.consumer.ledger.recovery import HistoryChanged
from services.consumer.ledger.replay_batch import Outcome
from services.consumer.ledger.replays import Judged, Replay, ReplayLost
from services.consumer.metrics import Metrics
from services.consumer.nouns import WORK_CHANNEL, SeatRef
from services.consumer.replay_log import Log, LogRecord, LogRefused, LogUnavailable, Missing
from services.kit.postgres import Connection, DatabaseIdentity

log = structlog.get_logger()

BATCH = 500
"""Offsets in one transaction."""

_REFUSED = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded)
"""The database refuses the data itself: trying again cannot help."""

_PASSING = (psycopg.OperationalError, psycopg.InterfaceError, HistoryChanged, LogUnavailable)
"""It is about the moment: the ledger or the log is away, or the database is another one. Trying again later helps."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things last, in seconds."""

    lease: float = 15
    """A process that is silent for so long may be replaced."""
    look: float = 1
    """How often an idle runner looks for replays that another process stored."""
    wait: float = 0.5
    """Longest wait for the log to give something."""
    suspect: float = 65
    """How long a call that a lost history made may still land; see `recovery.enter`."""


class ReplayRunner:
    """Runs the replays of a ledger, one at a time, in a thread of its own: `run` blocks until `stop`.

    `on_work` hears, after each commit, which seats now have work; it is called in the runner's thread.
    """

    def __init__(
        self,
        database_url: str,
        source: Log,
        topics: Topics,
        policies: Policies,
        metrics: Metrics,
        on_work: Callable[[Collection[SeatRef]], None],
        pace: Pace = Pace(),
    ) -> None:
        self._database_url = database_url
        self._source = source
        self._topics = topics
        self._policies = policies
        self._metrics = metrics
        self._on_work = on_work
        self._pace = pace
        self._owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._stopping = threading.Event()
        self._woken = threading.Event()

    def wake(self) -> None:
        """There is a new replay. From any thread."""
        self._woken.set()

    def stop(self) -> None:
        """End `run` after the batch that is under way; another process may continue at once. From any thread."""
        self._stopping.set()
        self._woken.set()

    def run(self) -> None:
        """Run what is stored until `stop`; waits out a ledger or a log that is away."""
        while not self._stopping.is_set():
            try:
                with self._session() as session:
                    self._keep_running(session)
            except (*_PASSING, psycopg.Error) as error:
                log.warning("replay_interrupted", exc_info=error)
                self._stopping.wait(self._pace.look)

    def run_stored(self) -> None:
        """Run what is stored now, and return. Raises what `run` waits out; a replay then continues where it was."""
        with self._session() as session:
            self._run_stored(session)

    @contextmanager
    def _session(self) -> Iterator[_Session]:
        with database.connect(self._database_url) as connection:
            yield _Session(connection, recovery.begin_session(connection, self._pace.suspect))

    def _keep_running(self, session: _Session) -> None:
        while not self._stopping.is_set():
            self._woken.clear()
            self._run_stored(session)
            self._woken.wait(self._pace.look)

    def _run_stored(self, session: _Session) -> None:
        while not self._stopping.is_set():
            replay = replays.claim(session.connection, self._owner, self._pace.lease)
            if replay is None:
                return
            try:
                self._run(session, replay)
            except ReplayLost:
                log.warning("replay_lost", replay_id=str(replay.replay))

    def _run(self, session: _Session, replay: Replay) -> None:
        log.info("replay_runs", replay_id=str(replay.replay), topic=replay.topic, partition=replay.partition, offset=replay.next)
        try:
            reason = None
            ended = self._read_through(session, replay, self._kind_of(replay))
        except (*_PASSING, ReplayLost):
            raise
        except LogRefused as error:
            ended, reason = True, error.reason
        except Exception as error:
            # A replay that meets a defect must not keep the runner from the others for ever.
            log.error("replay_failed", replay_id=str(replay.replay), exc_info=error)
            ended, reason = True, "internal_error"
        if ended:
            replays.finish(session.connection, replay.replay, self._owner, reason)
            log.info("replay_ended", replay_id=str(replay.replay), reason=reason)
        else:
            replays.release(session.connection, replay.replay, self._owner)

    def _kind_of(self, replay: Replay) -> EntityKind:
        """What the topic carries; raises `LogRefused` when it is not the topic that the replay was asked for."""
        bounds = self._source.bounds(replay.topic, replay.partition)
        kind = self._topics.kind(replay.topic)
        if bounds is None or kind is None:
            raise LogRefused("unknown_partition")
        if bounds.topic_id != replay.topic_id:
            raise LogRefused("topic_recreated")
        return kind

    def _read_through(self, session: _Session, replay: Replay, kind: EntityKind) -> bool:
        """Carry out what is left; False when `stop` came first."""
        reader = self._source.read(replay.topic, replay.partition, replay.next, replay.last)
        try:
            while not reader.done:
                if self._stopping.is_set():
                    return False
                found = reader.read(BATCH, self._pace.wait)
                if found:
                    self._carry_out(session, replay, kind, found)
                else:
                    replays.renew(session.connection, replay.replay, self._owner, self._pace.lease)
        finally:
            reader.close()
        return True

    def _carry_out(self, session: _Session, replay: Replay, kind: EntityKind, found: Sequence[LogRecord | Missing]) -> None:
        """Carry these offsets out; a record that the database refuses stops nothing but itself, as in the live stream."""
        try:
            outcome = self._transaction(session, replay, sort_out(replay, kind, found))
        except _REFUSED as error:
            if len(found) > 1:
                middle = len(found) // 2
                self._carry_out(session, replay, kind, found[:middle])
                self._carry_out(session, replay, kind, found[middle:])
                return
            log.error("record_refused_by_ledger", topic=replay.topic, offset=found[0].offset, exc_info=error)
            outcome = self._transaction(session, replay, set_aside(found[0]))
        self._tell(session, replay, outcome)

    def _transaction(self, session: _Session, replay: Replay, batch: Batch) -> Outcome:
        connection = session.connection
        with connection.transaction():
            recovery.check_session(connection, session.began_with)
            replays.advance(connection, replay.replay, self._owner, batch.end, self._pace.lease)
            with connection.transaction(force_rollback=replay.dry_run):
                parked.park(connection, batch.parked)
                outcome = replay_batch.replay(connection, batch.arrivals, self._policies, replay.replay, verify=replay.verify)
                if outcome.work:
                    offsets.next_activity(connection)
            replays.add_verdicts(connection, replay.replay, [*batch.judged, *outcome.judged])
        return outcome

    def _tell(self, session: _Session, replay: Replay, outcome: Outcome) -> None:
        self._count(outcome, dry_run=replay.dry_run)
        if outcome.work and not replay.dry_run:
            self._on_work(outcome.work)
            # A statement of its own: inside the transaction it would let the whole server commit one by one.
            for target in sorted({seat.target for seat in outcome.work}):
                session.connection.execute("select pg_notify(%s, %s)", [WORK_CHANNEL, target])

    def _count(self, outcome: Outcome, *, dry_run: bool) -> None:
        for one in outcome.judged:
            if one.verdict == "hash_alarm" and one.entity:
                self._metrics.events.labels(one.entity.kind, "hash_alarm").inc()
        for effect, count in ({} if dry_run else outcome.effects).items():
            self._metrics.decisions.labels(effect).inc(count)


@dataclass(frozen=True, slots=True)
class _Session:
    """A connection, and the history of the database that it began in."""

    connection: Connection
    began_with: DatabaseIdentity


@dataclass(frozen=True, slots=True)
class Batch:
    """Some offsets in a row, sorted by what can be done with them."""

    end: int
    """One past the last of them."""
    judged: list[Judged] = field(default_factory=list)
    """Offsets without an event."""
    parked: list[Parked] = field(default_factory=list)
    arrivals: list[Arrival] = field(default_factory=list)


def sort_out(replay: Replay, kind: EntityKind, found: Sequence[LogRecord | Missing]) -> Batch:
    """Decode what was found; nothing here asks the ledger."""
    batch = Batch(found[-1].offset + 1)
    for one in found:
        if isinstance(one, Missing):
            batch.judged.append(Judged(one.offset, one.fate))
            continue
        try:
            event = decode(kind, one.value)
        except UndecodableEvent as error:
            batch.judged.append(Judged(one.offset, "undecodable", error.reason))
        except NewerEvent as error:
            place = LogPartition(replay.topic_id, replay.topic, replay.partition)
            batch.judged.append(Judged(one.offset, "parked", error.field))
            batch.parked.append(Parked(place, one.offset, one.key, one.value or b"", error.field))
        else:
            batch.arrivals.append(Arrival(event, one.value or b"", replay.topic, replay.partition, one.offset))
    return batch


def set_aside(refused: LogRecord | Missing) -> Batch:
    """The same for a record that can be decoded, but not stored."""
    return Batch(refused.offset + 1, [Judged(refused.offset, "undecodable", "refused_by_ledger")])
