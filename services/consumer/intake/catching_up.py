"""A ledger that lost history reads the log again before anybody acts upon what it wants: says when it has."""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

import structlog

from services.consumer.intake.ledger import Ledger, Session
from services.consumer.intake.placing import Placing
from services.consumer.ledger import recovery
from services.consumer.ledger.offsets import LogPartition

log = structlog.get_logger()

_EVERY_SECONDS = 1.0


class _ToRead(NamedTuple):
    since: datetime
    """When recovery mode was entered."""
    ends: Mapping[LogPartition, int]
    """Where the log ended after that: whatever the lost history had read lies before."""


class CatchingUp:
    """Every process looks, because whoever entered recovery mode may be gone. Belongs to the intake's thread."""

    def __init__(self, ledger: Ledger, placing: Placing) -> None:
        self._ledger = ledger
        self._placing = placing
        self._clear_in: Session | None = None
        self._to_read: _ToRead | None = None
        self._looked_at = 0.0

    @property
    def needed(self) -> bool:
        """Whether the ledger may be behind, as far as is known of this session."""
        return self._clear_in is None or self._ledger.current is not self._clear_in

    @property
    def due(self) -> bool:
        """Whether it is time to look."""
        return self.needed and time.monotonic() >= self._looked_at + _EVERY_SECONDS

    def begin(self) -> None:
        """Partitions were placed anew, and recovery mode perhaps entered."""
        self._clear_in = None

    def look(self) -> None:
        """Raises what ledger and log raise."""
        self._looked_at = time.monotonic()
        session = self._ledger.session()
        known = recovery.read(session.connection)
        if known is None or not (known.active and known.behind):
            self._clear_in, self._to_read = session, None
            return
        if self._to_read is None or self._to_read.since != known.since:
            self._to_read = _ToRead(known.since, self._placing.ends())
        if recovery.catch_up(session.connection, *self._to_read):
            log.info("ledger_caught_up")
