"""What has to be looked at now and then: gauges, the end of recovery mode, history's months, an unfinished change of policy."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime

import psycopg
import structlog

from services.consumer.drive import upkeep
from services.consumer.drive.observer import MetricsObserver
from services.consumer.ledger import database, history, recovery, redeciding
from services.consumer.ledger.policies import Policies
from services.consumer.metrics import Metrics
from services.consumer.nouns import WORK_CHANNEL, SeatRef
from services.kit.postgres import Connection

log = structlog.get_logger()

_EVERY_SECONDS = 2.0
_RARELY_SECONDS = 3600.0


class Housekeeping:
    """A thread with a connection of its own. Every process does it; doing it twice at once changes nothing."""

    def __init__(
        self, database_url: str, policies: Policies, metrics: Metrics, on_work: Callable[[Collection[SeatRef]], None]
    ) -> None:
        self._url = database_url
        self._policies = policies
        self._metrics = metrics
        self._on_work = on_work
        self._observer = MetricsObserver(metrics, policies.target)
        self._stopping = threading.Event()
        self._rarely_at = 0.0

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
            self.once(connection)
            self._stopping.wait(_EVERY_SECONDS)

    def once(self, connection: Connection) -> None:
        """One round."""
        self._observer.backlog(upkeep.backlog(connection, self._policies.target))
        recovery.end_if_done(connection)
        self._metrics.recovery.set(recovery.is_active(connection))
        for tenant in redeciding.unfinished(connection):
            self._redecide(connection, tenant)
        if time.monotonic() >= self._rarely_at:
            history.create_partitions(connection, datetime.now(UTC).date())
            self._rarely_at = time.monotonic() + _RARELY_SECONDS

    def _redecide(self, connection: Connection, tenant: str) -> None:
        """Whoever applied the policy did not get to the end."""
        for seats in redeciding.redecide(connection, self._policies, tenant):
            if seats:
                self._on_work(seats)
                connection.execute("select pg_notify(%s, %s)", [WORK_CHANNEL, self._policies.target])
            if self._stopping.is_set():
                return
