"""Asking for missing objects, at a pace that leaves the token to the work, and waking who waits for them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import structlog

from services.consumer.drive import waiting
from services.consumer.drive.caller import Caller
from services.consumer.drive.owner import Owner, ledger_may_be_away
from services.consumer.drive.pacing import Gate
from services.consumer.drive.waiting import Missing
from services.consumer.nouns import MissingKind
from services.consumer.targets.port import Presence
from services.kit.postgres import AWAY

log = structlog.get_logger()
_EVERY_SECONDS = 0.5
_SHARE = 0.1
"""Of the token's calls in flight. However many objects are missing, nine tenths are left to the seats that can be worked on."""


class Prober:
    """Runs beside the work of one lease. Objects that went missing lately and those that are asked for seldom take turns, so
    that a hundred thousand that will not come today do not delay the one that comes in a second."""

    def __init__(self, target: str, caller: Caller, gate: Gate, keeping: Owner, wake: Callable[[], None]) -> None:
        """`wake` is called when seats have become ready."""
        self._target = target
        self._caller = caller
        self._gate = gate
        self._keeping = keeping
        self._wake = wake
        self._young = False
        self._may_have_left = True

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            asked = 0
            with ledger_may_be_away(self._target, "probe"):
                await self._mend()
                asked = await self._ask()
            await asyncio.sleep(0 if asked else _EVERY_SECONDS)

    async def _mend(self) -> None:
        """Wake whom an interruption or a defect left asleep."""
        if self._may_have_left:
            for kind, sis_id in await self._keeping.run(lambda it: waiting.asleep_in_vain(it, self._target)):
                await self._wake_all(kind, sis_id)
            self._may_have_left = False
        if await self._keeping.run(lambda it: waiting.look_at_timers(it, self._target)):
            self._wake()

    async def _ask(self) -> int:
        """One round of probes; how many."""
        capacity = self._gate.capacity()
        if capacity == 0:
            return 0
        limit = max(1, int(capacity * _SHARE))
        self._young = not self._young
        due = await self._due(limit, young=self._young) or await self._due(limit, young=not self._young)
        try:
            await asyncio.gather(*(self._probe(missing) for missing in due))
        except AWAY:
            self._may_have_left = True
            raise
        return len(due)

    async def _due(self, limit: int, *, young: bool) -> list[Missing]:
        return await self._keeping.run(lambda it: waiting.due(it, self._target, limit, young=young))

    async def _probe(self, missing: Missing) -> None:
        found = await self._caller.probe(missing.kind, missing.sis_id)
        if isinstance(found, Presence) and found.exists:
            await self.appeared(missing.kind, missing.sis_id)
        else:
            spread = random.random()  # noqa: S311
            await self._keeping.run(lambda it: waiting.ask_again(it, self._target, missing, spread))

    async def appeared(self, kind: MissingKind, sis_id: str) -> None:
        """The object is there, by whoever's word: wake who waits for it."""
        woken = await self._keeping.run(lambda it: waiting.resolve(it, self._target, kind, sis_id))
        if woken:
            self._wake()
            woken += await self._wake_all(kind, sis_id)
            log.info("object_appeared", target=self._target, waiting_on=kind, count=woken)

    async def _wake_all(self, kind: MissingKind, sis_id: str) -> int:
        """In short transactions: there may be as many as a university has students."""
        total = 0
        while woken := await self._keeping.run(lambda it: waiting.wake(it, self._target, kind, sis_id)):
            self._wake()
            total += woken
        return total
