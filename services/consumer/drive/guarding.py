"""Beside the work of one lease: has the guard judge the removals that wait, once a second while there are any."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from services.consumer.drive.lease import Lease, holding
from services.consumer.drive.observer import Observer
from services.consumer.drive.owner import Owner, ledger_may_be_away
from services.consumer.guard import reviewing
from services.consumer.guard.reviewing import Review
from services.consumer.ledger.policies import Policies
from services.kit.postgres import Connection

log = structlog.get_logger()

_EVERY_SECONDS = 1.0
"""Less than a removal settles for the add of a swap, so that the guard delays nothing that it lets through."""
_SHARE = 0.2
"""Of the time spent on reviews, however many removals wait."""
_TIDY_EVERY_SECONDS = 5.0


class Guarding:
    """Only who holds the lease lets removals through, so that no two processes share one budget."""

    def __init__(self, policies: Policies, keeping: Owner, observer: Observer, wake: Callable[[], None]) -> None:
        """`wake` is called when seats have become ready."""
        self._policies = policies
        self._keeping = keeping
        self._observer = observer
        self._wake = wake
        self._tidy_at = float("-inf")

    async def run(self, lease: Lease) -> None:
        """Until cancelled."""
        while True:
            began_at = time.monotonic()
            try:
                with ledger_may_be_away(lease.target, "guard"):
                    done = await self._keeping.run(lambda it: self._review(it, lease))
                    self._observer.guarded(done)
                    if done.has_passed:
                        self._wake()
            except Exception as error:  # a defect of ours: removals stay guarded, everything else goes on
                self._observer.guard_failed()
                log.error("guard_failed", target=lease.target, exc_info=error)
            took = time.monotonic() - began_at
            await asyncio.sleep(max(_EVERY_SECONDS, took * (1 - _SHARE) / _SHARE))

    def _review(self, connection: Connection, lease: Lease) -> Review:
        holds_lease = holding(lease)
        if time.monotonic() >= self._tidy_at:
            # Before the review: what is left over from earlier rounds may be what the last one failed of.
            self._tidy_at = time.monotonic() + _TIDY_EVERY_SECONDS
            reviewing.tidy(connection, lease.target, holds_lease)
        return reviewing.review(connection, lease.target, self._policies, holds_lease)
