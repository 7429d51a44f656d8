"""The task that works on republishes: page by page, no faster than allowed, for ever."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial

import structlog

from services.publisher.changes import Unavailable
from services.publisher.mirror import republish
from services.publisher.mirror.books import Books
from services.publisher.mirror.emitting import Emitter
from services.publisher.mirror.republish import Republish, Scope, Selection

log = structlog.get_logger()
_LOOK_SECONDS = 5.0
"""How often a process looks for what another one has left behind."""


class Republishing:
    """Lives in one event loop. Every call raises ``Unavailable("database")`` when the database is away."""

    def __init__(
        self, books: Books, emitter: Emitter, opened: Callable[[], Awaitable[None]], tenant: str, per_second: int
    ) -> None:
        self._books = books
        self._emitter = emitter
        self._opened = opened
        self._tenant = tenant
        self._per_second = per_second
        self._worker = uuid.uuid4()
        self._asked = asyncio.Event()
        self._ended: dict[uuid.UUID, asyncio.Event] = {}

    async def ask(self, scope: Scope, wait_seconds: float) -> Republish:
        """Have a scope emitted; durable when it returns. One that takes about a second is waited for."""
        asked = await self._books.query(partial(republish.ask, scope=scope, tenant=self._tenant, worker=self._worker))
        ended = self._ended[asked.id] = asyncio.Event()
        self._asked.set()
        try:
            if asked.count <= self._per_second:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_seconds):
                        await ended.wait()
        finally:
            del self._ended[asked.id]
        return await self.find(asked.id) or asked

    async def find(self, republish_id: uuid.UUID) -> Republish | None:
        """How far one has come."""
        return await self._books.query(partial(republish.find, republish_id=republish_id))

    async def newest(self) -> Sequence[Republish]:
        """The latest ones."""
        return await self._books.query(republish.newest)

    async def release(self) -> None:
        """Leave what is not finished to other processes, at once."""
        await self._books.query(partial(republish.release, worker=self._worker))

    # --- the task -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work, until cancelled."""
        while True:
            await self._opened()
            self._asked.clear()
            try:
                worked = await self._work_on_a_page()
            except Unavailable as error:
                log.warning("republish_waits", reason=error.reason, retry_in_s=_LOOK_SECONDS)
                worked = False
            except Exception as error:  # a task that ended here would leave every republish standing
                log.error("republish_failed", exc_info=error)
                worked = False
            if not worked:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await self._asked.wait()

    async def _work_on_a_page(self) -> bool:
        asked = await self._books.query(partial(republish.claim, worker=self._worker))
        if asked is None:
            return False
        begun = asyncio.get_running_loop().time()
        page = await self._books.query(partial(Selection(asked.scope).page, after=asked.after))
        if page:
            await self._emitter.emit(page, "republish")
        await self._books.query(partial(republish.advance, asked=asked, page=page, worker=self._worker))
        if len(page) < republish.CHUNK:
            log.info("republished", count=asked.emitted + len(page))
            if asked.id in self._ended:
                self._ended[asked.id].set()
        else:
            await asyncio.sleep(max(0.0, begun + len(page) / self._per_second - asyncio.get_running_loop().time()))
        return True
