"""The mirror's one transaction: source rows in, entity versions and outbox rows out.

1. Look up where the named rows are folded now, so that all touched entities are known.
2. Create missing entities and lock all of them, sorted; only then read their source rows. Every writer locks the same entities
   in the same order, so that what is read stays true until the commit.
3. Settle per row which copy is newer (`order`), and fold each touched entity from all its rows.
4. An entity whose state and whose rows mean what they meant before is no event. Any other gets the next version and an outbox
   row: also a row that changed without changing the state, because a mirror that is rebuilt from the log has to know it.
   An entity of which no event can be made keeps its rows and is marked; the others go on.
5. Commit. Nothing is produced before the commit, and nothing when it is not known to have happened.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import psycopg

from schemas import codec
from schemas.events import SourceRow
from schemas.headers import event_headers
from schemas.keys import EntityKey, EntityKind, record_key
from schemas.topics import Topics
from services.kit.failpoints import failpoint
from services.kit.postgres import Connection, text_array
from services.publisher.changes import Change
from services.publisher.mirror import order
from services.publisher.mirror.database import bytes_array, json_array, plain_array
from services.publisher.mirror.nouns import (
    Committed,
    EntityRow,
    Fold,
    Left,
    Meaning,
    OutboxKey,
    OutboxRow,
    Request,
    Result,
    RowKey,
    StoredRow,
    row_key,
)

_ATTEMPTS = 5
_FLOOR_LOCK = "hashtextextended('mirror floor', 0)"
"""Shared by every transaction that issues versions, exclusive while the floor is raised: none is issued below it meanwhile."""


class CommitUnknown(RuntimeError):
    """The connection was lost during the commit: it may or may not have happened. Produce nothing."""


class MirrorClosed(RuntimeError):
    """The database is not an opened mirror (any more); it has to be recovered before anything is written."""


class Contention(RuntimeError):
    """Rows kept moving between entities while we tried to lock them."""


class _Moved(Exception):
    """A row belongs to an entity that is not locked."""

    def __init__(self, entities: Collection[EntityKey]) -> None:
        super().__init__("a source row moved")
        self.entities = entities


class Store:
    """Runs transactions on whatever connection it is given; holds no state of its own, so that any thread may use it."""

    def __init__(self, fold: Fold, topics: Topics, meaning: Meaning | None = None) -> None:
        """`meaning` is the fold of the row alone, unless the dialect knows better."""
        self._fold = fold
        self._meaning = meaning or (lambda kind, key, row: fold(kind, key, [row]))
        self._topics = topics

    def transact(
        self, connection: Connection, requests: Sequence[Request], *, emit: bool = True, floor: int | None = None
    ) -> Committed:
        """Fold all requests in one transaction, in their order; with `floor` only while that is the mirror's.

        With ``emit=False`` (recovery) nothing is folded and nothing goes to the outbox: touched and listed entities get a
        version, but no hash, which says that their state is still to be emitted.

        Raises `CommitUnknown`, `MirrorClosed`, `Contention`, or what psycopg and the fold raise (then nothing was committed).
        """
        hints: set[EntityKey] = set()
        for _ in range(_ATTEMPTS):
            try:
                with _transaction(connection):
                    work = _Transaction(connection, self._fold, self._meaning, self._topics, emit, floor)
                    committed = work.run(requests, hints)
                    failpoint("publisher.before_commit")
            except _Moved as moved:
                hints.update(moved.entities)
                continue
            if committed.outbox:
                failpoint("publisher.after_commit")
            return committed
        raise Contention(f"rows moved {_ATTEMPTS} times")


@contextmanager
def floor_held_still(connection: Connection) -> Iterator[None]:
    """A transaction beside which no version is issued: it waits for those that run, and those that come wait for it."""
    with connection.transaction():
        connection.execute(f"select pg_advisory_xact_lock({_FLOOR_LOCK})")
        yield


@contextmanager
def _transaction(connection: Connection) -> Iterator[None]:
    """Like psycopg's own, but tells a commit of unknown outcome from everything before it."""
    # One round trip, and a statement of its own before the floor is read: a snapshot is taken when a statement begins.
    connection.execute(f"begin; select pg_advisory_xact_lock_shared({_FLOOR_LOCK})", prepare=False)
    try:
        yield
    except BaseException:
        if not connection.broken:
            connection.execute("rollback")
        raise
    try:
        ended = connection.execute("commit").statusmessage
    except psycopg.Error as error:
        raise CommitUnknown("the connection was lost during the commit") from error
    if ended != "COMMIT":
        raise CommitUnknown("the server answered the commit with something else")


@dataclass(frozen=True, slots=True)
class _Touch:
    """One change that altered a row: the entities it left and joined, and on whose behalf."""

    entities: frozenset[EntityKey]
    request: int


class _Transaction:
    """The steps of one attempt."""

    def __init__(
        self, connection: Connection, fold: Fold, meaning: Meaning, topics: Topics, emit: bool, floor: int | None
    ) -> None:
        self._connection = connection
        self._fold = fold
        self._meaning = meaning
        self._topics = topics
        self._emit = emit
        self._floor = floor
        self._rows: dict[RowKey, StoredRow] = {}
        self._entities: dict[EntityKey, EntityRow] = {}
        self._touches: list[_Touch] = []

    def run(self, requests: Sequence[Request], hints: Collection[EntityKey]) -> Committed:
        """Everything between begin and commit."""
        keys = {row_key(change) for request in requests for change in request.changes}
        wanted = {change.entity for request in requests for change in request.changes if change.entity is not None}
        wanted.update(*(request.republish for request in requests), *(request.returned for request in requests))
        owners = self._owners(keys)
        self._lock(wanted.union(hints, (entity for entity in owners.values() if entity is not None)))
        self._read_rows()
        self._read_homeless([key for key, entity in owners.items() if entity is None])
        self._refuse_moved(keys)
        self._rise_above_claims(requests)
        results = [self._apply(number, request) for number, request in enumerate(requests)]
        outbox = self._issue(requests)
        self._write_rows()
        self._write_entities()
        self._write_outbox(outbox)
        self._count(requests, results)
        return Committed(results, outbox, [entity for entity in self._entities.values() if entity.unfoldable])

    # --- locking and reading ----------------------------------------------------------------------------------------

    def _owners(self, keys: Iterable[RowKey]) -> dict[RowKey, EntityKey | None]:
        """The entity that each stored row is folded into; None for a tombstone that has none."""
        ordered = sorted(keys)
        if not ordered:
            return {}
        found = self._connection.execute(
            """select s.tenant, s.record, s.key, s.entity_kind, s.entity_key
                 from unnest(%s::text[], %s::text[], %s::text[]) as k (tenant, record, key)
                 join source_row s using (tenant, record, key)""",
            _columns(ordered, 3),
        )
        return {RowKey(*row[:3]): _entity(row[0], row[3], row[4]) for row in found}

    def _lock(self, entities: Collection[EntityKey]) -> None:
        """Lock in the order of the database's own sort, after creating what is missing in that order too."""
        keys = _columns(sorted(entities), 3)
        names = _columns([_names(entity) for entity in sorted(entities)], 4)
        self._connection.execute(
            """insert into entity (tenant, kind, key, institution, term, section, person)
               select * from unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[])
                as k (tenant, kind, key, institution, term, section, person) order by tenant, kind, key
               on conflict do nothing""",
            keys + names,
        )
        locked = self._connection.execute(
            """with locked as materialized (
                 select e.tenant, e.kind, e.key, e.version, e.content_hash, e.unfoldable
                   from unnest(%s::text[], %s::text[], %s::text[]) as k (tenant, kind, key)
                   join entity e using (tenant, kind, key)
                  order by e.tenant, e.kind, e.key for update of e)
               select locked.*, floor, greatest(version + 1, floor + 1, (extract(epoch from clock_timestamp()) * 1000000)::bigint)
                 from locked cross join mirror""",
            keys,
        )
        for tenant, kind, key, version, content_hash, unfoldable, floor, next_version in locked:
            if self._floor not in {None, floor}:
                raise MirrorClosed("another process has recovered the mirror")
            name = EntityKey(tenant, kind, key)
            self._entities[name] = EntityRow(name, version, content_hash, next_version, was_unfoldable=unfoldable is not None)
        if len(self._entities) != len(entities):
            raise MirrorClosed("the mirror has no floor; it was emptied")

    def _read_rows(self) -> None:
        found = self._connection.execute(
            f"""select {_READ_COLUMNS}
                  from unnest(%s::text[], %s::text[], %s::text[]) as k (tenant, kind, key)
                  join source_row s on (s.tenant, s.entity_kind, s.entity_key) = (k.tenant, k.kind, k.key)""",  # noqa: S608
            _columns(self._entities, 3),
        )
        self._rows |= {row.key: row for row in map(_stored_row, found)}

    def _read_homeless(self, keys: Sequence[RowKey]) -> None:
        """Tombstones without an entity have nothing else to be locked by."""
        if not keys:
            return
        found = self._connection.execute(
            f"""select {_READ_COLUMNS}
                  from unnest(%s::text[], %s::text[], %s::text[]) as k (tenant, record, key)
                  join source_row s using (tenant, record, key)
                 where s.entity_kind is null order by s.tenant, s.record, s.key for update of s""",  # noqa: S608
            _columns(sorted(keys), 3),
        )
        self._rows |= {row.key: row for row in map(_stored_row, found)}

    def _refuse_moved(self, keys: Iterable[RowKey]) -> None:
        """A row that we have not read although it exists has moved to, or come to life in, an entity that is not locked."""
        elsewhere = self._owners(key for key in keys if key not in self._rows)
        if elsewhere:
            raise _Moved({entity for entity in elsewhere.values() if entity is not None})

    def _rise_above_claims(self, requests: Sequence[Request]) -> None:
        for request in requests:
            for key, claim in request.returned.items():
                entity = self._entities[key]
                entity.next_version = max(entity.next_version, claim.version + 1)

    # --- deciding ---------------------------------------------------------------------------------------------------

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
                self._leave_for_later(self._entities[key], rows_of[key], causes[key])
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
            issued = self._fold_entity(entity, rows, cause, forced or entity.was_unfoldable)
            event = self._event(issued, rows, cause.source) if issued is not None else None
        except Exception as error:  # a defect of ours or a state that the contract refuses: it must stop nobody else
            entity.unfoldable = type(error).__name__
            return None
        if issued is not None:
            self._entities[entity.key] = issued
        return event

    def _fold_entity(self, entity: EntityRow, rows: Sequence[StoredRow], cause: Request, forced: bool) -> EntityRow | None:
        """The entity under a new version, None when it and its rows say what they said before."""
        folded = self._fold(entity.key.kind, entity.key, [row.as_mirror_row() for row in rows])
        state = {name: value for name, value in folded.items() if value is not None}
        content_hash = codec.content_hash({"tenant": entity.key.tenant, **state})
        if content_hash == entity.content_hash and not forced and not any(self._says_something_new(entity, row) for row in rows):
            return None
        return replace(
            entity,
            version=entity.next_version,
            content_hash=content_hash,
            issued=True,
            state=state,
            accepted_at=cause.accepted_at,
            occurred_at=_occurred_at(rows),
        )

    def _says_something_new(self, entity: EntityRow, row: StoredRow) -> bool:
        """Whether a mirror that knew this row only from the log would come to other conclusions some day."""
        if not row.content_changed and not row.is_new:
            return False
        if row.is_new or row.before is None or row.leaves:
            return True
        kind, key = entity.key.kind, entity.key
        return self._meaning(kind, key, row.before) != self._meaning(kind, key, row.as_mirror_row())

    @staticmethod
    def _leave_for_later(entity: EntityRow, rows: Sequence[StoredRow], cause: Request) -> None:
        """No hash says that the state is still to be emitted; and until it is, R2 must not hold for its rows."""
        entity.version, entity.content_hash, entity.issued = entity.next_version, None, True
        entity.accepted_at = cause.accepted_at
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

    def _event(self, entity: EntityRow, rows: Sequence[StoredRow], source: str) -> OutboxRow:
        key = entity.key
        event = codec.build(
            key.kind,
            {
                **entity.state,
                "tenant": key.tenant,
                "version": entity.version,
                "content_hash": entity.content_hash,
                "occurred_at": entity.occurred_at,
                "accepted_at": entity.accepted_at,
                "source_rows": [_source_row(row) for row in rows],
            },
        )
        headers = {name: value.decode() for name, value in event_headers(event, key.kind, f"urn:enrollstream:{source}")}
        outbox_key = OutboxKey(key.tenant, key.kind, key.key, entity.version)
        return OutboxRow(outbox_key, self._topics.entity(key.kind), record_key(key), headers, codec.encode(event))

    # --- writing ----------------------------------------------------------------------------------------------------

    def _write_rows(self) -> None:
        fresh = [row for _, row in sorted(self._rows.items()) if row.is_new]
        if fresh:
            inserted = self._connection.execute(
                f"""insert into source_row (tenant, record, key, key_columns, {_VALUE_COLUMNS})
                    select * from unnest(%s::text[], %s::text[], %s::text[], %s::jsonb[], {_VALUE_ARRAYS})
                    on conflict do nothing""",  # noqa: S608  (constants of this module)
                [*_columns([row.key for row in fresh], 3), json_array(row.key_columns for row in fresh), *self._values(fresh)],
            )
            if inserted.rowcount != len(fresh):
                raise _Moved(())  # somebody stored one of them under another entity meanwhile
        known = [row for _, row in sorted(self._rows.items()) if not row.is_new and (row.content_changed or row.token_changed)]
        if known:
            self._connection.execute(
                f"""update source_row s
                       set entity_kind = v.entity_kind, entity_key = v.entity_key, columns = v.columns, deleted = v.deleted,
                           left_entities = v.left_entities, seen_version = v.seen_version,
                           channel = v.channel, incarnation = v.incarnation, position = v.position,
                           as_of_from = v.as_of_from, as_of_to = v.as_of_to, snapshot = v.snapshot, positions = v.positions,
                           applied_version = coalesce(v.applied_version, s.applied_version), updated_at = clock_timestamp()
                      from unnest(%s::text[], %s::text[], %s::text[], {_VALUE_ARRAYS})
                        as v (tenant, record, key, {_VALUE_COLUMNS})
                     where (s.tenant, s.record, s.key) = (v.tenant, v.record, v.key)""",  # noqa: S608
                [*_columns([row.key for row in known], 3), *self._values(known)],
            )

    def _values(self, rows: Sequence[StoredRow]) -> list[str]:
        """Arrays in the order of `_VALUE_COLUMNS`. The applied version stays (NULL) where only the token moved."""
        orders = [row.order for row in rows]
        return [
            text_array(row.entity and row.entity.kind for row in rows),
            text_array(row.entity and row.entity.key for row in rows),
            json_array(row.columns for row in rows),
            plain_array(row.deleted for row in rows),
            json_array(self._left(row) for row in rows),
            plain_array(row.seen_version for row in rows),
            text_array(token.channel for token in orders),
            text_array(token.incarnation for token in orders),
            plain_array(token.position for token in orders),
            plain_array(token.as_of_from for token in orders),
            plain_array(token.as_of_to for token in orders),
            plain_array(token.snapshot for token in orders),
            json_array(row.positions for row in rows),
            plain_array(self._applied_version(row) if row.is_new or row.content_changed else None for row in rows),
        ]

    def _applied_version(self, row: StoredRow) -> int:
        return self._entities[row.entity].version if row.entity is not None else 0

    def _left(self, row: StoredRow) -> list[Left]:
        """Every move away from an entity that has a version for it."""
        news = [self._entities[entity] for entity in sorted(row.leaves - {row.entity}) if self._entities[entity].issued]
        return row.left + [Left(kind=entity.key.kind, key=entity.key.key, version=entity.version) for entity in news]

    def _write_entities(self) -> None:
        self._mark_unfoldable()
        issued = [entity for _, entity in sorted(self._entities.items()) if entity.issued]
        if not issued:
            return
        self._connection.execute(
            """update entity e
                  set version = v.version, content_hash = v.content_hash, state = v.state,
                      occurred_at = v.occurred_at, accepted_at = v.accepted_at, unfoldable = null, updated_at = clock_timestamp()
                 from unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::text[], %s::jsonb[],
                             %s::timestamptz[], %s::timestamptz[])
                   as v (tenant, kind, key, version, content_hash, state, occurred_at, accepted_at)
                where (e.tenant, e.kind, e.key) = (v.tenant, v.kind, v.key)""",
            [
                *_columns([entity.key for entity in issued], 3),
                plain_array(entity.version for entity in issued),
                text_array(entity.content_hash for entity in issued),
                json_array(entity.state for entity in issued),
                plain_array(entity.occurred_at for entity in issued),
                plain_array(entity.accepted_at for entity in issued),
            ],
        )

    def _mark_unfoldable(self) -> None:
        marked = [entity for _, entity in sorted(self._entities.items()) if entity.unfoldable]
        if marked:
            self._connection.execute(
                """update entity e set unfoldable = v.reason, updated_at = clock_timestamp()
                     from unnest(%s::text[], %s::text[], %s::text[], %s::text[]) as v (tenant, kind, key, reason)
                    where (e.tenant, e.kind, e.key) = (v.tenant, v.kind, v.key)""",
                [*_columns([entity.key for entity in marked], 3), text_array(entity.unfoldable for entity in marked)],
            )

    def _write_outbox(self, outbox: Sequence[OutboxRow]) -> None:
        if not outbox:
            return
        self._connection.execute(
            """insert into outbox (tenant, kind, key, version, topic, record_key, headers, value)
               select * from unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::text[], %s::bytea[], %s::jsonb[],
                                    %s::bytea[])""",
            [
                *_columns([row.key for row in outbox], 3),
                plain_array(row.key.version for row in outbox),
                text_array(row.topic for row in outbox),
                bytes_array(row.record_key for row in outbox),
                json_array(row.headers for row in outbox),
                bytes_array(row.value for row in outbox),
            ],
        )

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


_READ_COLUMNS = """s.tenant, s.record, s.key, s.key_columns, s.entity_kind, s.entity_key, s.columns, s.deleted,
    s.channel, s.incarnation, s.position, s.as_of_from, s.as_of_to, s.snapshot, s.positions, s.applied_version, s.seen_version,
    case when s.left_entities = '[]' then s.left_entities else (
      select coalesce(jsonb_agg(l), '[]')
        from jsonb_to_recordset(s.left_entities) as l (kind text, key text, version bigint)
        join entity o on (o.tenant, o.kind, o.key) = (s.tenant, l.kind, l.key) and o.published_version < l.version) end"""
_VALUE_COLUMNS = (
    "entity_kind, entity_key, columns, deleted, left_entities, seen_version, channel, incarnation, position, as_of_from, "
    "as_of_to, snapshot, positions, applied_version"
)
_VALUE_ARRAYS = (
    "%s::text[], %s::text[], %s::jsonb[], %s::boolean[], %s::jsonb[], %s::bigint[], %s::text[], %s::text[], %s::bigint[], "
    "%s::timestamptz[], %s::timestamptz[], %s::boolean[], %s::jsonb[], %s::bigint[]"
)


def _stored_row(row: Sequence[Any]) -> StoredRow:
    """A row of `_READ_COLUMNS`."""
    key, entity = RowKey(row[0], row[1], row[2]), _entity(row[0], row[4], row[5])
    return StoredRow(key, row[3], entity, row[6], row[7], order.token(row[8:14]), row[14], row[15], row[16], row[17])


def _entity(tenant: str, kind: EntityKind | None, key: str | None) -> EntityKey | None:
    return EntityKey(tenant, kind, key) if kind is not None and key is not None else None


def _was_overtaken(row: StoredRow, change: Change, tied: bool) -> bool:
    """Whether a row that comes back from the log is older news than what is stored, by the versions of their events.

    Events are read in any order, and where order tokens tie, arrival says nothing: then the mirror's own order decides.
    """
    if change.event_version is None or change.event_version >= row.known_version:
        return False
    return tied or change.entity == row.entity


def _columns(rows: Iterable[tuple[str | int | None, ...]], width: int) -> list[str]:
    """The first `width` fields of each row, as one array literal per field."""
    fields = list(zip(*rows, strict=True)) or [()] * width
    return [text_array(value if value is None else str(value) for value in fields[number]) for number in range(width)]


def _names(key: EntityKey) -> tuple[str | None, str | None, str | None, str | None]:
    """Institution, term, section and person of an entity, as far as its kind has them; a republish selects by them."""
    parts = key.parts
    if key.kind == "person":
        return None, None, None, parts[0]
    if key.kind == "course":
        return parts[0], None, None, None
    padded: list[str | None] = [*parts[:4], None, None, None]
    return padded[0], padded[1], padded[2], padded[3]


def _source_row(row: StoredRow) -> SourceRow:
    return SourceRow(record=row.key.record, key=row.key_columns, values=row.columns, deleted=row.deleted, order=row.order)


def _occurred_at(rows: Iterable[StoredRow]) -> datetime | None:
    times = [time for row in rows if (time := order.happened_at(row.order)) is not None]
    return max(times, default=None)
