"""Running replays: opens the seats again that a range of the log, or the ledger itself, names; apart from the live group.

A replay is a row that any consumer process may run; the one that does holds it for some seconds at a time. Each batch is one
transaction with its verdicts and its progress, so a process that dies loses nothing and repeats nothing.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
import structlog

from schemas.keys import EntityKind
from schemas.topics import Topics
from services.consumer.ledger import database, offsets, recovery, replay_pace, replay_plans, replay_selection, replays
from services.consumer.ledger.announcing import Handover, tell
from services.consumer.ledger.policies import Policies
from services.consumer.ledger.recovery import HistoryChanged
from services.consumer.ledger.replay_batch import Outcome
from services.consumer.ledger.replays import Range, Replay, ReplayLost
from services.consumer.metrics import Metrics
from services.consumer.replay.log import Log, LogRecord, LogRefused, LogUnavailable, Missing
from services.consumer.replay.steps import Records, Seats, Step, set_aside, sort_out
from services.kit.postgres import Connection, DatabaseIdentity

log = structlog.get_logger()

BATCH = 500
"""Offsets or seats in one transaction."""

_REFUSED = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded)
"""The database refuses the data itself: trying again cannot help."""

_PASSING = (psycopg.OperationalError, psycopg.InterfaceError, HistoryChanged)
"""It is about the moment: the ledger is away, or the database is another one. Trying again later helps."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How long things last, in seconds; and how many seats one of them may open."""

    lease: float = 15
    """A process that is silent for so long may be replaced."""
    look: float = 1
    """How often an idle runner looks for replays that another process stored."""
    wait: float = 0.5
    """Longest wait for the log to give something."""
    suspect: float = 65
    """How long a call that a lost history made may still land; see `recovery.enter`."""
    seats_per_second: int = 50
    """Opened by all replays of the ledger together."""


class ReplayRunner:
    """Runs the replays of a ledger, one at a time, in a thread of its own: `run` blocks until `stop`.

    `handover` hears, after each commit, which seats now have work; it is called in the runner's thread.
    """

    def __init__(
        self,
        database_url: str,
        source: Log,
        topics: Topics,
        policies: Policies,
        metrics: Metrics,
        handover: Handover,
        pace: Pace = Pace(),
        pause: Callable[[float], object] | None = None,
    ) -> None:
        """`pause` waits at most so many seconds for the replay's turn; without it, until `wake` or `stop` at the latest."""
        self._database_url = database_url
        self._source = source
        self._topics = topics
        self._policies = policies
        self._metrics = metrics
        self._handover = handover
        self._pace = pace
        self._owner = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._stopping = threading.Event()
        self._woken = threading.Event()
        self._pause = pause or self._until_woken

    def wake(self) -> None:
        """There is a new replay. From any thread."""
        self._woken.set()

    def stop(self) -> None:
        """End `run` after the batch that is under way; another process may continue at once. From any thread."""
        self._stopping.set()
        self._woken.set()

    def run(self) -> None:
        """Run what is stored until `stop`; waits out a ledger that is away."""
        while not self._stopping.is_set():
            try:
                with self._session() as session:
                    self._keep_running(session)
            except (*_PASSING, psycopg.Error) as error:
                log.warning("replay_interrupted", exc_info=error)
                self._stopping.wait(self._pace.look)

    def run_stored(self) -> None:
        """Run what is stored now, and return; what waits for the log stays. Raises what `run` waits out."""
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

    def _until_woken(self, seconds: float) -> None:
        self._woken.wait(seconds)
        self._woken.clear()

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
        log.info("replay_runs", replay_id=str(replay.replay), kind=replay.scope.name, position=replay.done)
        try:
            if self._go_through(session, replay):
                self._finish(session, replay)
            else:
                replays.release(session.connection, replay.replay, self._owner)
        except (*_PASSING, ReplayLost):
            raise
        except LogUnavailable as error:
            # Others may not need the log.
            log.warning("replay_waits_for_log", replay_id=str(replay.replay), reason=str(error))
            replays.release(session.connection, replay.replay, self._owner, self._pace.look)
        except LogRefused as error:
            self._finish(session, replay, error.reason)
        except Exception as error:
            # A replay that meets a defect must not keep the runner from the others for ever.
            log.error("replay_failed", replay_id=str(replay.replay), exc_info=error)
            self._finish(session, replay, "internal_error")

    def _finish(self, session: _Session, replay: Replay, reason: str | None = None) -> None:
        with session.connection.transaction():
            replays.finish(session.connection, replay.replay, self._owner, reason)
            if replay.dry_run and reason is None:
                replay_plans.store(session.connection, replay)
        log.info("replay_ended", replay_id=str(replay.replay), reason=reason)

    def _go_through(self, session: _Session, replay: Replay) -> bool:
        """Carry out what is left; False when it is left to whoever claims it next."""
        if replay.scope.in_the_log:
            return all(self._read_through(session, replay, place) for place in replay.ranges if place.next <= place.last)
        return self._page_through(session, replay)

    def _may_go_on(self, session: _Session, replay: Replay) -> bool:
        """Wait for the replay's turn; False when `stop` came, or a plan that somebody waits for.

        No transaction is open meanwhile, and the replay stays ours.
        """
        while not self._stopping.is_set():
            if replay.dry_run:
                return True
            if replays.plan_waits(session.connection):
                return False
            left = replay_pace.seconds_left(session.connection)
            if not left:
                return True
            self._pause(min(left, self._pace.lease / 3))
            replays.renew(session.connection, replay.replay, self._owner, self._pace.lease)
        return False

    # --- through the ledger ---

    def _page_through(self, session: _Session, replay: Replay) -> bool:
        after, limit = replay.after, self._at_once(replay)
        while self._may_go_on(session, replay):
            page = replay_selection.page(session.connection, replay.scope, after, limit)
            if page:
                self._tell(session, replay, self._transaction(session, replay, Seats(replay, page)))
                after = page[-1].ref
            if len(page) < limit:
                return True
        return False

    def _at_once(self, replay: Replay) -> int:
        """What is opened in one transaction takes about a second at the most."""
        return BATCH if replay.dry_run else min(BATCH, self._pace.seats_per_second)

    # --- through the log ---

    def _read_through(self, session: _Session, replay: Replay, place: Range) -> bool:
        kind = self._kind_of(place)
        # A section's record opens the seats of all its members.
        at_once = 1 if kind == "section" and not replay.dry_run else self._at_once(replay)
        reader = self._source.read(place.topic, place.partition, place.next, place.last)
        try:
            while not reader.done:
                if not self._may_go_on(session, replay):
                    return False
                found = reader.read(at_once, self._pace.wait)
                if found:
                    self._carry_out(session, replay, place, kind, found)
                else:
                    replays.renew(session.connection, replay.replay, self._owner, self._pace.lease)
        finally:
            reader.close()
        return True

    def _kind_of(self, place: Range) -> EntityKind:
        """What the topic carries; raises `LogRefused` when it is not the topic that the replay was asked for."""
        bounds = self._source.bounds(place.topic, place.partition)
        kind = self._topics.kind(place.topic)
        if bounds is None or kind is None:
            raise LogRefused("unknown_partition")
        if bounds.topic_id != place.topic_id:
            raise LogRefused("topic_recreated")
        return kind

    def _carry_out(
        self, session: _Session, replay: Replay, place: Range, kind: EntityKind, found: Sequence[LogRecord | Missing]
    ) -> None:
        """Carry these offsets out; a record that the database refuses stops nothing but itself, as in the live stream."""
        try:
            step = Records(replay, place, sort_out(place, kind, found), self._policies)
            outcome = self._transaction(session, replay, step)
        except _REFUSED as error:
            if len(found) > 1:
                middle = len(found) // 2
                self._carry_out(session, replay, place, kind, found[:middle])
                self._carry_out(session, replay, place, kind, found[middle:])
                return
            log.error("record_refused_by_ledger", topic=place.topic, offset=found[0].offset, exc_info=error)
            outcome = self._transaction(session, replay, Records(replay, place, set_aside(found[0]), self._policies))
        self._tell(session, replay, outcome)

    # --- one batch ---

    def _transaction(self, session: _Session, replay: Replay, step: Step) -> Outcome:
        connection = session.connection
        with connection.transaction():
            recovery.check_session(connection, session.began_with)
            line = step.advance(connection, self._owner, self._pace.lease)
            with connection.transaction(force_rollback=replay.dry_run):
                outcome = step.carry_out(connection)
                if outcome.work:
                    offsets.next_activity(connection)
                    replay_pace.spend(connection, len(outcome.work), self._pace.seats_per_second)
            replays.add_lines(connection, replay.replay, line, outcome.judged, step.partition)
        return outcome

    def _tell(self, session: _Session, replay: Replay, outcome: Outcome) -> None:
        self._count(outcome, dry_run=replay.dry_run)
        if not replay.dry_run:
            tell(session.connection, outcome.work, self._handover)

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
