"""Emitting current state again: what a recovery ends with, and what a republish is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

import structlog

from schemas.keys import EntityKey
from services.kit.postgres import Connection
from services.publisher.changes import Unavailable
from services.publisher.mirror.books import Books
from services.publisher.mirror.group import Groups
from services.publisher.mirror.nouns import Request
from services.publisher.mirror.outbox import Outbox

log = structlog.get_logger()


class Emitter:
    """Gives entities new versions, and waits until they were sent once."""

    def __init__(self, groups: Groups, books: Books, outbox: Outbox, clock: Callable[[], datetime]) -> None:
        self._groups = groups
        self._books = books
        self._outbox = outbox
        self._clock = clock

    async def emit(self, keys: Sequence[EntityKey], source: str) -> None:
        """All of them, or one by one when they cannot be emitted together; what cannot be emitted at all is marked.

        Raises `Unavailable`; then some may have been emitted.
        """
        try:
            await self._emit(keys, source)
        except Unavailable:
            raise
        except Exception as error:
            if len(keys) == 1:
                log.error("entity_unfoldable", kind=keys[0].kind, exc_info=error)
                await self._books.query(partial(_mark, keys[0], type(error).__name__))
                return
            for key in keys:
                await self.emit([key], source)

    async def _emit(self, keys: Sequence[EntityKey], source: str) -> None:
        result = await self._groups.fold(Request((), source, self._clock(), frozenset(keys)))
        await self._outbox.failure(result.events)  # not faster than Kafka takes them; one that failed is swept up


def _mark(key: EntityKey, reason: str, connection: Connection) -> None:
    connection.execute(
        "update entity set unfoldable = %s where (tenant, kind, key) = (%s, %s, %s)", [reason, key.tenant, key.kind, key.key]
    )
