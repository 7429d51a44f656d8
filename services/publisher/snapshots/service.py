"""Full extracts as the rest of the publisher sees them: take one in, look at them, approve one that is held."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, BinaryIO, TypeVar

import psycopg
import structlog

from services.kit.postgres import Connection
from services.publisher.changes import Unavailable
from services.publisher.intake.ports import Poison, QuarantineStore
from services.publisher.metrics import Metrics
from services.publisher.mirror import database
from services.publisher.mirror.owner import Owner
from services.publisher.snapshots import staging, table
from services.publisher.snapshots.applying import SOURCE, Applying, Mirror
from services.publisher.snapshots.staging import Staged
from services.publisher.snapshots.table import Snapshot
from services.publisher.translate.extract import ExtractRefused, Manifest, Site

log = structlog.get_logger()
Value = TypeVar("Value")
_Query = Callable[[Connection], Any]
_STAGING_TIMEOUT = "10min"
_FAREWELL_SECONDS = 1


class NotHeld(Exception):
    """What was to be approved is not held, or not with this content, or another one of its scope is being applied."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Snapshots:
    """Lives in one event loop, between `start` and `stop`. Every call raises `Unavailable` when the database is away.

    Two threads with a connection each: taking one in lasts as long as it is long, and nobody else should wait for it.
    """

    def __init__(
        self,
        mirror: Mirror,
        quarantine: QuarantineStore,
        metrics: Metrics,
        database_url: str,
        tenant: str,
        site: Site,
        max_absent_percent: float,
    ) -> None:
        self._quarantine = quarantine
        self._metrics = metrics
        self._site = site
        self._max_absent_percent = max_absent_percent
        connect = partial(database.connect, database_url)
        self._books: Owner[_Query, Any] = Owner("snapshot-books", connect, _run, 1, 1_000)
        # What waits lies on disk and is bounded there: sending it once more would take longer.
        self._staging: Owner[_Query, Any] = Owner("snapshot-staging", partial(_connect_patiently, database_url), _run, 1, 1_000)
        self._applying = Applying(mirror, self._query, metrics, tenant)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to apply what is there to be applied."""
        self._books.start()
        self._staging.start()
        self._task = asyncio.create_task(self._applying.run())

    async def stop(self) -> None:
        """Leave what is not finished to other processes."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._applying.release()
        await self._books.stop(1)
        await self._staging.stop(1)

    async def expect(self, manifest: Manifest) -> None:
        """Raises ``Unavailable("busy")`` when it could not be taken now, whatever its file holds: that spares sending it."""
        if await self._query(partial(table.is_scope_busy, manifest=manifest)):
            raise Unavailable("busy")

    async def take(self, manifest: Manifest, file: BinaryIO, digest: str, size: int) -> Snapshot:
        """Durable when it returns: applied from then on, held or refused. The same one sent again is the one that is there."""
        work = partial(
            staging.stage,
            file=file,
            manifest=manifest,
            digest=digest,
            size=size,
            site=self._site,
            max_absent_percent=self._max_absent_percent,
        )
        try:
            staged: Staged = await self._staging.submit(work)
        except ExtractRefused as refusal:
            return await self.refuse(manifest, digest, size, refusal)
        await self._keep(manifest, staged, Poison(None, size, digest))
        if staged.snapshot.state != "receiving":
            return staged.snapshot
        opened = await self._query(partial(_open_up, snapshot_id=staged.snapshot.id))
        if opened.state == "held":
            self._metrics.snapshots.labels("held", opened.reason or "").inc()
            log.warning("snapshot_held", reason=opened.reason, count=opened.absent)
        self._applying.wake()
        return opened

    async def refuse(self, manifest: Manifest, digest: str, size: int, refusal: ExtractRefused) -> Snapshot:
        """Note that one cannot be used."""
        self._metrics.snapshots.labels("refused", refusal.reason).inc()
        log.warning("snapshot_refused", reason=refusal.reason, bytes=size)
        return await self._query(
            partial(table.refuse, manifest=manifest, digest=digest, size=size, reason=refusal.reason, detail=refusal.detail)
        )

    async def _keep(self, manifest: Manifest, staged: Staged, poison: Poison) -> None:
        if not staged.rejects:
            return
        await self._quarantine.put(manifest.channel, staged.rejects, poison)
        for reject in staged.rejects:
            self._metrics.quarantined.labels(SOURCE, reject.reason).inc()
        self._metrics.rows.labels(SOURCE, "quarantined").inc(staged.snapshot.unusable)

    async def approve(self, snapshot_id: uuid.UUID, digest: str, actor: str) -> Snapshot:
        """Apply one that is held. Raises `NotHeld`, or `LookupError` when there is none."""
        approved = await self._query(partial(_approve, snapshot_id=snapshot_id, digest=digest, actor=actor))
        log.info("snapshot_approved", count=approved.absent)
        self._applying.wake()
        return approved

    async def find(self, snapshot_id: uuid.UUID) -> Snapshot | None:
        """One."""
        return await self._query(partial(table.find, snapshot_id=snapshot_id))

    async def newest(self) -> Sequence[Snapshot]:
        """The latest ones, with those that were refused."""
        return await self._query(table.newest)

    async def _query(self, run: Callable[[Connection], Value]) -> Value:
        answer: Value = await self._books.submit(run)
        return answer


def _run(connection: Connection, batch: Sequence[_Query]) -> list[Any]:
    """One piece of work. Its own refusals are answers: they say nothing against the connection."""
    try:
        return [work(connection) for work in batch]
    except (ExtractRefused, NotHeld, LookupError, Unavailable) as refusal:
        return [refusal]


def _connect_patiently(url: str) -> Connection:
    connection = database.connect(url)
    connection.execute(f"set statement_timeout = '{_STAGING_TIMEOUT}'")
    return connection


def _open_up(connection: Connection, snapshot_id: uuid.UUID) -> Snapshot:
    """Raises ``Unavailable("busy")`` when another one of its scope was taken meanwhile."""
    try:
        opened = table.open_up(connection, snapshot_id)
    except psycopg.errors.UniqueViolation:
        opened = None
    if opened is None or opened.state in {"superseded", "receiving"}:
        table.give_up(connection, snapshot_id)
        raise Unavailable("busy")  # sent again it hears why, or is judged by what the mirror holds then
    return opened


def _approve(connection: Connection, snapshot_id: uuid.UUID, digest: str, actor: str) -> Snapshot:
    try:
        approved = table.approve(connection, snapshot_id, digest, actor)
    except psycopg.errors.UniqueViolation as error:
        raise NotHeld("busy") from error
    if approved is not None:
        return approved
    found = table.find(connection, snapshot_id)
    if found is None:
        raise LookupError("no such snapshot")
    raise NotHeld("other_digest" if found.state == "held" else found.state)
