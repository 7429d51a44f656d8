"""The mirror's one transaction: source rows in, entity versions and outbox rows out.

1. Look up where the named rows are folded now, so that all touched entities are known.
2. Create missing entities and lock all of them, sorted; only then read their source rows. Every writer locks the same entities
   in the same order, so that what is read stays true until the commit.
3. Settle per row which copy is newer (`order`), and fold each touched entity from all its rows.
4. A state that hashes as before is no event. Any other gets the next version and an outbox row.
5. Commit. Nothing is produced before the commit, and nothing when it is not known to have happened.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

import psycopg

from schemas import codec
from schemas.events import SourceRow
from schemas.headers import event_headers
from schemas.keys import EntityKey, record_key
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
    OutboxKey,
    OutboxRow,
    Request,
    Result,
    RowKey,
    StoredRow,
    row_key,
)

_ATTEMPTS = 5


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

    def __init__(self, fold: Fold, topics: Topics) -> None:
        self._fold = fold
        self._topics = topics

    def transact(self, connection: Connection, requests: Sequence[Request], *, emit: bool = True) -> Committed:
        """Fold all requests in one transaction, in their order.

        With ``emit=False`` (recovery) nothing goes to the outbox: touched and listed entities keep a version, but no hash,
        which says that their state is still to be emitted.

        Raises `CommitUnknown`, `MirrorClosed`, `Contention`, or what psycopg and the fold raise (then nothing was committed).
        """
        hints: set[EntityKey] = set()
        for _ in range(_ATTEMPTS):
            try:
                with _transaction(connection):
                    committed = _Transaction(connection, self._fold, self._topics, emit).run(requests, hints)
            except _Moved as moved:
                hints.update(moved.entities)
                continue
            if committed.outbox:
                failpoint("publisher.after_commit")
            return committed
        raise Contention(f"rows moved {_ATTEMPTS} times")


@contextmanager
def _transaction(connection: Connection) -> Iterator[None]:
    """Like psycopg's own, but tells a commit of unknown outcome from everything before it."""
    connection.execute("begin")
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

    def __init__(self, connection: Connection, fold: Fold, topics: Topics, emit: bool) -> None:
        self._connection = connection
        self._fold = fold
        self._topics = topics
        self._emit = emit
        self._rows: dict[RowKey, StoredRow] = {}
        self._entities: dict[EntityKey, EntityRow] = {}
        self._touches: list[_Touch] = []

    def run(self, requests: Sequence[Request], hints: Collection[EntityKey]) -> Committed:
        """Everything between begin and commit."""
        keys = {row_key(change) for request in requests for change in request.changes}
        wanted = {change.entity for request in requests for change in request.changes if change.entity is not None}
        wanted.update(*(request.republish for request in requests))
        self._lock(wanted | set(self._owners(keys).values()) | set(hints))
        self._read_rows()
        self._refuse_moved(keys)
        results = [self._apply(number, request) for number, request in enumerate(requests)]
        outbox = self._issue(requests)
        self._write_rows()
        self._write_entities()
        self._write_outbox(outbox)
        self._count(requests, results)
        return Committed(results, outbox)

    # --- locking and reading ----------------------------------------------------------------------------------------

    def _owners(self, keys: Iterable[RowKey]) -> dict[RowKey, EntityKey]:
        """The entity that each stored row is folded into."""
        ordered = sorted(keys)
        if not ordered:
            return {}
        found = self._connection.execute(
            """select s.tenant, s.record, s.key, s.entity_kind, s.entity_key
                 from unnest(%s::text[], %s::text[], %s::text[]) as k (tenant, record, key)
                 join source_row s using (tenant, record, key)""",
            _columns(ordered, 3),
        )
        return {RowKey(*row[:3]): EntityKey(row[0], row[3], row[4]) for row in found}

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
                 select e.tenant, e.kind, e.key, e.version, e.content_hash
                   from unnest(%s::text[], %s::text[], %s::text[]) as k (tenant, kind, key)
                   join entity e using (tenant, kind, key)
                  order by e.tenant, e.kind, e.key for update of e)
               select locked.*, greatest(version + 1, floor + 1, (extract(epoch from clock_timestamp()) * 1000000)::bigint)
                 from locked cross join mirror""",
            keys,
        )
        for tenant, kind, key, version, content_hash, next_version in locked:
            name = EntityKey(tenant, kind, key)
            self._entities[name] = EntityRow(name, version, content_hash, next_version)
        if len(self._entities) != len(entities):
            raise MirrorClosed("the mirror has no floor; it was emptied")

    def _read_rows(self) -> None:
        found = self._connection.execute(
            """select s.tenant, s.record, s.key, s.key_columns, s.entity_kind, s.entity_key, s.columns, s.deleted,
                      s.channel, s.incarnation, s.position, s.as_of_from, s.as_of_to, s.snapshot, s.positions
                 from unnest(%s::text[], %s::text[], %s::text[]) as k (tenant, kind, key)
                 join source_row s on (s.tenant, s.entity_kind, s.entity_key) = (k.tenant, k.kind, k.key)""",
            _columns(self._entities, 3),
        )
        for row in found:
            key = RowKey(row[0], row[1], row[2])
            entity = EntityKey(row[0], row[4], row[5])
            self._rows[key] = StoredRow(key, row[3], entity, row[6], row[7], order.token(row[8:14]), row[14])

    def _refuse_moved(self, keys: Iterable[RowKey]) -> None:
        """A row that we have not read although it exists has moved to, or come to life in, an entity that is not locked."""
        elsewhere = self._owners(key for key in keys if key not in self._rows)
        if elsewhere:
            raise _Moved(set(elsewhere.values()))

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
        result.ambiguous += verdict.ambiguous
        before = (row.positions, row.order)
        row.positions = order.raised(row.positions, change.order)
        if verdict.age == "newer":
            row.order = change.order
        row.token_changed |= before != (row.positions, row.order)
        if verdict.age != "newer" or same:
            return frozenset()
        touched = frozenset({row.entity, entity})
        row.columns, row.deleted, row.entity, row.content_changed = columns, change.deleted, entity, True
        return touched

    def _insert(self, change: Change, result: Result) -> frozenset[EntityKey]:
        if change.entity is None:
            return frozenset()  # a deletion of a row that was never seen: there is nothing it could be deleted from
        result.stored.append(change)
        self._rows[row_key(change)] = StoredRow(
            row_key(change),
            change.key,
            change.entity,
            change.columns,
            change.deleted,
            change.order,
            order.raised({}, change.order),
            is_new=True,
        )
        return frozenset({change.entity})

    def _issue(self, requests: Sequence[Request]) -> list[OutboxRow]:
        """Fold what was touched; give a version to what differs from before."""
        forced = {entity for request in requests for entity in request.republish}
        touched = forced.union(*(touch.entities for touch in self._touches))
        rows_of: dict[EntityKey, list[StoredRow]] = {entity: [] for entity in touched}
        for _, row in sorted(self._rows.items()):
            if row.entity in touched:
                rows_of[row.entity].append(row)
        causes = self._causes(requests)
        outbox = []
        for key in sorted(touched):
            if not self._fold_entity(self._entities[key], rows_of[key], causes[key], key in forced):
                continue
            if self._emit:
                outbox.append(self._event(self._entities[key], rows_of[key], causes[key].source))
            else:
                self._leave_for_later(self._entities[key], rows_of[key])
        return outbox

    def _fold_entity(self, entity: EntityRow, rows: Sequence[StoredRow], cause: Request, forced: bool) -> bool:
        """Whether the entity has a new version now."""
        folded = self._fold(entity.key.kind, entity.key, [row.as_mirror_row() for row in rows])
        state = {name: value for name, value in folded.items() if value is not None}
        content_hash = codec.content_hash({"tenant": entity.key.tenant, **state})
        if content_hash == entity.content_hash and not forced:
            return False
        entity.version, entity.content_hash, entity.issued = entity.next_version, content_hash, True
        entity.state, entity.accepted_at, entity.occurred_at = state, cause.accepted_at, _occurred_at(rows)
        return True

    @staticmethod
    def _leave_for_later(entity: EntityRow, rows: Sequence[StoredRow]) -> None:
        """No hash says that the state is still to be emitted; and until it is, R2 must not hold for its rows."""
        entity.content_hash = None
        for row in rows:
            row.content_changed = True

    def _causes(self, requests: Sequence[Request]) -> dict[EntityKey, Request]:
        """The first request that touched each entity: freshness counts from the oldest change in an event."""
        causes: dict[EntityKey, Request] = {}
        for touch in self._touches:
            for entity in touch.entities:
                causes.setdefault(entity, requests[touch.request])
        for request in requests:
            for entity in request.republish:
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
            text_array(row.entity.kind for row in rows),
            text_array(row.entity.key for row in rows),
            json_array(row.columns for row in rows),
            plain_array(row.deleted for row in rows),
            text_array(token.channel for token in orders),
            text_array(token.incarnation for token in orders),
            plain_array(token.position for token in orders),
            plain_array(token.as_of_from for token in orders),
            plain_array(token.as_of_to for token in orders),
            plain_array(token.snapshot for token in orders),
            json_array(row.positions for row in rows),
            plain_array(self._entities[row.entity].version if row.is_new or row.content_changed else None for row in rows),
        ]

    def _write_entities(self) -> None:
        issued = [entity for _, entity in sorted(self._entities.items()) if entity.issued]
        if not issued:
            return
        self._connection.execute(
            """update entity e
                  set version = v.version, content_hash = v.content_hash, state = v.state,
                      occurred_at = v.occurred_at, accepted_at = v.accepted_at, updated_at = clock_timestamp()
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
        events = [{issued[key] for key in request.republish if key in issued} for request in requests]
        for touch in self._touches:
            mine = {issued[key] for key in touch.entities if key in issued}
            results[touch.request].changed += bool(mine)
            results[touch.request].unchanged += not mine
            events[touch.request] |= mine
        for result, keys in zip(results, events, strict=True):
            result.events = sorted(keys)


_VALUE_COLUMNS = (
    "entity_kind, entity_key, columns, deleted, channel, incarnation, position, as_of_from, as_of_to, snapshot, positions, "
    "applied_version"
)
_VALUE_ARRAYS = (
    "%s::text[], %s::text[], %s::jsonb[], %s::boolean[], %s::text[], %s::text[], %s::bigint[], %s::timestamptz[], "
    "%s::timestamptz[], %s::boolean[], %s::jsonb[], %s::bigint[]"
)


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
