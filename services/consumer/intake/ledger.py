"""The intake's connection to the ledger, and which history of the ledger it writes."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
import structlog

from services.consumer.intake.pulse import Pulse
from services.consumer.intake.status import Status
from services.consumer.ledger import database, recovery
from services.consumer.ledger.recovery import HistoryChanged, Witness
from services.consumer.settings import Settings
from services.kit.postgres import Connection, DatabaseIdentity, prefer_indexes

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Session:
    """One connection to one history of the ledger."""

    connection: Connection
    identity: DatabaseIdentity


class Ledger:
    """Connected when it is first needed, closed at every doubt. Belongs to the intake's thread."""

    def __init__(self, settings: Settings, witness: Witness, pulse: Pulse, status: Status) -> None:
        self.suspect_seconds = settings.late_bound_seconds + settings.replica_lag_seconds
        """How long a call that a lost history made may still land."""
        self.witness = witness
        self._settings = settings
        self._pulse = pulse
        self._status = status
        self._session: Session | None = None

    def session(self) -> Session:
        """The open one, or a new one; raises `psycopg.Error`, or `HistoryChanged`."""
        if self._session is None:
            url, timeout = self._settings.database_url.get_secret_value(), self._settings.ledger_timeout_seconds
            connection = database.connect(url, statement_timeout_seconds=timeout)
            try:
                prefer_indexes(connection)
                with self._pulse.long_step():
                    began_with = recovery.begin_session(connection, self.suspect_seconds, self.witness)
                self._session = Session(connection, began_with)
            except BaseException:
                connection.close()
                raise
        return self._session

    @property
    def current(self) -> Session | None:
        """The open one."""
        return self._session

    def reach(self) -> bool:
        """Connect; False: not now."""
        try:
            self.session()
        except (psycopg.Error, HistoryChanged) as error:
            self.lose(error)
            return False
        self._status.ledger_reachable = True
        return True

    def lose(self, error: Exception) -> None:
        """It is away."""
        log.warning("ledger_away", exc_info=error)
        self._status.ledger_reachable = False
        self.close()

    def close(self) -> None:
        """The next `session` is a new one."""
        if self._session is not None:
            self._session.connection.close()
            self._session = None
