"""What has to be looked at now and then: gauges, sections and policies whose people are still to be decided, overrides that end,
enrollments that begin, dead letters whose time has come, the end of recovery mode, history's months, what is old."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection
from datetime import UTC, datetime

import psycopg
import structlog

from services.consumer.gauges import SeatGauges
from services.consumer.ledger import (
    database,
    dead_letters,
    history,
    members,
    overruling,
    parked,
    recovery,
    redeciding,
    retention,
    waking,
)
from services.consumer.ledger.announcing import Handover, tell
from services.consumer.ledger.dead_letters import Timers
from services.consumer.ledger.policies import Policies
from services.consumer.metrics import Metrics
from services.consumer.nouns import SeatRef
from services.kit.intervals import Intervals
from services.kit.postgres import Connection

log = structlog.get_logger()

_EVERY_SECONDS = 2.0
_RELEASE_EVERY_SECONDS = 30.0
_RELEASED_AT_ONCE = 500
"""Dead letters of one class: a course that concluded with thousands of seats must not flood the token when its day is over."""
_RARELY_SECONDS = 3600.0
_DECIDE_SECONDS = 1.0
"""Spent on queued people in one round, before the rest gets its turn."""


class Housekeeping:
    """A thread with a connection of its own. Every process does it; doing it twice at once changes nothing."""

    def __init__(
        self,
        database_url: str,
        policies: Policies,
        metrics: Metrics,
        handover: Handover,
        timers: Timers,
        history_months: int = 0,
    ) -> None:
        """`history_months` is how much history is kept; 0: all of it."""
        self._url = database_url
        self._policies = policies
        self._metrics = metrics
        self._handover = handover
        self._timers = timers
        self._history_months = history_months
        self._gauges = SeatGauges(metrics, policies, timers)
        self._stopping = threading.Event()
        self._intervals = Intervals()

    def stop(self) -> None:
        """End `run` soon. From any thread."""
        self._stopping.set()

    def run(self) -> None:
        """Work until `stop`; waits out a ledger that is away."""
        while not self._stopping.is_set():
            try:
                with database.connect(self._url) as connection:
                    self._work(connection)
            except psycopg.Error as error:
                log.warning("housekeeping_waits", exc_info=error)
                self._stopping.wait(_EVERY_SECONDS)

    def _work(self, connection: Connection) -> None:
        while not self._stopping.is_set():
            more = self.once(connection)
            self._stopping.wait(0 if more else _EVERY_SECONDS)

    def once(self, connection: Connection) -> bool:
        """One round; whether people are left to be decided, so that the next one should begin at once."""
        more = self._decide_members(connection)
        more |= self._redecide(connection)
        more |= self._end_overrides(connection)
        more |= self._wake(connection)
        recovery.end_if_done(connection)
        self._metrics.recovery.set(recovery.is_active(connection))
        self._gauges.observe(connection)
        self._gauges.parked(*parked.backlog(connection))
        if self._intervals.is_due("release", _RELEASE_EVERY_SECONDS):
            self._release(connection)
        if self._intervals.is_due("months", _RARELY_SECONDS):
            now = datetime.now(UTC)
            history.create_partitions(connection, now.date())
            retention.forget(connection, now, self._history_months)
        return more

    def _decide_members(self, connection: Connection) -> bool:
        """People of large sections that changed; true when there are more."""
        until = time.monotonic() + _DECIDE_SECONDS
        more = True
        while more and time.monotonic() < until and not self._stopping.is_set():
            decided = members.decide_next(connection, self._policies)
            more = decided is not None
            if decided is not None:
                for effect, count in decided.effects.items():
                    self._metrics.decisions.labels(effect).inc(count)
                self._tell(connection, decided.work)
        self._gauges.sections(members.waiting(connection))
        return more

    def _redecide(self, connection: Connection) -> bool:
        """Whoever applied a policy did not get to the end; true when there are more."""
        until = time.monotonic() + _DECIDE_SECONDS
        for tenant in redeciding.unfinished(connection):
            for seats in redeciding.redecide(connection, self._policies, tenant):
                self._tell(connection, seats)
                if time.monotonic() >= until or self._stopping.is_set():
                    return True
        return False

    def _end_overrides(self, connection: Connection) -> bool:
        """The SIS decides again whom a registrar has decided until now; true when there are more."""
        ended = overruling.end_due(connection, self._policies)
        self._tell(connection, ended.work)
        self._gauges.overrides(overruling.count_in_force(connection))
        return ended.more

    def _wake(self, connection: Connection) -> bool:
        """People of whom an enrollment begins; true when there are more."""
        woken = waking.wake_due(connection, self._policies)
        self._tell(connection, woken.work)
        return woken.more

    def _release(self, connection: Connection) -> None:
        released = dead_letters.release_due(connection, self._policies.target, self._timers, _RELEASED_AT_ONCE)
        if released:
            log.info("dead_letters_released", target=self._policies.target, count=len(released))
            self._metrics.dead_released.labels(self._policies.target).inc(len(released))
            self._tell(connection, released)

    def _tell(self, connection: Connection, seats: Collection[SeatRef]) -> None:
        """There is work for the driver, here or in another process."""
        tell(connection, seats, self._handover)
