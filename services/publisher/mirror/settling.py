"""Settling which copy of a row is newer, and what the touched entities say now. No I/O: works on what is locked and read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from schemas import codec
from schemas.events import OrderToken
from schemas.headers import event_headers
from schemas.keys import EntityKey, record_key
from schemas.topics import Topics
from services.publisher.changes import Change
from services.publisher.mirror import order
from services.publisher.mirror.nouns import (
    EntityRow,
    Fold,
    Locked,
    Meaning,
    OutboxKey,
    OutboxRow,
    Request,
    Result,
    StoredRow,
    row_key,
)


class _Touch(NamedTuple):
    """One change that altered a row: the entities it left and joined, and on whose behalf."""

    entities: frozenset[EntityKey]
    request: int


class Settling:
    """One transaction's decisions. Alters the rows and entities in place; `tables` writes what has changed."""

    def __init__(self, locked: Locked, fold: Fold, meaning: Meaning, topics: Topics, *, emit: bool) -> None:
        self._rows = locked.rows
        self._entities = locked.entities
        self._fold = fold
        self._meaning = meaning
        self._topics = topics
        self._emit = emit
        self._touches: list[_Touch] = []
        self._told: dict[int, dict[str, object]] = {}
        """Order tokens as events tell them; the rows of a message share one."""

    def settle(self, requests: Sequence[Request]) -> tuple[list[Result], list[OutboxRow]]:
        """Carry out all requests, in their order; what became of each, and the events to be sent."""
        self._rise_above_claims(requests)
        results = [self._apply(number, request) for number, request in enumerate(requests)]
        outbox = self._issue(requests)
        self._count(requests, results)
        return results, outbox

    def _rise_above_claims(self, requests: Sequence[Request]) -> None:
        for request in requests:
            for key, claim in request.returned.items():
                entity = self._entities[key]
                entity.next_version = max(entity.next_version, claim.version + 1)

    def _apply(self, number: int, request: Request) -> Result:
        result = Result()
        for change in request.changes:
            touched = self._apply_change(change, result)
            if touched:
                self._touches.append(_Touch(touched, number))
            else:
                result.unchanged += 1
        return result

    def _apply_change(self, change: Change, result: Result) -> frozenset[EntityKey]:
        """Settle one change against its row; returns the entities whose rows it altered."""
        row = self._rows.get(row_key(change))
        if row is None:
            return self._insert(change, result)
        result.stored.append(change)
        reborn = row.deleted and not change.deleted  # a row of its own: what the deleted one said does not hold for it
        columns, entity = change.columns if reborn else row.columns | change.columns, change.entity or row.entity
        same = columns == row.columns and change.deleted == row.deleted and entity == row.entity
        verdict = order.compare(row.order, row.positions, change.order, same_content=same)
        if _was_overtaken(row, change, verdict.ambiguous):
            verdict = order.OLDER
        result.ambiguous += verdict.ambiguous
        before = (row.positions, row.order, row.seen_version)
        row.positions = order.raised(row.positions, change.order)
        if verdict.age == "newer":
            row.order = change.order
        if change.event_version is not None and change.entity == row.entity:
            row.seen_version = max(row.known_version, change.event_version)
        row.token_changed |= before != (row.positions, row.order, row.seen_version)
        if verdict.age != "newer" or same:
            return frozenset()
        row.before = row.before or row.as_mirror_row()
        if entity != row.entity and row.entity is not None:
            row.leaves.add(row.entity)
        touched = frozenset(one for one in (row.entity, entity) if one is not None)
        row.columns, row.deleted, row.entity, row.content_changed = columns, change.deleted, entity, True
        row.seen_version = change.event_version
        return touched

    def _insert(self, change: Change, result: Result) -> frozenset[EntityKey]:
        """Also the deletion of a row that was never seen: its insertion may still come, late, and must not bring it to life."""
        entity = change.entity
        result.stored.append(change)
        self._rows[row_key(change)] = StoredRow(
            row_key(change),
            change.key,
            entity,
            change.columns,
            change.deleted,
            change.order,
            order.raised({}, change.order),
            seen_version=change.event_version,
            is_new=True,
        )
        return frozenset() if entity is None else frozenset({entity})

    def _issue(self, requests: Sequence[Request]) -> list[OutboxRow]:
        """Fold what was touched; give a version to what differs from before."""
        forced = {entity for request in requests for entity in request.republish} | self._lost(requests)
        touched = forced.union(*(touch.entities for touch in self._touches))
        rows_of: dict[EntityKey, list[StoredRow]] = {entity: [] for entity in touched}
        for _, row in sorted(self._rows.items()):
            if row.entity in rows_of:
                rows_of[row.entity].append(row)
        causes = self._causes(requests)
        outbox = []
        for key in sorted(touched):
            if not self._emit:
                self._leave_for_later(self._entities[key], rows_of[key])
            elif (event := self._next_event(self._entities[key], rows_of[key], causes[key], key in forced)) is not None:
                outbox.append(event)
        return outbox

    def _lost(self, requests: Sequence[Request]) -> set[EntityKey]:
        """Entities of which a ledger has an event that this mirror has not; asked again, nothing is left to be done.

        An event without rows says that they belong elsewhere. Where the mirror still has some, the entity that they went to comes
        back as well, and takes them along; until then they would bring to life what is gone.
        """
        with_rows = {row.entity for row in self._rows.values()}
        return {
            key
            for request in requests
            for key, claim in request.returned.items()
            if (claim.has_rows or key not in with_rows) and self._entities[key].lacks(claim)
        }

    def _next_event(self, entity: EntityRow, rows: Sequence[StoredRow], cause: Request, forced: bool) -> OutboxRow | None:
        """The entity's new version, None when there is nothing to say or it cannot be said."""
        try:
            state = {
                "tenant": entity.key.tenant,
                **self._fold(entity.key.kind, entity.key, [row.as_mirror_row() for row in rows]),
            }
            content_hash = codec.content_hash(state)
            if not (forced or entity.was_unfoldable or self._is_news(entity, rows, content_hash)):
                return None
            event = self._event(entity, state, content_hash, rows, cause)
        except Exception as error:  # a defect of ours or a state that the contract refuses: it must stop nobody else
            entity.unfoldable = type(error).__name__
            return None
        entity.version, entity.content_hash, entity.issued = entity.next_version, content_hash, True
        entity.status = state["status"]
        return event

    def _is_news(self, entity: EntityRow, rows: Sequence[StoredRow], content_hash: str) -> bool:
        """Whether the entity, or one of its rows, says anything that it did not say before."""
        return content_hash != entity.content_hash or any(self._says_something_new(entity, row) for row in rows)

    def _says_something_new(self, entity: EntityRow, row: StoredRow) -> bool:
        """Whether a mirror that knew this row only from the log would come to other conclusions some day."""
        if not row.content_changed and not row.is_new:
            return False
        if row.is_new or row.before is None or row.leaves:
            return True
        kind, key = entity.key.kind, entity.key
        return self._meaning(kind, key, row.before) != self._meaning(kind, key, row.as_mirror_row())

    @staticmethod
    def _leave_for_later(entity: EntityRow, rows: Sequence[StoredRow]) -> None:
        """No hash says that the state is still to be emitted; and until it is, R2 must not hold for its rows."""
        entity.version, entity.content_hash, entity.issued = entity.next_version, None, True
        for row in rows:
            row.seen_version, row.content_changed = row.known_version, True

    def _causes(self, requests: Sequence[Request]) -> dict[EntityKey, Request]:
        """The first request that touched each entity: freshness counts from the oldest change in an event."""
        causes: dict[EntityKey, Request] = {}
        for touch in self._touches:
            for entity in touch.entities:
                causes.setdefault(entity, requests[touch.request])
        for request in requests:
            for entity in (*request.republish, *request.returned):
                causes.setdefault(entity, request)
        return causes

    def _event(
        self, entity: EntityRow, state: dict[str, Any], content_hash: str, rows: Sequence[StoredRow], cause: Request
    ) -> OutboxRow:
        key, version = entity.key, entity.next_version
        value = codec.compose(
            key.kind,
            {
                **state,
                "version": version,
                "content_hash": content_hash,
                "occurred_at": _occurred_at(rows),
                "accepted_at": cause.accepted_at,
                "source_rows": [self._source_row(row) for row in rows],
            },
        )
        headers = event_headers(key.kind, version, content_hash, cause.accepted_at, f"urn:enrollstream:{cause.source}")
        return OutboxRow(OutboxKey(*key, version), self._topics.entity(key.kind), record_key(key), headers, value)

    def _source_row(self, row: StoredRow) -> dict[str, object]:
        """A `schemas.events.SourceRow`."""
        told = self._told.get(id(row.order))
        if told is None:
            told = self._told[id(row.order)] = _as_told(row.order)
        return {"record": row.key.record, "key": row.key_columns, "values": row.columns, "deleted": row.deleted, "order": told}

    def _count(self, requests: Sequence[Request], results: Sequence[Result]) -> None:
        """A row counts as changed when an entity that it touched got a new version."""
        issued = {
            key: OutboxKey(key.tenant, key.kind, key.key, entity.version)
            for key, entity in self._entities.items()
            if entity.issued
        }
        named = [(*request.republish, *request.returned) for request in requests]
        events = [{issued[key] for key in keys if key in issued} for keys in named]
        for touch in self._touches:
            mine = {issued[key] for key in touch.entities if key in issued}
            results[touch.request].changed += bool(mine)
            results[touch.request].unchanged += not mine
            events[touch.request] |= mine
        for result, keys in zip(results, events, strict=True):
            result.events = sorted(keys)


def _was_overtaken(row: StoredRow, change: Change, tied: bool) -> bool:
    """Whether a row that comes back from the log is older news than what is stored, by the versions of their events.

    Events are read in any order, and where order tokens tie, arrival says nothing: then the mirror's own order decides.
    """
    if change.event_version is None or change.event_version >= row.known_version:
        return False
    return tied or change.entity == row.entity


def _as_told(token: OrderToken) -> dict[str, object]:
    told = {"position": token.position, "as_of_from": token.as_of_from, "as_of_to": token.as_of_to}
    known: dict[str, object] = {name: value for name, value in told.items() if value is not None}
    return {"channel": token.channel, "incarnation": token.incarnation, "snapshot": token.snapshot} | known


def _occurred_at(rows: Iterable[StoredRow]) -> datetime | None:
    times = [time for row in rows if (time := order.happened_at(row.order)) is not None]
    return max(times, default=None)
