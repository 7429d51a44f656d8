"""The driver of one target: holds its lease, works until every seat is as wanted, and hands over cleanly.

One asyncio loop makes all calls; six threads own the database connections (looking and intents, outcomes, the lease,
the guard, everything else, notifications). The life of one change here:

1. `wake` names its seat, or a notification or the look once a second finds its work row; the scheduler orders what is ready.
2. The intent is written and committed, together with the check that our lease outlives the call.
3. The seat is read if it is not known for certain; if it is as wanted, that is all.
4. Not later than the intent allows, one change is sent.
5. The outcome is recorded, judged by what is wanted by then; the seat settles or its work is due again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import time
import uuid
from collections.abc import Callable, Collection
from typing import cast

import structlog

from services.consumer.drive import intents, upkeep
from services.consumer.drive import lease as leases
from services.consumer.drive.caller import Caller
from services.consumer.drive.guarding import Guarding
from services.consumer.drive.lease import Lease
from services.consumer.drive.leftovers import Leftovers
from services.consumer.drive.listener import Listener
from services.consumer.drive.lookout import Lookout
from services.consumer.drive.observer import MetricsObserver, Observer
from services.consumer.drive.orders import Order
from services.consumer.drive.outcomes import Recorded
from services.consumer.drive.owner import Owner, ledger_may_be_away
from services.consumer.drive.pacing import Bucket, Gate
from services.consumer.drive.probing import Prober
from services.consumer.drive.provisioning import Provisioning
from services.consumer.drive.reactions import Settlement, react
from services.consumer.drive.recorder import Recorder
from services.consumer.drive.rostering import Rostering
from services.consumer.drive.scheduler import Ready, Scheduler
from services.consumer.drive.settings import DriveSettings, send_window_seconds, suspect_seconds
from services.consumer.drive.takeover import Inherited
from services.consumer.ledger.policies import Policies
from services.consumer.metrics import Metrics
from services.consumer.nouns import SeatRef
from services.consumer.targets.objects import ObjectTarget
from services.consumer.targets.port import Target
from services.kit.failpoints import failpoint

log = structlog.get_logger()

_ASK_SECONDS = 1.0
"""While somebody else drives, the lease is asked for at least so often."""
_LEAST_AHEAD = 2
_LEAST_WAIT_SECONDS = 0.005
_RETRY_SECONDS = 0.25
"""Between attempts to reach a ledger that is away."""
_KEEP_UP_EVERY_SECONDS = 5.0
_TIDY_EVERY_SECONDS = 300.0


class Driver:
    """Drives `target` while it holds the lease, else stands by. `run` until `stop`; `wake` from any thread."""

    def __init__(
        self,
        settings: DriveSettings,
        database_url: str,
        target_name: str,
        target: Target,
        policies: Policies,
        metrics: Metrics,
        observer: Observer | None = None,
        objects: ObjectTarget | None = None,
    ) -> None:
        """Nothing happens before `run`. The target is not closed here: who made it does that. Without `objects` none are made."""
        self._settings = settings
        self._name = target_name
        self._policies = policies
        self._owner_name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        self._observer = observer or MetricsObserver(metrics, target_name)
        self._objects = objects
        self._clock = time.monotonic
        self._window = send_window_seconds(settings)
        bucket = Bucket(settings.rate_limit_reserve, reserve_percent=settings.rate_limit_reserve_percent)
        self._gate = Gate(settings.max_in_flight, bucket, self._clock, random.random)
        self._caller = Caller(target, self._gate, self._observer, settings.call_timeout_seconds, self._clock)
        self._scheduler = Scheduler()
        self._looking = Owner("intents", database_url)
        self._recording = Owner("outcomes", database_url, durable=False)
        self._leasing = Owner("lease", database_url)
        self._guarding = Owner("guard", database_url)
        self._keeping = Owner("upkeep", database_url)
        doubt = suspect_seconds(settings)
        self._recorder = Recorder(self._recording, doubt)
        self._lookout = Lookout(target_name, self._looking, [self._looking, self._recording], self._scheduler, self._clock)
        self._leftovers = Leftovers(self._scheduler, self._keeping, self._observer, self._wake, doubt)
        self._listener = Listener(database_url, target_name, self._wake_from_thread)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._signal = asyncio.Event()
        self._stopping = asyncio.Event()
        self._lost = asyncio.Event()
        self._lease: Lease | None = None
        self._lease_valid_until = 0.0
        self._attempts: dict[asyncio.Task[None], str] = {}
        self.turned_at = self._clock()
        """Monotonic time of the last turn of the loop, for liveness."""

    # From outside

    @property
    def holds_lease(self) -> bool:
        """Whether this process drives the target."""
        return self._lease is not None

    def wake(self, seats: Collection[SeatRef]) -> bool:
        """There is new work for these seats, committed. Thread-safe, returns at once: whether nobody else need hear of it.

        We may be wrong when the lease has just gone to somebody else, who then finds the work within a second.
        """
        mine = {ref.seat for ref in seats if ref.target == self._name}
        if mine:
            self._in_loop(lambda: self._hear(mine))
        return self.holds_lease and all(ref.target == self._name for ref in seats)

    def stop(self) -> None:
        """End `run`: no new calls; those under way are finished and recorded, then the lease is released. Thread-safe."""
        if self._loop is None:
            self._stopping.set()
            return
        self._in_loop(self._stopping.set)
        self._wake_from_thread()

    def _wake_from_thread(self) -> None:
        self._in_loop(self._wake)

    def _in_loop(self, function: Callable[[], None]) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be woken
                self._loop.call_soon_threadsafe(function)

    def _hear(self, seats: Collection[str]) -> None:
        self._lookout.hear(seats)
        self._signal.set()

    def _wake(self) -> None:
        self._lookout.demand()
        self._signal.set()

    # The life of the process

    async def run(self) -> None:
        """Take the lease whenever it is free and drive. Raises what is a defect of ours, whichever part of the work has it."""
        self._loop = asyncio.get_running_loop()
        self._listener.start()
        try:
            async with asyncio.TaskGroup() as parts:
                recording = parts.create_task(self._recorder.run())
                while not self._stopping.is_set():
                    lease = await self._acquired()
                    if lease is not None:
                        await self._drive(lease)
                recording.cancel()
        except BaseExceptionGroup as group:
            raise _first(group) from None
        finally:
            self._listener.stop()
            for owner in (self._looking, self._recording, self._leasing, self._guarding, self._keeping):
                await owner.close()
            await asyncio.to_thread(self._listener.join)

    async def _acquired(self) -> Lease | None:
        """Try once; if somebody else drives, wait a little."""
        self.turned_at = self._clock()
        ttl = self._settings.lease_seconds
        lease = None
        with ledger_may_be_away(self._name, "acquire"):
            lease = await self._leasing.run(lambda it: leases.acquire(it, self._name, self._owner_name, ttl))
        if lease is None:
            await _wait(self._stopping, min(_ASK_SECONDS, self._settings.lease_renew_seconds))
            return None
        self._lease_valid_until = self.turned_at + ttl
        return lease

    async def _drive(self, lease: Lease) -> None:
        log.info("lease_taken", target=self._name, epoch=lease.epoch)
        self._lost.clear()
        self._lease = lease
        self._lookout.demand()
        self._observer.lease(held=True)
        try:
            async with asyncio.TaskGroup() as helpers:
                tasks = [helpers.create_task(self._keep_lease(lease))]
                left = await self._inherited(lease)
                tasks.append(helpers.create_task(self._leftovers.settle_inherited(lease, left)))
                prober = Prober(self._name, self._caller, self._gate, self._keeping, self._wake)
                tasks.append(helpers.create_task(prober.run()))
                if self._objects is not None:
                    tasks.append(helpers.create_task(self._provisioning(self._objects, prober).run(lease)))
                guarding = Guarding(self._policies, self._guarding, self._observer, self._wake)
                tasks.append(helpers.create_task(guarding.run(lease)))
                tasks.append(helpers.create_task(self._rostering().run(lease)))
                tasks.append(helpers.create_task(self._keep_up(lease)))
                await self._work(lease)
                await self._drain()
                for task in tasks:
                    task.cancel()
        finally:
            self._scheduler.clear()
            self._scheduler.unblock(self._scheduler.blocked)
            await self._drain()
            await self._release(lease)
            self._lease = None
            self._observer.lease(held=False)

    async def _inherited(self, lease: Lease) -> list[Inherited]:
        while True:
            self.turned_at = self._clock()
            with ledger_may_be_away(self._name, "inherit"):
                return await self._leftovers.inherit(lease)
            await asyncio.sleep(_RETRY_SECONDS)

    def _rostering(self) -> Rostering:
        return Rostering(self._caller, self._gate, self._keeping, self._policies, self._observer, self._settings, self._wake)

    def _provisioning(self, objects: ObjectTarget, prober: Prober) -> Provisioning:
        return Provisioning(objects, self._caller, self._gate, self._keeping, self._policies, self._settings, prober)

    async def _drain(self) -> None:
        """Let calls end and be recorded; what takes too long is cancelled and recorded as unknown, and what cannot even be
        recorded stays an open intent, for the next driver to find."""
        for seconds in (max(0.0, self._settings.stop_seconds - 4), 2.0, 1.0):
            if self._attempts:
                await asyncio.wait(self._attempts, timeout=seconds)
            for task in self._attempts:
                task.cancel()

    async def _release(self, lease: Lease) -> None:
        if self._lost.is_set():
            log.warning("lease_lost", target=self._name, epoch=lease.epoch)
            return
        with ledger_may_be_away(self._name, "release"):
            await self._leasing.run(lambda it: leases.release(it, lease))
            log.info("lease_released", target=self._name, epoch=lease.epoch)

    async def _keep_lease(self, lease: Lease) -> None:
        while not self._lost.is_set():
            await asyncio.sleep(self._settings.lease_renew_seconds)
            await self._renew(lease)

    async def _renew(self, lease: Lease) -> None:
        """Ask until the ledger answers."""
        while not await self._renewed(lease):  # noqa: ASYNC110  (the ledger tells nobody that it is back)
            await asyncio.sleep(_RETRY_SECONDS)

    async def _renewed(self, lease: Lease) -> bool:
        """False if the ledger did not answer. Validity counts from before we asked: the answer may be old when it comes."""
        asked_at = self._clock()
        with ledger_may_be_away(self._name, "renew"):
            if await self._leasing.run(lambda it: leases.renew(it, lease, self._settings.lease_seconds)):
                self._lease_valid_until = asked_at + self._settings.lease_seconds
            else:
                self._lost.set()
                self._signal.set()
            return True
        return False

    # Working

    async def _work(self, lease: Lease) -> None:
        while not (self._stopping.is_set() or self._lost.is_set()):
            self.turned_at = self._clock()
            self._signal.clear()
            started = 0
            with ledger_may_be_away(self._name, "work"):
                await self._lookout.look(len(self._attempts))
                started = await self._start(lease)
            if started == 0:
                await _wait(self._signal, self._idle_seconds())

    def _idle_seconds(self) -> float:
        soon = self._lookout.idle_seconds()
        pause = self._gate.pause_left
        return max(_LEAST_WAIT_SECONDS, min(soon, pause) if pause > 0 else soon)

    def _room(self) -> int:
        """For how many attempts. Some intents are written ahead of a free slot, so that the token never idles while one is being
        written; few, because an intent whose slot comes too late was written in vain."""
        if self._gate.pause_left:
            return 0
        slots = self._gate.capacity()
        return slots + max(_LEAST_AHEAD, slots // 4) - len(self._attempts)

    async def _start(self, lease: Lease) -> int:
        """Write intents for what is next and let their attempts begin; how many."""
        rows = self._scheduler.take(self._room())
        if not rows:
            return 0
        try:
            orders = await self._open(lease, rows)
        except BaseException:
            for row in rows:
                self._scheduler.finish(row, still_ready=True)
            raise
        if orders:
            failpoint("consumer.after_intent")
        for row in rows:
            order = orders.get(row.seat)
            if order is None:  # decided anew at this moment, or somebody was faster: the next look will tell
                self._scheduler.finish(row, still_ready=True)
            else:
                self._begin(lease, row, order)
        return len(orders)

    async def _open(self, lease: Lease, rows: Collection[Ready]) -> dict[str, Order]:
        deadline = self._window + self._settings.call_timeout_seconds
        if self._clock() + deadline > self._lease_valid_until and not await self._renewed(lease):
            return {}
        send_by = self._clock() + self._window
        seats = [row.seat for row in rows]
        ids = intents.new_ids(len(rows))
        orders = await self._looking.run(
            lambda it: intents.open_intents(it, lease, seats, ids, deadline_seconds=deadline, send_by=send_by)
        )
        return {order.key: order for order in orders}

    def _begin(self, lease: Lease, row: Ready, order: Order) -> None:
        task = asyncio.create_task(self._attempt(lease, row, order))
        self._attempts[task] = order.intent

    async def _attempt(self, lease: Lease, row: Ready, order: Order) -> None:
        recorded = None
        try:
            attempt = await self._caller.attempt(order)
            failpoint("consumer.after_call")
            settlement = react(order, attempt, random.random())  # noqa: S311  (spreads retries)
            recorded = await self._recorder.record(lease, settlement)
            failpoint("consumer.after_outcome")
            self._leftovers.succeeded(order.key)
            self._tell(settlement, recorded)
        except Exception as error:
            # A defect of ours in one seat; the others go on. Its intent stays open until its deadline, then the seat is read.
            self._leftovers.failed(order.key)
            log.error("attempt_failed", target=self._name, exc_info=error)
        finally:
            still_ready = recorded is not None and recorded.ready
            if still_ready:
                self._lookout.demand()
            self._scheduler.finish(row, still_ready=still_ready)
            # Before the signal, so that the loop sees the room that it is woken for.
            self._attempts.pop(cast("asyncio.Task[None]", asyncio.current_task()))
            self._signal.set()

    def _tell(self, settlement: Settlement, recorded: Recorded | None) -> None:
        if recorded is None:
            return
        if recorded.confirmed is not None:
            self._observer.confirmed(recorded.confirmed, recorded.age_seconds)
        if recorded.dead:
            self._observer.died(settlement.outcome)
            log.warning("seat_is_dead", target=self._name, reason=settlement.outcome, code=settlement.code)

    # Beside the work

    async def _keep_up(self, lease: Lease) -> None:
        tidy_at = self._clock()
        while True:
            with ledger_may_be_away(self._name, "upkeep"):
                await self._leftovers.settle_strays(lease, set(self._attempts.values()))
                if self._clock() >= tidy_at:
                    await self._keeping.run(lambda it: upkeep.tidy(it, self._name))
                    tidy_at = self._clock() + _TIDY_EVERY_SECONDS
            await asyncio.sleep(_KEEP_UP_EVERY_SECONDS)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """What one part died of; the others were ended because of it."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Until the event is set, at most so long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
