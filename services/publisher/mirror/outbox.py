"""Events on their way to Kafka: produced after the commit, written down after the acknowledgement, swept up after a failure.

A permanent refusal may be a neighbour's fault (Kafka refuses whole batches), so the event is sent once more alone. Refused
again, it becomes a dead letter: a person has to look, but the source stops hearing 503.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Coroutine, Sequence
from typing import get_args

import structlog

from schemas.keys import EntityKind
from services.kit.failpoints import failpoint
from services.publisher.changes import Unavailable
from services.publisher.log import Delivered, EventLog, Record, Refused
from services.publisher.metrics import Metrics
from services.publisher.mirror import books
from services.publisher.mirror.books import Books, Outcomes
from services.publisher.mirror.nouns import OutboxKey, OutboxRow

log = structlog.get_logger()
_SWEEP_ROWS = 500


class _Publication:
    """The first attempt for some events, or a later one; one future for all of them, as most attempts are for hundreds."""

    def __init__(self, keys: Collection[OutboxKey]) -> None:
        self.written_down: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.failed = dict.fromkeys(keys, "kafka")
        """Why, of those that failed: all, as long as nobody knows better."""

    def end(self) -> None:
        """Wake whoever waits."""
        if not self.written_down.done():
            self.written_down.set_result(None)


class Outbox:
    """Publishes committed events; lives in the loop."""

    def __init__(self, event_log: EventLog, bookkeeping: Books, metrics: Metrics, max_unpublished: int) -> None:
        self._max_unpublished = max_unpublished
        self._waiting = 0
        """Events without an acknowledgement in the database, by the last sweep and what failed since."""
        self._log = event_log
        self._books = bookkeeping
        self._metrics = metrics
        self._delivered_of = {kind: metrics.events.labels(kind) for kind in get_args(EntityKind)}
        self._under_way: dict[OutboxKey, _Publication] = {}
        self._tasks: set[asyncio.Task[object]] = set()
        self._positions: dict[tuple[str, int], int] = {}
        """By topic and partition: one past the newest record that is ours."""

    @property
    def full(self) -> bool:
        """More events wait for Kafka than may, here in memory or in the database."""
        return max(len(self._under_way), self._waiting) >= self._max_unpublished

    def publish(self, rows: Sequence[OutboxRow]) -> None:
        """Send committed events; returns at once. `failure` tells how it went.

        A thread that was held up after its commit hands over what the sweeper has found meanwhile, and is sending.
        """
        if mine := self._not_under_way(rows):
            self._start(self._publish_first(mine, self._begin(mine)))

    def _not_under_way(self, rows: Sequence[OutboxRow]) -> list[OutboxRow]:
        """One attempt at a time for an event: the end of one must not pass for that of another, for which somebody waits."""
        return [row for row in rows if row.key not in self._under_way]

    def _begin(self, rows: Sequence[OutboxRow]) -> _Publication:
        keys = [row.key for row in rows]
        publication = _Publication(keys)
        self._under_way.update(dict.fromkeys(keys, publication))
        return publication

    def _start(self, work: Coroutine[None, None, object]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def failure(self, keys: Collection[OutboxKey]) -> str | None:
        """Wait until the first attempt for these events has been written down; a reason when one of them failed.

        None does not prove that they are published: rule R2's read does.
        """
        publications = {publication for key in keys if (publication := self._under_way.get(key)) is not None}
        if not publications:
            return None
        await asyncio.wait([publication.written_down for publication in publications])
        failed = [publication.failed for publication in publications if publication.failed]
        return next((reasons[key] for reasons in failed for key in keys if key in reasons), None)

    async def sweep(self, older_than_seconds: float) -> bool:
        """Send again what has waited too long; False when Kafka still does not take it. Raises ``Unavailable("database")``."""
        backlog = await self._books.query(lambda connection: books.backlog(connection, older_than_seconds, _SWEEP_ROWS))
        self._metrics.outbox_oldest.set(backlog.oldest_seconds)
        self._metrics.outbox_dead.set(backlog.dead)
        self._metrics.outbox_waiting.set(backlog.waiting)
        self._waiting = backlog.waiting
        self._metrics.unfoldable.set(backlog.unfoldable)
        rows = self._not_under_way(backlog.rows)
        if not rows:
            return True
        self._start(self._publish(rows, self._begin(rows)))
        failure = await self.failure([row.key for row in rows])
        log.warning("outbox_swept", count=len(rows), outcome=failure or "published")
        return failure is None

    async def keep_positions(self) -> None:
        """Write down how far the log is ours."""
        positions, self._positions = self._positions, {}
        if positions:
            named = {f"{topic}/{partition}": position for (topic, partition), position in positions.items()}
            await self._books.query(lambda connection: books.keep_positions(connection, named))

    async def finish(self, timeout_seconds: float) -> None:
        """Wait for what is under way."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_seconds)

    # --- one publication ------------------------------------------------------------------------------------------------

    async def _publish_first(self, rows: Sequence[OutboxRow], publication: _Publication) -> None:
        self._waiting += await self._publish(rows, publication)

    async def _publish(self, rows: Sequence[OutboxRow], publication: _Publication) -> int:
        """1. send; 2. write down; 3. tell who waits; 4. try the refused ones alone. Returns how many failed."""
        suspects: list[OutboxRow] = []
        try:
            published, failed = await self._send(rows, suspects)
            if published:
                failpoint("publisher.after_ack")
            await self._write_down(Outcomes(published=published, failed=list(failed)))
            publication.failed = failed
            publication.end()
            for row in suspects:
                await self._write_down(await self._send_alone(row))
            return len(failed)
        finally:
            publication.end()
            for row in rows:
                self._under_way.pop(row.key, None)

    async def _send(self, rows: Sequence[OutboxRow], suspects: list[OutboxRow]) -> tuple[list[OutboxKey], dict[OutboxKey, str]]:
        published: list[OutboxKey] = []
        failed: dict[OutboxKey, str] = {}
        kinds: Counter[EntityKind] = Counter()
        for row, outcome in zip(rows, await self._log.send([_record(row) for row in rows]), strict=True):
            if isinstance(outcome, Delivered):
                self._note_position(row, outcome)
                kinds[row.key.kind] += 1
                published.append(row.key)
                continue
            self._metrics.publish_failures.labels(outcome.reason).inc()
            if outcome.permanent:
                suspects.append(row)
            else:
                failed[row.key] = outcome.reason
        for kind, count in kinds.items():
            self._delivered_of[kind].inc(count)
        return published, failed

    async def _send_alone(self, row: OutboxRow) -> Outcomes:
        outcome = await self._log.send_alone(_record(row))
        match outcome:
            case Delivered():
                self._note_position(row, outcome)
                self._delivered_of[row.key.kind].inc()
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

    def _note_position(self, row: OutboxRow, where: Delivered) -> None:
        place = (row.topic, where.partition)
        self._positions[place] = max(where.offset + 1, self._positions.get(place, 0))


def _record(row: OutboxRow) -> Record:
    return Record(row.topic, row.record_key, row.value, list(row.headers.items()))
