"""The mirror as the rest of the publisher sees it: give it changes, and it returns when they are safe.

The parts: `group` commits, `outbox` publishes, `books` remembers what is published and answers rule R2's question, `recovery`
opens the mirror. This module puts them into order and bounds the time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

import structlog

from schemas.events import AnyEvent
from schemas.returns import KeyAt
from services.kit.kafka import KafkaSettings, create_topics
from services.kit.postgres import Connection
from services.publisher.changes import Change, Receipt, Unavailable
from services.publisher.log import Delivered, KafkaLog
from services.publisher.metrics import Metrics
from services.publisher.mirror import database
from services.publisher.mirror.agreement import Agreement
from services.publisher.mirror.books import Books
from services.publisher.mirror.database import Sighting
from services.publisher.mirror.digests import Digests
from services.publisher.mirror.emitting import Emitter
from services.publisher.mirror.group import Groups
from services.publisher.mirror.history import History
from services.publisher.mirror.nouns import Fold, Meaning, OutboxRow, Request, Result
from services.publisher.mirror.outbox import Outbox
from services.publisher.mirror.recovery import Recovery
from services.publisher.mirror.republish import Republish, Scope
from services.publisher.mirror.republishing import Republishing
from services.publisher.mirror.store import Store
from services.publisher.settings import Settings

log = structlog.get_logger()
_FLUSH_SECONDS = 5.0
_FIRST_LOOK_SECONDS, _LONGEST_LOOK_SECONDS = 0.01, 0.25
_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 0.25, 5.0
_SWEEP_INTERVAL_SECONDS = 0.5
_NO_FLOOR = -1


class MirrorWriter:
    """Takes changes in; lives in one event loop, between `start` and `stop`. Safe to kill at any moment."""

    def __init__(
        self,
        settings: Settings,
        kafka: KafkaSettings,
        fold: Fold,
        metrics: Metrics,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        meaning: Meaning | None = None,
    ) -> None:
        self._settings = settings
        self._kafka = kafka
        self._metrics = metrics
        self._clock = clock
        self._url = settings.database_url.get_secret_value()
        self._topics = settings.topics
        self._store = Store(fold, self._topics, meaning)
        self._log = KafkaLog(kafka, int(settings.delivery_timeout_seconds * 1000), self._topics.markers)
        self._books = Books(self._connect)
        self._outbox = Outbox(self._log, self._books, metrics, settings.max_unpublished_events)
        self._groups = Groups(
            self._store, self._connect, self._published_later, self._closed, self._floor, metrics, settings.max_waiting_rows
        )
        self._emitter = Emitter(self._groups, self._books, self._outbox, clock)
        self._agreement = Agreement(self._groups, self._books, self._outbox, self._emitter, clock)
        self._republishing = Republishing(self._books, self._emitter, self.opened, settings.tenant, settings.republish_per_second)
        self._sighting: Sighting | None = None
        """What this process found the mirror to be; connections to anything else are refused. None until it has looked."""
        self._digests = Digests(
            self._connect,
            self._log,
            kafka,
            self._topics,
            metrics,
            every_seconds=settings.digest_interval_seconds,
            settled_seconds=settings.digest_settled_seconds,
        )
        self._open = asyncio.Event()
        self._stopping = False
        self._requests = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._opening: asyncio.Task[None] | None = None

    # --- life -----------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start opening the mirror; does not wait for the database or Kafka. Until it is open, `accept` refuses."""
        self._loop = asyncio.get_running_loop()
        await self._log.start()
        self._books.start()
        self._groups.start()
        self._digests.start()
        self._reopen()
        self._spawn(self._sweep())
        self._spawn(self._emit_digests())
        self._spawn(self._republishing.run())

    async def opened(self) -> None:
        """Wait until changes are taken."""
        await self._open.wait()

    async def stop(self) -> None:
        """Take nothing more, finish what is under way, wait a little for Kafka. What Kafka lacks stays in the outbox."""
        self._stopping = True
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.answer_within_seconds):
                await self._idle.wait()
        await _cancel([*self._tasks, *([self._opening] if self._opening else [])])
        await self._digests.stop(1)
        await self._groups.stop(_FLUSH_SECONDS)
        await self._log.stop(_FLUSH_SECONDS)
        await self._outbox.finish(1)
        with suppress(Unavailable):
            await self._outbox.keep_positions()
            await self._republishing.release()
        await self._books.stop(1)

    def ready(self) -> dict[str, bool]:
        """Why this process may or may not get traffic."""
        return {
            "open": self._open.is_set() and not self._stopping,
            "database": self._books.healthy and self._groups.healthy,
            "kafka": self._log.ready(),
            "outbox": not self._outbox.full,
        }

    def alive(self) -> dict[str, bool]:
        """Whether a new process would not do better."""
        return {"producer": self._log.alive()}

    # --- taking changes -------------------------------------------------------------------------------------------------

    async def accept(self, changes: Sequence[Change], source: str) -> Receipt:
        """Return when every change is committed here and published (rule R2); raise `Unavailable` otherwise.

        While more events wait for Kafka than allowed nothing is taken in, so that no queue grows without bound.

        `source` is a metric label. Sending the same changes again is always right.
        """
        self._refuse_unless_open()
        self._requests += 1
        self._idle.clear()
        try:
            async with asyncio.timeout(self._settings.answer_within_seconds):
                result = await self._take(Request(changes, source, self._clock()))
        except TimeoutError as error:
            raise Unavailable("deadline") from error
        finally:
            self._requests -= 1
            if not self._requests:
                self._idle.set()
        self._metrics.rows.labels(source, "changed").inc(result.changed)
        self._metrics.rows.labels(source, "unchanged").inc(result.unchanged)
        self._metrics.order_ambiguous.labels(source).inc(result.ambiguous)
        return Receipt(result.changed, result.unchanged, result.ambiguous, len(result.events))

    def _refuse_unless_open(self) -> None:
        if self._stopping:
            raise Unavailable("stopping")
        if not self._open.is_set():
            raise Unavailable("recovering")
        if self._outbox.full:
            raise Unavailable("overload")

    async def _take(self, request: Request) -> Result:
        result = await self._fold(request)
        pause = _FIRST_LOOK_SECONDS
        while result.stored:
            shown = await self._books.shown(result.stored)
            if shown == "published":
                break
            if shown == "missing":  # the database came back with less than it had
                await self._fold(request)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_LOOK_SECONDS)
        return result

    async def _fold(self, request: Request) -> Result:
        """Commit, and wait for the first attempt to publish what came of it."""
        result = await self._groups.fold(request)
        failure = await self._outbox.failure(result.events)
        if failure is not None:
            raise Unavailable(failure)
        return result

    def _published_later(self, rows: list[OutboxRow]) -> None:
        """Called by an owner thread right after a commit, before its callers are woken."""
        self._loop.call_soon_threadsafe(self._outbox.publish, rows)

    # --- republishing ---------------------------------------------------------------------------------------------------

    async def republish(self, scope: Scope) -> Republish:
        """Emit current state again, at most so many events a second; what takes longer than about a second goes on afterwards,
        also in another process. Raises `Unavailable`."""
        self._refuse_unless_open()
        return await self._republishing.ask(scope, self._settings.answer_within_seconds)

    async def find_republish(self, republish_id: UUID) -> Republish | None:
        """How far one has come. Raises `Unavailable`."""
        return await self._republishing.find(republish_id)

    async def republishes(self) -> Sequence[Republish]:
        """The latest ones. Raises `Unavailable`."""
        return await self._republishing.newest()

    # --- agreeing with the ledgers --------------------------------------------------------------------------------------

    async def republish_keys(self, keys: Collection[KeyAt]) -> int:
        """Emit single entities again, except those that have a newer version than is named; how many. Raises `Unavailable`."""
        self._refuse_unless_open()
        return await self._agreement.republish_keys(keys)

    async def take_back(self, events: Sequence[AnyEvent]) -> int:
        """Rule R1: what a ledger has and this mirror has lost; how many new versions that made. Raises `Unavailable`."""
        self._refuse_unless_open()
        return await self._agreement.take_back(events)

    async def ask_for_digests(self, reason: str, request: UUID | None = None) -> UUID:
        """Have a round of digests emitted that begins after this, whichever process does it. Raises `Unavailable`."""
        self._refuse_unless_open()
        return await self._digests.ask(reason, request)

    async def _emit_digests(self) -> None:
        await self._open.wait()
        await self._digests.run()

    # --- opening --------------------------------------------------------------------------------------------------------

    def _connect(self) -> Connection:
        """A connection for an owner thread: to the mirror that was opened, or none."""
        connection = database.connect(self._url)
        try:
            if database.sighting(connection) == self._sighting is not None:
                return connection
        except BaseException:
            connection.close()
            raise
        connection.close()
        self._closed()
        raise Unavailable("recovering")

    def _floor(self) -> int:
        """Asked by the owner threads."""
        sighting = self._sighting
        return sighting.mirror.floor if sighting else _NO_FLOOR

    def _closed(self) -> None:
        """Called by an owner thread that found another mirror than the one that was opened."""
        self._loop.call_soon_threadsafe(self._reopen)

    def _reopen(self) -> None:
        if self._stopping or (self._opening is not None and not self._opening.done()):
            return
        self._open.clear()
        self._sighting = None
        self._groups.drop_connections()
        self._books.drop_connection()
        self._digests.drop_connection()
        self._metrics.recovering.set(1)
        self._opening = self._loop.create_task(self._keep_opening())

    async def _keep_opening(self) -> None:
        pause = _FIRST_RETRY_SECONDS
        while True:
            try:
                await self._open_once()
                break
            except Exception as error:
                # Whatever it was (database or Kafka away, another process at it): closed is safe, and trying again is all
                # that can be done from here.
                log.warning("mirror_not_open", error_type=type(error).__name__, retry_in_s=pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_RETRY_SECONDS)
        self._metrics.recovering.set(0)
        self._open.set()
        log.info("mirror_open", floor=self._floor())

    async def _open_once(self) -> None:
        if self._settings.create_topics:
            await asyncio.to_thread(create_topics, self._kafka, self._topics.all(), self._settings.topic_replication)
        history = History(self._kafka, self._topics)
        recovery = await asyncio.to_thread(Recovery, self._url, self._store, history, self._topics)
        try:
            await asyncio.to_thread(recovery.prepare)
            self._sighting = await asyncio.to_thread(recovery.sighting)
            while keys := await asyncio.to_thread(recovery.to_emit):
                await self._emitter.emit(keys, "recovery")
            marker = await asyncio.to_thread(recovery.marker)
            if marker is not None:
                if self._floor() > 0:  # what is opened for the first time has lost nothing
                    await self._digests.ask("recovery")
                if not isinstance(await self._log.send_alone(marker), Delivered):
                    raise Unavailable("kafka")
            await self._outbox.sweep(self._settings.outbox_sweep_after_seconds)
        finally:
            await asyncio.to_thread(recovery.close)

    # --- housekeeping ---------------------------------------------------------------------------------------------------

    async def _sweep(self) -> None:
        """Publish what was committed and not produced, or produced and not acknowledged."""
        shortest = pause = min(_SWEEP_INTERVAL_SECONDS, self._settings.outbox_sweep_after_seconds / 2)
        while True:
            await self._open.wait()
            try:
                done = await self._outbox.sweep(self._settings.outbox_sweep_after_seconds)
                pause = shortest if done else min(pause * 2, _LONGEST_RETRY_SECONDS)
                await self._outbox.keep_positions()
                if done and self._outbox.full:
                    continue  # Kafka is back and takes what has piled up
            except Unavailable:
                pass  # whoever said so has logged it; the next turn tries again
            except Exception as error:  # without a sweeper a failed publish would mean 503 until the next restart
                log.error("sweep_failed", exc_info=error)
                pause = _LONGEST_RETRY_SECONDS
            await asyncio.sleep(pause)

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _cancel(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
