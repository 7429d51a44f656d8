"""A thread that owns one connection and runs jobs in batches: what arrives while one batch runs is the next batch.

That is the group commit: no timer, one transaction for whoever waited, and the cost of a commit shared among them.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import psycopg
import structlog

from services.kit.postgres import Connection, Plans
from services.publisher.changes import Unavailable

log = structlog.get_logger()
Work = TypeVar("Work")
Value = TypeVar("Value")


class Job(Generic[Work, Value]):
    """One piece of work and the future of whoever waits for it."""

    def __init__(self, work: Work, size: int, future: asyncio.Future[Value]) -> None:
        self.work = work
        self.size = size
        self.future = future


class Owner(Generic[Work, Value]):
    """Runs `run` with batches of at most `max_batch` (by size; one job always fits) in a thread of its own.

    `connect` makes the thread's connection, again after each loss; it may raise `Unavailable`. `run` returns one answer per
    piece of work, in their order. When it raises, everybody in the batch gets the exception; a lost connection or a failed
    attempt to connect is told as ``Unavailable("database")``.
    """

    def __init__(
        self,
        name: str,
        connect: Callable[[], Connection],
        run: Callable[[Connection, Sequence[Work]], Sequence[Value | Exception]],
        max_batch: int,
        max_waiting: int,
    ) -> None:
        self._connect = connect
        self._run = run
        self._max_batch = max_batch
        self._max_waiting = max_waiting
        self._jobs: deque[Job[Work, Value]] = deque()
        self._waiting = 0
        self._changed = threading.Condition()
        self._stopping = False
        self._outdated = False
        self._connection: Connection | None = None
        self._plans = Plans()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._loop: asyncio.AbstractEventLoop
        self.healthy = False
        """The last batch found its database."""

    def start(self) -> None:
        """Start the thread; the connection is made when the first job comes."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def submit(self, work: Work, size: int = 1) -> asyncio.Future[Value]:
        """Queue work; the future ends with its answer. Raises ``Unavailable("overload")`` when too much is waiting."""
        future: asyncio.Future[Value] = self._loop.create_future()
        with self._changed:
            if self._stopping:
                raise Unavailable("stopping")
            if self._waiting and self._waiting + size > self._max_waiting:
                raise Unavailable("overload")
            self._jobs.append(Job(work, size, future))
            self._waiting += size
            self._changed.notify()
        return future

    def drop_connection(self) -> None:
        """Close the connection before anything else is run on it; the next batch makes a new one."""
        with self._changed:
            self._outdated = True
            self._changed.notify()

    async def stop(self, timeout_seconds: float) -> None:
        """Finish what is queued, then end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join, timeout_seconds)

    # --- the thread ---------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while batch := self._next_batch():
            wanted = [job for job in batch if not job.future.cancelled()]  # the others were told 503 meanwhile
            if wanted:
                self._loop.call_soon_threadsafe(_resolve, wanted, self._answers(wanted))
        self._close()

    def _next_batch(self) -> list[Job[Work, Value]]:
        """What waits now, up to the bound; blocks while nothing does. Empty when it is time to stop."""
        with self._changed:
            while not self._jobs and not self._stopping:
                self._close_when_outdated()
                self._changed.wait()
            self._close_when_outdated()
            batch: list[Job[Work, Value]] = []
            size = 0
            while self._jobs and (not batch or size + self._jobs[0].size <= self._max_batch):
                job = self._jobs.popleft()
                self._waiting -= job.size
                size += job.size
                batch.append(job)
            return batch

    def _answers(self, batch: Sequence[Job[Work, Value]]) -> Sequence[Value | Exception]:
        try:
            connection = self._connected()
            self._plans.keep_fresh(connection, sum(job.size for job in batch))
            answers = self._run(connection, [job.work for job in batch])
        except Unavailable as error:
            self._close()
            return [Unavailable(error.reason) for _ in batch]
        except psycopg.Error as error:
            log.warning("mirror_database_failed", error_type=type(error).__name__, code=error.sqlstate)
            self._close()
            return [Unavailable("database") for _ in batch]
        except Exception as error:
            self._close()
            return [error] * len(batch)
        self.healthy = True
        return answers

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.broken or self._connection.closed:
            self._connection = self._connect()
        return self._connection

    def _close_when_outdated(self) -> None:
        if self._outdated:
            self._outdated = False
            self._close()

    def _close(self) -> None:
        self.healthy = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _resolve(batch: Sequence[Job[Work, Value]], answers: Sequence[Value | Exception]) -> None:
    for job, answer in zip(batch, answers, strict=True):
        if job.future.done():
            continue  # whoever asked has given up
        if isinstance(answer, Exception):
            job.future.set_exception(answer)
        else:
            job.future.set_result(answer)
