"""Intents that nobody works on: what a driver before us left behind, and our own that ended in a defect.

Each is closed only after its deadline, when its call can no more be sent; then its seat is read.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection
from typing import Literal

import structlog

from services.consumer.drive import takeover
from services.consumer.drive.lease import Lease
from services.consumer.drive.observer import Observer
from services.consumer.drive.outcomes import LeaseLost
from services.consumer.drive.owner import Owner, ledger_may_be_away
from services.consumer.drive.scheduler import Scheduler
from services.consumer.drive.takeover import Inherited

log = structlog.get_logger()

_RETRY_SECONDS = 0.25
"""Between attempts to reach a ledger that is away."""
_DEFECTS_BEFORE_DEAD = 3
"""A seat that keeps hitting a defect of ours needs a person; its person's other seats need not wait for that."""


class Leftovers:
    """Settles them while the lease is ours. Not thread-safe."""

    def __init__(
        self, scheduler: Scheduler, keeping: Owner, observer: Observer, wake: Callable[[], None], suspect_seconds: float
    ) -> None:
        """`wake` is called when seats have work."""
        self._scheduler = scheduler
        self._keeping = keeping
        self._observer = observer
        self._wake = wake
        self._suspect_seconds = suspect_seconds
        self._defects: dict[str, int] = {}
        """Per seat the attempts in a row that ended in a defect of ours; seats without one are not in it."""

    def failed(self, seat: str) -> None:
        """An attempt ended in a defect; its intent stays open until its deadline."""
        self._defects[seat] = self._defects.get(seat, 0) + 1

    def succeeded(self, seat: str) -> None:
        """An attempt ended as it should."""
        self._defects.pop(seat, None)

    async def inherit(self, lease: Lease) -> list[Inherited]:
        """What others left open. Its people are left alone until it is settled."""
        left = await self._keeping.run(lambda it: takeover.inherited(it, lease))
        self._scheduler.block(one.person for one in left)
        return left

    async def settle_inherited(self, lease: Lease, left: Collection[Inherited]) -> None:
        """Wait until no inherited call can still be sent, then have their seats read."""
        if not left:
            return
        log.info("intents_inherited", target=lease.target, count=len(left))
        await asyncio.sleep(max(one.seconds for one in left))
        await self._close(lease, left, "inherited")
        self._scheduler.unblock(one.person for one in left)

    async def settle_strays(self, lease: Lease, known: Collection[str]) -> None:
        """Our own intents but the `known`. The database forbids any call to their people until this is done."""
        left = await self._keeping.run(lambda it: takeover.strays(it, lease, known))
        if not left:
            return
        log.warning("intents_without_an_outcome", target=lease.target, count=len(left))
        hopeless = {one.seat for one in left if self._defects.get(one.seat, 0) >= _DEFECTS_BEFORE_DEAD}
        await self._close(lease, left, "stray", hopeless)
        for seat in hopeless:
            self._defects.pop(seat)
            self._observer.died("defect")
            log.error("seat_is_dead", target=lease.target, reason="defect")

    async def _close(
        self,
        lease: Lease,
        left: Collection[Inherited],
        reason: Literal["inherited", "stray"],
        hopeless: Collection[str] = (),
    ) -> None:
        doubt = self._suspect_seconds
        closed = False
        with contextlib.suppress(LeaseLost):
            while not closed:
                with ledger_may_be_away(lease.target, reason):
                    await self._keeping.run(
                        lambda it: takeover.close(it, lease, list(left), reason=reason, suspect_seconds=doubt, hopeless=hopeless)
                    )
                    closed = True
                if not closed:
                    await asyncio.sleep(_RETRY_SECONDS)
        self._wake()
