"""What the mirror does because a ledger found a difference: emit an entity again, or take an event back."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from schemas.events import AnyEvent
from schemas.keys import EntityKey
from schemas.returns import KeyAt
from services.kit.postgres import Connection, text_array
from services.publisher.mirror.books import Books
from services.publisher.mirror.group import Groups
from services.publisher.mirror.nouns import Claim, Request
from services.publisher.mirror.outbox import Outbox
from services.publisher.mirror.recovery import as_request
from services.publisher.mirror.republish import CHUNK


class Agreement:
    """Every method is durable when it returns, harmless when repeated, and raises `Unavailable`."""

    def __init__(self, groups: Groups, books: Books, outbox: Outbox, clock: Callable[[], datetime]) -> None:
        self._groups = groups
        self._books = books
        self._outbox = outbox
        self._clock = clock

    async def republish_keys(self, keys: Collection[KeyAt]) -> int:
        """New versions of these entities, except where there is one already; how many."""
        ordered = sorted(keys)
        count = 0
        for start in range(0, len(ordered), CHUNK):
            due = await self._books.query(partial(_not_newer, keys=ordered[start : start + CHUNK]))
            if due:
                count += await self._fold(Request((), "republish", self._clock(), due))
        return count

    async def take_back(self, events: Sequence[AnyEvent]) -> int:
        """Fold the rows of these events by their order tokens, and rise above what the mirror has lost; how many versions."""
        count = 0
        for start in range(0, len(events), CHUNK):
            some = events[start : start + CHUNK]
            claims = {event.entity_key: _claim(event) for event in sorted(some, key=lambda event: event.version)}
            rows = as_request(some)
            count += await self._fold(replace(rows, source="returned", accepted_at=self._clock(), republish=(), returned=claims))
        return count

    async def _fold(self, request: Request) -> int:
        result = await self._groups.fold(request)
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
