"""Events on their way to Kafka: produced after the commit, written down after the acknowledgement, swept up after a failure.

A permanent refusal may be a neighbour's fault (Kafka refuses whole batches), so the event is sent once more alone. Refused
again, it becomes a dead letter: a person has to look, but the source stops hearing 503.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Sequence

import structlog

from services.kit.failpoints import failpoint
from services.publisher.changes import Unavailable
from services.publisher.log import Delivered, EventLog, Record, Refused
from services.publisher.metrics import Metrics
from services.publisher.mirror import books
from services.publisher.mirror.books import Books, Outcomes
from services.publisher.mirror.nouns import OutboxKey, OutboxRow

log = structlog.get_logger()
_SWEEP_ROWS = 500


class Outbox:
    """Publishes committed events; lives in the loop."""

    def __init__(self, event_log: EventLog, bookkeeping: Books, metrics: Metrics, max_unpublished: int) -> None:
        self._max_unpublished = max_unpublished
        self._waiting = 0
        """Events without an acknowledgement in the database, by the last sweep and what failed since."""
        self._log = event_log
        self._books = bookkeeping
        self._metrics = metrics
        self._under_way: dict[OutboxKey, asyncio.Future[str | None]] = {}
        self._tasks: set[asyncio.Task[object]] = set()
        self._positions: dict[str, int] = {}

    @property
    def full(self) -> bool:
        """More events wait for Kafka than may, here in memory or in the database."""
        return max(len(self._under_way), self._waiting) >= self._max_unpublished

    def publish(self, rows: Sequence[OutboxRow]) -> None:
        """Send committed events; returns at once. `failure` tells how it went."""
        self._start(rows, self._publish_first(rows))

    def _start(self, rows: Sequence[OutboxRow], work: Coroutine[None, None, object]) -> None:
        loop = asyncio.get_running_loop()
        self._under_way.update({row.key: loop.create_future() for row in rows})
        task = loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def failure(self, keys: Collection[OutboxKey]) -> str | None:
        """Wait until the first attempt for these events has been written down; a reason when one of them failed.

        None does not prove that they are published: rule R2's read does.
        """
        waiting = [future for key in keys if (future := self._under_way.get(key)) is not None]
        if not waiting:
            return None
        await asyncio.wait(waiting)
        return next((reason for future in waiting if (reason := future.result()) is not None), None)

    async def sweep(self, older_than_seconds: float) -> bool:
        """Send again what has waited too long; False when Kafka still does not take it. Raises ``Unavailable("database")``."""
        backlog = await self._books.query(lambda connection: books.backlog(connection, older_than_seconds, _SWEEP_ROWS))
        self._metrics.outbox_oldest.set(backlog.oldest_seconds)
        self._metrics.outbox_dead.set(backlog.dead)
        self._metrics.outbox_waiting.set(backlog.waiting)
        self._waiting = backlog.waiting
        self._metrics.unfoldable.set(backlog.unfoldable)
        rows = [row for row in backlog.rows if row.key not in self._under_way]
        if not rows:
            return True
        self._start(rows, self._publish(rows))
        failure = await self.failure([row.key for row in rows])
        log.warning("outbox_swept", count=len(rows), outcome=failure or "published")
        return failure is None

    async def keep_positions(self) -> None:
        """Write down how far the log is ours."""
        positions, self._positions = self._positions, {}
        if positions:
            await self._books.query(lambda connection: books.keep_positions(connection, positions))

    async def finish(self, timeout_seconds: float) -> None:
        """Wait for what is under way."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_seconds)

    # --- one publication ------------------------------------------------------------------------------------------------

    async def _publish_first(self, rows: Sequence[OutboxRow]) -> None:
        self._waiting += await self._publish(rows)

    async def _publish(self, rows: Sequence[OutboxRow]) -> int:
        """1. send; 2. write down; 3. tell who waits; 4. try the refused ones alone. Returns how many failed."""
        suspects: list[OutboxRow] = []
        try:
            published, failed = await self._send(rows, suspects)
            if published:
                failpoint("publisher.after_ack")
            await self._write_down(Outcomes(published=published, failed=list(failed)))
            for row in rows:
                self._tell(row.key, failed.get(row.key))
            for row in suspects:
                await self._write_down(await self._send_alone(row))
            return len(failed)
        finally:
            for row in rows:
                self._tell(row.key, "kafka")
                self._under_way.pop(row.key, None)

    async def _send(self, rows: Sequence[OutboxRow], suspects: list[OutboxRow]) -> tuple[list[OutboxKey], dict[OutboxKey, str]]:
        published: list[OutboxKey] = []
        failed: dict[OutboxKey, str] = {}
        for row, outcome in zip(rows, await self._log.send([_record(row) for row in rows]), strict=True):
            if isinstance(outcome, Delivered):
                self._delivered(row, outcome)
                published.append(row.key)
                continue
            self._metrics.publish_failures.labels(outcome.reason).inc()
            if outcome.permanent:
                suspects.append(row)
            else:
                failed[row.key] = outcome.reason
        return published, failed

    async def _send_alone(self, row: OutboxRow) -> Outcomes:
        outcome = await self._log.send_alone(_record(row))
        match outcome:
            case Delivered():
                self._delivered(row, outcome)
                return Outcomes(published=[row.key])
            case Refused(reason, permanent=True):
                log.error("outbox_dead_letter", kind=row.key.kind, version=row.key.version, reason=reason, bytes=len(row.value))
                return Outcomes(dead={row.key: reason})
            case Refused():
                return Outcomes(failed=[row.key])

    async def _write_down(self, outcomes: Outcomes) -> None:
        try:
            await self._books.record(outcomes)
        except Unavailable as error:
            log.warning("outbox_not_recorded", reason=error.reason, count=len(outcomes.published))

    def _delivered(self, row: OutboxRow, where: Delivered) -> None:
        self._metrics.events.labels(row.key.kind).inc()
        place = f"{row.topic}/{where.partition}"
        self._positions[place] = max(where.offset + 1, self._positions.get(place, 0))

    def _tell(self, key: OutboxKey, failure: str | None) -> None:
        future = self._under_way.get(key)
        if future is not None and not future.done():
            future.set_result(failure)


def _record(row: OutboxRow) -> Record:
    return Record(row.topic, row.record_key, row.value, list(row.headers.items()))
