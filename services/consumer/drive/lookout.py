"""When to look at the work table, and at how much of it.

The table is the only truth: what is told from outside only says where to look. A wake-up that is lost costs a second.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from services.consumer.drive import intents
from services.consumer.drive.owner import Owner
from services.consumer.drive.scheduler import Scheduler

_LOOK_PEOPLE = 512
"""People in one look at the table, beside those under way: a tenth of a second of the fastest LMS, and few enough to order."""
_TOLD_SEATS = 64
"""So many that we were told of are looked at one by one; with more, a look at the table costs less."""
_TICK_SECONDS = 1.0
"""The table is looked at so often even if nobody calls."""
_PLAN_SECONDS = 1.0
"""Statements are planned anew so often while the table holds more than a look: milliseconds, beside hundreds of batches."""


class Lookout:
    """Gives the scheduler what is due in the work table of `target`. Not thread-safe."""

    def __init__(
        self,
        target: str,
        looking: Owner,
        planned: Sequence[Owner],
        scheduler: Scheduler,
        clock: Callable[[], float],
    ) -> None:
        """`planned` own the connections whose statements are planned anew while there is a backlog."""
        self._target = target
        self._looking = looking
        self._planned = planned
        self._scheduler = scheduler
        self._clock = clock
        self._due = True
        self._told: set[str] = set()
        """Seats that have work since the last look."""
        self._look_at = 0.0
        self._plan_at = float("-inf")

    def hear(self, seats: Collection[str]) -> None:
        """These seats have work."""
        self._told.update(seats)
        if len(self._told) > _TOLD_SEATS:
            self.demand()
            self._told.clear()

    def demand(self) -> None:
        """There may be work anywhere in the table."""
        self._due = True

    async def look(self, under_way: int) -> None:
        """Look at what we were told of, or at the whole table, if there is reason to; `under_way` are the attempts that run."""
        if self._told and not self._must_look():
            await self._look_at_told()
        if self._must_look():
            await self._look_at_all(_LOOK_PEOPLE + under_way)

    def idle_seconds(self) -> float:
        """Until the next look, if nobody calls."""
        return self._look_at - self._clock()

    def _must_look(self) -> bool:
        return self._due or self._scheduler.wants_a_look or self.idle_seconds() <= 0

    async def _look_at_all(self, people: int) -> None:
        self._due = False
        self._told.clear()
        self._look_at = self._clock() + _TICK_SECONDS
        found = await self._looking.run(lambda it: intents.look(it, self._target, self._scheduler.blocked, people))
        if found.cut:
            await self._plan_for_a_long_table()
        self._scheduler.offer(found.rows, found.cut)
        self._look_again(found.next_due_seconds)

    async def _look_at_told(self) -> None:
        """The short way of a single change: nothing else has come since the last look."""
        told, self._told = self._told, set()
        found = await self._looking.run(lambda it: intents.look_at(it, self._target, told, _LOOK_PEOPLE))
        self._due |= not self._scheduler.add(found.rows)
        self._look_again(found.next_due_seconds)

    def _look_again(self, seconds: float | None) -> None:
        if seconds is not None:
            self._look_at = min(self._look_at, self._clock() + seconds)

    async def _plan_for_a_long_table(self) -> None:
        """Plans are kept for good. Those made while there was no work read the whole table, which is nothing then; with a wave of
        drops in it they would do so for every few calls, until the server notices within a minute or so."""
        if self._clock() >= self._plan_at:
            self._plan_at = self._clock() + _PLAN_SECONDS
            for owner in self._planned:
                await owner.forget_plans()
