"""Outcomes on their way into the ledger: one statement is under way, what arrives meanwhile is the next one. No timer."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Sequence

import psycopg
import structlog

from services.consumer.drive import outcomes
from services.consumer.drive.lease import Lease
from services.consumer.drive.outcomes import LeaseLost, Recorded
from services.consumer.drive.owner import Owner
from services.consumer.drive.reactions import Settlement
from services.kit.postgres import AWAY

log = structlog.get_logger()
_MOST_AT_ONCE = 200
_RETRY_SECONDS = 0.25


class OutcomeRefused(RuntimeError):
    """The ledger took this outcome for wrong. Its intent stays open, so that nobody calls its person on a wrong belief, until its
    deadline; then its seat is read."""


_Waiting = tuple[Lease, Settlement, asyncio.Future[Recorded | None]]


class Recorder:
    """Records settlements under the lease that their call was made under. Keeps trying while the database is away: an outcome
    that is known must not become unknown because of us."""

    def __init__(self, owner: Owner, suspect_seconds: float) -> None:
        self._owner = owner
        self._suspect_seconds = suspect_seconds
        self._waiting: deque[_Waiting] = deque()
        self._arrived = asyncio.Event()

    async def record(self, lease: Lease, settlement: Settlement) -> Recorded | None:
        """What the ledger made of it; None if it is not ours to record (any more). Raises `OutcomeRefused`."""
        future: asyncio.Future[Recorded | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((lease, settlement, future))
        self._arrived.set()
        return await future

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                lease = self._waiting[0][0]
                batch: list[_Waiting] = []
                while self._waiting and self._waiting[0][0] == lease and len(batch) < _MOST_AT_ONCE:
                    batch.append(self._waiting.popleft())
                await self._record(lease, batch)

    async def _record(self, lease: Lease, batch: Sequence[_Waiting]) -> None:
        settlements = [settlement for _, settlement, _ in batch]
        recorded: dict[str, Recorded] = {}
        try:
            recorded = await self._persistently(lease, settlements)
        except LeaseLost:
            await self._give_up(lease, settlements)
        except psycopg.Error as error:
            if len(batch) > 1:
                # One settlement that the ledger refuses must not take the others with it.
                for one in batch:
                    await self._record(lease, [one])
                return
            log.error("outcome_refused_by_the_ledger", target=lease.target, outcome=settlements[0].outcome, exc_info=error)
            _refuse(batch[0][2])
            return
        for _, settlement, future in batch:
            if not future.done():
                future.set_result(recorded.get(settlement.order.intent))

    async def _persistently(self, lease: Lease, settlements: Sequence[Settlement]) -> dict[str, Recorded]:
        while True:
            with contextlib.suppress(*AWAY):
                # Among them deadlocks and cancelled statements; recording twice changes nothing.
                return await self._owner.run(
                    lambda connection: outcomes.record(connection, lease, settlements, suspect_seconds=self._suspect_seconds)
                )
            log.warning("ledger_away", target=lease.target, operation="record", count=len(settlements))
            await asyncio.sleep(_RETRY_SECONDS)

    async def _give_up(self, lease: Lease, settlements: Sequence[Settlement]) -> None:
        """The lease is lost: what we did, the new driver cannot know. Tell it which seats to read; record nothing else."""
        touched = sorted({settlement.order.key for settlement in settlements if settlement.touched})
        log.warning("lease_lost_after_sending", target=lease.target, count=len(touched))
        while touched:
            with contextlib.suppress(*AWAY):
                await self._owner.run(
                    lambda connection: outcomes.mark_suspect(
                        connection, lease.target, touched, reason="lease_lost", suspect_seconds=self._suspect_seconds
                    )
                )
                return
            await asyncio.sleep(_RETRY_SECONDS)


def _refuse(future: asyncio.Future[Recorded | None]) -> None:
    if not future.done():
        future.set_exception(OutcomeRefused())
