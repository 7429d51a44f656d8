"""The task that brings extracts into the mirror: page by page, through the same door as live changes, for ever.

A page that is given a second time, after a crash or by a process that was thought dead, finds itself there already.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TypeVar

import structlog

from schemas.events import OrderToken
from schemas.keys import EntityKey
from services.kit.failpoints import failpoint
from services.kit.postgres import Connection
from services.publisher.changes import Change, Receipt, Unavailable
from services.publisher.metrics import Metrics
from services.publisher.snapshots import table
from services.publisher.snapshots.table import Progress, Snapshot
from services.publisher.translate.extract import Manifest

log = structlog.get_logger()
SOURCE = "snapshot"
"""Label of metrics, and of the events' headers."""
PAGE = 500
"""Rows per transaction: their entities are locked for as long as that takes. More than what counts as a small request."""
_LOOK_SECONDS = 5.0
_AGAIN_SECONDS = 1.0
Value = TypeVar("Value")


class Mirror(Protocol):
    """Takes changes in."""

    async def accept(self, changes: Sequence[Change], source: str) -> Receipt:
        """Return only when every change is committed and published; raise `Unavailable` otherwise."""
        ...

    async def opened(self) -> None:
        """Wait until changes are taken."""
        ...


class Books(Protocol):
    """Runs a query in the thread that owns a connection."""

    async def __call__(self, run: Callable[[Connection], Value], /) -> Value:
        """Raises `Unavailable`."""
        ...


class Applying:
    """Lives in one event loop."""

    def __init__(self, mirror: Mirror, books: Books, metrics: Metrics, tenant: str) -> None:
        self._mirror = mirror
        self._books = books
        self._metrics = metrics
        self._tenant = tenant
        self._worker = uuid.uuid4()
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """There is something to do."""
        self._woken.set()

    async def release(self) -> None:
        """Leave what is not finished to other processes, at once."""
        await self._books(partial(table.release, worker=self._worker))

    async def run(self) -> None:
        """Work, until cancelled."""
        while True:
            await self._mirror.opened()
            self._woken.clear()
            pause = _LOOK_SECONDS
            try:
                if await self._work_on_a_page():
                    continue
            except Unavailable as error:  # overload above all: live changes go first
                log.info("snapshot_waits", reason=error.reason, retry_in_s=_AGAIN_SECONDS)
                pause = _AGAIN_SECONDS
            except Exception as error:  # a task that ended here would leave every extract standing
                log.error("snapshot_failed", exc_info=error)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._woken.wait()

    async def _work_on_a_page(self) -> bool:
        snapshot = await self._books(partial(table.claim, tenant=self._tenant, worker=self._worker))
        await self._show_open()
        if snapshot is None:
            return False
        rows = await self._books(partial(_page, snapshot_id=snapshot.id, after=snapshot.done))
        changes = [_change(row, self._tenant, _manifest(snapshot, self._tenant).order) for row in rows]
        changed = await self._accept(changes) if changes else 0
        failpoint("publisher.after_snapshot_page")
        last = len(rows) < PAGE
        progress = Progress(rows[-1][0] if rows else snapshot.done, changed, last)
        await self._books(partial(table.advance, snapshot_id=snapshot.id, progress=progress, worker=self._worker))
        if last:
            self._metrics.snapshots.labels("applied", "").inc()
            log.info("snapshot_applied", count=snapshot.rows)
        return True

    async def _accept(self, changes: Sequence[Change]) -> int:
        """How many changed something. What the mirror refuses for good, alone as well, is left out: it stops nobody else."""
        try:
            return (await self._mirror.accept(changes, SOURCE)).changed
        except Unavailable:
            raise
        except Exception as error:
            if len(changes) == 1:
                log.error("snapshot_row_failed", exc_info=error)
                return 0
        return sum([await self._accept([change]) for change in changes])

    async def _show_open(self) -> None:
        for state, count in (await self._books(table.count_open)).items():
            self._metrics.snapshots_open.labels(state).set(count)


def _page(connection: Connection, snapshot_id: uuid.UUID, after: int) -> list[tuple[Any, ...]]:
    return connection.execute(
        """select number, record, key_columns, columns, entity_kind, entity_key, deleted from snapshot_row
            where snapshot = %s and number > %s and says <> 'unusable' order by number limit %s""",
        [snapshot_id, after, PAGE],
    ).fetchall()


def _change(row: tuple[Any, ...], tenant: str, order: OrderToken) -> Change:
    _, record, key, columns, kind, entity, deleted = row
    return Change(tenant, record, key, columns, EntityKey(tenant, kind, entity) if kind else None, order, deleted)


def _manifest(snapshot: Snapshot, tenant: str) -> Manifest:
    caller = snapshot.channel.partition(":")[2]
    times = (snapshot.started_at, snapshot.ended_at, snapshot.received_at)
    return Manifest(tenant, caller, snapshot.kind, snapshot.institution, snapshot.term, *times)
