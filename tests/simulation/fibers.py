"""One thread, one clock, one seed: fibers of simulated processes, and the scheduler that decides who runs next.

A fiber is a greenlet, so that product code may stop anywhere it blocks (a lock of the database, a poll, a timer) without knowing.
Time is a number. It moves when nobody can run, to the next moment somebody waits for, and a little with each statement.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import greenlet


class Killed(SystemExit):
    """The simulated process has died. Like a signal, it is not an `Exception`: no handler of the product holds it up."""


class Stuck(RuntimeError):
    """The scheduler ran for so long without the clock moving that something spins."""


_MOST_TURNS = 400_000


class Process:
    """What dies together: fibers, an event loop, connections."""

    def __init__(self, name: str, seed: int) -> None:
        self.name = name
        self.random = random.Random(seed)  # noqa: S311  (it must repeat)
        self.alive = True
        self.paused_until = 0.0
        self.wall_offset = 0.0
        """How wrong this host's wall clock is."""
        self.fibers: list[Fiber] = []
        self.loop: SimLoop | None = None
        self.on_death: list[Callable[[], None]] = []
        self.failpoints: dict[str, tuple[str, int]] = {}
        """Armed failpoints: name to (action, passes left)."""
        self.failure: BaseException | None = None
        """What ended it from within."""

    def cut_off(self) -> None:
        """Take away all that it holds; nothing that it still does reaches anybody."""
        for cut in list(self.on_death):  # a copy: a connection that is cut takes itself off the list
            cut()


class Fiber:
    """One line of execution."""

    __slots__ = ("blocked_by_database", "done", "glet", "joiners", "loop", "name", "process", "ready", "wake_at")

    def __init__(self, process: Process, name: str, run: Callable[[], None], scheduler: Scheduler) -> None:
        self.process = process
        self.name = name
        self.ready = True
        self.wake_at: float | None = None
        self.done = False
        self.loop: asyncio.AbstractEventLoop | None = None
        self.joiners: list[Fiber] = []
        self.blocked_by_database: Callable[[], bool] | None = None
        """Set while a lock of the database is waited for: whether it is still held by somebody."""

        def body() -> None:
            try:
                run()
            except Killed:
                pass
            except BaseException as error:
                process.failure = process.failure or error
            finally:
                self.done = True
                for fiber in self.joiners:
                    fiber.ready = True

        self.glet = greenlet.greenlet(body, parent=scheduler.main)


class Scheduler:
    """Runs fibers one at a time. `random` decides among those that can run; nothing else is left to chance."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)  # noqa: S311
        self.now = 0.0
        self.main = greenlet.getcurrent()
        self.fibers: list[Fiber] = []
        self.current: Fiber | None = None
        self.on_time: Callable[[float], None] = lambda _now: None
        self.switches = 0
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._dead: list[Process] = []

    # Called by anybody

    def advance(self, seconds: float) -> None:
        """A little time passes while somebody works."""
        self.now += seconds
        self.on_time(self.now)

    def call_later(self, seconds: float, function: Callable[[], None]) -> None:
        """Something that happens outside of all processes: a packet arrives."""
        heapq.heappush(self._timers, (self.now + seconds, next(self._numbers), function))

    def spawn(self, process: Process, name: str, run: Callable[[], None]) -> Fiber:
        fiber = Fiber(process, name, run, self)
        self.fibers.append(fiber)
        process.fibers.append(fiber)
        return fiber

    @property
    def process(self) -> Process | None:
        """Who is running; None for the world itself."""
        return self.current.process if self.current else None

    # Called by the running fiber

    def block(self, seconds: float | None = None) -> None:
        """Let others run until somebody sets this fiber ready, or the time is over."""
        fiber = self.current
        assert fiber is not None, "the world itself does not wait"
        fiber.ready = False
        fiber.wake_at = None if seconds is None else self.now + seconds
        self._leave(fiber)

    def step_aside(self) -> None:
        """Let others run first, perhaps."""
        fiber = self.current
        assert fiber is not None
        fiber.ready = True
        self._leave(fiber)

    def block_on_database(self, held: Callable[[], bool], seconds: float) -> bool:
        """Wait until `held` is false; whether that came in time."""
        fiber = self.current
        assert fiber is not None
        fiber.blocked_by_database = held
        self.block(seconds)
        fiber.blocked_by_database = None
        return not held()

    def _leave(self, fiber: Fiber) -> None:
        self.main.switch()
        if not fiber.process.alive:
            raise Killed

    # Called by the world

    def run_until(self, end: float) -> None:
        """Let everybody run until the clock says `end`."""
        turns = 0
        while True:
            turns += 1
            if turns > _MOST_TURNS:
                raise Stuck(f"{turns} turns until {self.now:.3f}: {[f.name for f in self.fibers if f.ready][:9]}")
            while self._timers and self._timers[0][0] <= self.now:
                heapq.heappop(self._timers)[2]()
            fiber = self._next()
            if fiber is not None:
                self._resume(fiber)
                continue
            moment = self._next_moment()
            if moment is None or moment > end:
                self.now = max(self.now, end)
                self.on_time(self.now)
                return
            self.now = max(self.now, moment)
            self.on_time(self.now)

    def _next(self) -> Fiber | None:
        now = self.now
        able = [
            fiber
            for fiber in self.fibers
            if (fiber.ready or (fiber.wake_at is not None and fiber.wake_at <= now) or fiber.blocked_by_database is not None)
            and fiber.process.paused_until <= now
        ]
        waiting = [fiber for fiber in able if fiber.blocked_by_database is not None]
        for fiber in waiting:
            held = fiber.blocked_by_database
            due = fiber.wake_at is not None and fiber.wake_at <= now
            if held is not None and not due and held():
                able.remove(fiber)
        if not able:
            return None
        return able[0] if len(able) == 1 else self.random.choice(able)

    def _next_moment(self) -> float | None:
        moments = [max(fiber.wake_at, fiber.process.paused_until) for fiber in self.fibers if fiber.wake_at is not None] + [
            fiber.process.paused_until for fiber in self.fibers if fiber.ready and fiber.process.paused_until > self.now
        ]
        if self._timers:
            moments.append(self._timers[0][0])
        return min(moments, default=None)

    def _resume(self, fiber: Fiber) -> None:
        self.switches += 1
        fiber.ready, fiber.wake_at = False, None
        self.current = fiber
        asyncio._set_running_loop(fiber.loop)
        try:
            fiber.glet.switch()
        finally:
            fiber.loop = asyncio._get_running_loop()
            asyncio._set_running_loop(None)
            self.current = None
        if fiber.done:
            self.fibers.remove(fiber)
        if not fiber.process.alive:
            self.bury(fiber.process)

    def kill(self, process: Process) -> None:
        """SIGKILL, from outside."""
        process.alive = False
        self.bury(process)

    def bury(self, process: Process) -> None:
        """Unwind what is left of a dead process. It cannot do any harm: everything it holds is cut off first."""
        if process in self._dead:
            return
        self._dead.append(process)
        process.cut_off()
        for fiber in process.fibers:
            self._unwind(fiber)
        if process.loop is not None:
            self._close_tasks(process, process.loop)
        self.fibers = [fiber for fiber in self.fibers if fiber.process is not process]

    def _unwind(self, fiber: Fiber) -> None:
        for _ in range(50):
            if fiber.done or not fiber.glet:
                return
            self.current = fiber
            asyncio._set_running_loop(fiber.loop)
            try:
                fiber.glet.throw(Killed)
            finally:
                asyncio._set_running_loop(None)
                self.current = None

    def _close_tasks(self, process: Process, loop: SimLoop) -> None:
        """A task that is collected while pending would run its `finally` at a moment that no seed decides."""
        fiber = process.fibers[0]
        self.current = fiber
        try:
            for task in loop.tasks_in_order():
                if not task.done():
                    task._log_destroy_pending = False
                    asyncio._set_running_loop(loop)
                    try:
                        for _ in range(50):
                            task.get_coro().throw(Killed())  # again where a `finally` awaits
                    except (Exception, SystemExit, asyncio.CancelledError):  # noqa: S110  (what the dead say does not matter)
                        pass
                    finally:
                        asyncio._set_running_loop(None)
        finally:
            self.current = None
        loop.forget()


class _Selector:
    """Where an idle event loop waits: for its next timer, or to be woken."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is not None and timeout <= 0:
            return []
        loop = self._loop
        if not loop.woken:
            loop.scheduler.block(timeout)
        loop.woken = False
        return []


class SimLoop(asyncio.BaseEventLoop):
    """An event loop of one simulated process, on the scheduler's clock. Executors are fibers."""

    def __init__(self, scheduler: Scheduler, process: Process) -> None:
        super().__init__()
        self.scheduler = scheduler
        self.process = process
        process.loop = self
        self._selector = _Selector(self)
        self.woken = False
        self.fiber: Fiber | None = None
        self._lanes: dict[int, deque[Callable[[], None]]] = {}
        self._lane_fibers: dict[int, Fiber] = {}
        self._tasks: list[Any] = []
        self.set_task_factory(self._make_task)
        self.set_exception_handler(lambda _loop, _context: None)

    def time(self) -> float:
        return self.scheduler.now

    def _process_events(self, event_list: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        self.wake()

    def wake(self) -> None:
        """Something was put into the loop from outside of it."""
        self.woken = True
        if self.fiber is not None and self.scheduler.current is not self.fiber:
            self.fiber.ready = True

    def _make_task(self, loop: asyncio.AbstractEventLoop, coro: Any, **kwargs: Any) -> asyncio.Task[Any]:
        task = asyncio.Task(coro, loop=loop, **kwargs)
        self._tasks.append(task)
        if len(self._tasks) > 500:
            self._tasks = [one for one in self._tasks if not one.done()]
        return task

    def tasks_in_order(self) -> list[Any]:
        return list(self._tasks)

    def forget(self) -> None:
        self._tasks.clear()
        self._ready.clear()  # type: ignore[attr-defined]
        self._scheduled.clear()  # type: ignore[attr-defined]

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> Any:  # type: ignore[override]
        """In a fiber; calls of one executor run one after the other, those of none beside each other."""
        future = self.create_future()

        def work() -> None:
            result: Any = None
            error: BaseException | None = None
            try:
                result = func(*args)
            except Killed:
                raise
            except BaseException as raised:
                error = raised
            self.call_soon_threadsafe(_settle, future, result, error)

        if executor is None:
            self.scheduler.spawn(self.process, f"{self.process.name}/to_thread", work)
            return future
        lane = self._lanes.setdefault(id(executor), deque())
        lane.append(work)
        fiber = self._lane_fibers.get(id(executor))
        if fiber is None:
            name = f"{self.process.name}/{getattr(executor, '_thread_name_prefix', 'lane')}"
            self._lane_fibers[id(executor)] = self.scheduler.spawn(self.process, name, lambda: self._serve(lane))
        else:
            fiber.ready = True
        return future

    def _serve(self, lane: deque[Callable[[], None]]) -> None:
        while True:
            while lane:
                lane.popleft()()
            self.scheduler.block()


def _settle(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.cancelled() or future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def run_loop(scheduler: Scheduler, process: Process, main: Callable[[], Any]) -> Fiber:
    """Start a process whose life is the coroutine that `main` makes."""
    loop = SimLoop(scheduler, process)

    def body() -> None:
        async def life() -> None:
            await main()

        loop.run_until_complete(life())

    fiber = scheduler.spawn(process, process.name, body)
    loop.fiber = fiber
    return fiber


# --- what replaces `threading` ----------------------------------------------------------------------------------------------


class Threading:
    """The names of `threading` that the product uses, over fibers."""

    def __init__(self, scheduler: Scheduler) -> None:
        def current() -> Fiber | None:
            return scheduler.current

        class Thread:
            def __init__(
                self,
                group: Any = None,
                target: Any = None,
                name: str = "thread",
                args: Any = (),
                kwargs: Any = None,
                daemon: Any = None,
            ) -> None:
                self.name = name
                self.ident: int | None = None
                self._run = lambda: target(*args, **(kwargs or {}))
                self._fiber: Fiber | None = None

            def start(self) -> None:
                process = scheduler.process
                assert process is not None
                self._fiber = scheduler.spawn(process, f"{process.name}/{self.name}", self._run)
                self.ident = 1

            def is_alive(self) -> bool:
                return self._fiber is not None and not self._fiber.done

            def join(self, timeout: float | None = None) -> None:
                end = None if timeout is None else scheduler.now + timeout
                while self.is_alive() and (end is None or scheduler.now < end):
                    me = current()
                    assert me is not None and self._fiber is not None  # noqa: PT018
                    self._fiber.joiners.append(me)
                    scheduler.block(None if end is None else end - scheduler.now)

        class Event:
            def __init__(self) -> None:
                self._set = False
                self._waiters: list[Fiber] = []

            def is_set(self) -> bool:
                return self._set

            def set(self) -> None:
                self._set = True
                for fiber in self._waiters:
                    fiber.ready = True
                self._waiters.clear()

            def clear(self) -> None:
                self._set = False

            def wait(self, timeout: float | None = None) -> bool:
                end = None if timeout is None else scheduler.now + timeout
                while not self._set and (end is None or scheduler.now < end):
                    me = current()
                    assert me is not None
                    self._waiters.append(me)
                    scheduler.block(None if end is None else end - scheduler.now)
                    if me in self._waiters:
                        self._waiters.remove(me)
                return self._set

        class Lock:
            def __init__(self) -> None:
                self._held = False
                self._waiters: list[Fiber] = []

            def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
                while self._held:
                    me = current()
                    if not blocking or me is None:
                        return False
                    self._waiters.append(me)
                    scheduler.block()
                self._held = True
                return True

            def release(self) -> None:
                self._held = False
                if self._waiters:
                    self._waiters.pop(0).ready = True

            def locked(self) -> bool:
                return self._held

            def __enter__(self) -> bool:
                return self.acquire()

            def __exit__(self, *_: object) -> None:
                self.release()

        class Condition:
            def __init__(self, lock: Any = None) -> None:
                self._waiters: list[Fiber] = []

            def __enter__(self) -> Any:
                return self

            def __exit__(self, *_: object) -> None:
                pass

            def wait(self, timeout: float | None = None) -> bool:
                me = current()
                assert me is not None
                self._waiters.append(me)
                before = scheduler.now
                scheduler.block(timeout)
                if me in self._waiters:
                    self._waiters.remove(me)
                return timeout is None or scheduler.now - before < timeout

            def notify(self, n: int = 1) -> None:
                for fiber in self._waiters[:n]:
                    fiber.ready = True
                del self._waiters[:n]

            def notify_all(self) -> None:
                self.notify(len(self._waiters))

        self.Thread, self.Event, self.Lock, self.RLock, self.Condition = Thread, Event, Lock, Lock, Condition

    def __getattr__(self, name: str) -> Any:
        import threading

        return getattr(threading, name)
