"""What the mirror does because a ledger found a difference: emit an entity again, or take an event back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

import structlog

from schemas.events import AnyEvent
from schemas.keys import EntityKey
from schemas.returns import KeyAt
from services.kit.postgres import Connection, text_array
from services.publisher.changes import Unavailable
from services.publisher.mirror.books import Books
from services.publisher.mirror.emitting import Emitter
from services.publisher.mirror.group import Groups
from services.publisher.mirror.nouns import Claim
from services.publisher.mirror.outbox import Outbox
from services.publisher.mirror.recovery import as_request
from services.publisher.mirror.republish import CHUNK

log = structlog.get_logger()


class Agreement:
    """Every method is durable when it returns, harmless when repeated, and raises `Unavailable`."""

    def __init__(self, groups: Groups, books: Books, outbox: Outbox, emitter: Emitter, clock: Callable[[], datetime]) -> None:
        self._groups = groups
        self._books = books
        self._outbox = outbox
        self._emitter = emitter
        self._clock = clock

    async def republish_keys(self, keys: Collection[KeyAt]) -> int:
        """New versions of these entities, except where there is one already; how many."""
        ordered = sorted(keys)
        count = 0
        for start in range(0, len(ordered), CHUNK):
            due = await self._books.query(partial(_not_newer, keys=ordered[start : start + CHUNK]))
            if due:
                await self._emitter.emit(due, "republish")
            count += len(due)
        return count

    async def take_back(self, events: Sequence[AnyEvent]) -> int:
        """Fold the rows of these events by their order tokens, and rise above what the mirror has lost; how many versions."""
        return sum([await self._take_back(events[start : start + CHUNK]) for start in range(0, len(events), CHUNK)])

    async def _take_back(self, events: Sequence[AnyEvent]) -> int:
        """All of them, or one by one when they cannot be taken together."""
        claims = {event.entity_key: _claim(event) for event in sorted(events, key=lambda event: event.version)}
        request = replace(as_request(events), source="returned", accepted_at=self._clock(), republish=(), returned=claims)
        try:
            result = await self._groups.fold(request)
        except Unavailable:
            raise
        except Exception as error:
            if len(events) > 1:
                return sum([await self._take_back([event]) for event in events])
            log.error("returned_event_refused", kind=events[0].entity_key.kind, version=events[0].version, exc_info=error)
            return 0
        await self._outbox.failure(result.events)  # not faster than Kafka takes them; one that failed is swept up
        return len(result.events)


def _claim(event: AnyEvent) -> Claim:
    return Claim(event.version, event.content_hash, bool(event.source_rows))


def _not_newer(connection: Connection, *, keys: Sequence[KeyAt]) -> list[EntityKey]:
    rows = connection.execute(
        """select tenant, kind, key from entity e
             join unnest(%s::text[], %s::text[], %s::text[], %s::bigint[]) as k (tenant, kind, key, known)
            using (tenant, kind, key)
            where e.version > 0 and e.version <= k.known""",
        [text_array(str(key[column]) for key in keys) for column in range(4)],
    )
    return [EntityKey(*row) for row in rows]
