"""The mirror's tables within one transaction: lock and read what the requests touch, later write what has changed."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from schemas.keys import EntityKey, EntityKind
from services.kit.postgres import Connection, text_array
from services.publisher.mirror import order
from services.publisher.mirror.database import bytes_array, json_array, plain_array
from services.publisher.mirror.nouns import EntityRow, Left, Locked, OutboxRow, Request, RowKey, StoredRow, row_key


class MirrorClosed(RuntimeError):
    """The database is not an opened mirror (any more); it has to be recovered before anything is written."""


class Moved(Exception):
    """A row belongs to an entity that is not locked: roll back, and lock these as well."""

    def __init__(self, entities: Collection[EntityKey]) -> None:
        super().__init__("a source row moved")
        self.entities = entities


_LEAD_MICROSECONDS = 30 * 1_000_000
"""Versions begin at random within so much above the floor, while that is ahead of the clock: within two minutes of a recovery.
A mirror that is put back to a moment in that time, when the log has lost what came after, would else count on from the same
floor, and give a version that is out a second time to another state. Less than what a recovery raises the floor by."""


class Tables:
    """Of one transaction, which somebody else begins and ends. With `floor`, only while that is the mirror's."""

    def __init__(self, connection: Connection, floor: int | None) -> None:
        self._connection = connection
        self._floor = floor
        self._rows: dict[RowKey, StoredRow] = {}
        self._entities: dict[EntityKey, EntityRow] = {}

    def lock(self, requests: Sequence[Request], hints: Collection[EntityKey]) -> Locked:
        """Everything that the requests touch, and the `hints`. Raises `Moved`, or `MirrorClosed`."""
        keys = {row_key(change) for request in requests for change in request.changes}
        wanted = {change.entity for request in requests for change in request.changes if change.entity is not None}
        wanted.update(*(request.republish for request in requests), *(request.returned for request in requests))
        owners = self._owners(keys)
        self._lock(wanted.union(hints, (entity for entity in owners.values() if entity is not None)))
        self._read_rows()
        self._read_homeless([key for key, entity in owners.items() if entity is None])
        self._refuse_moved(keys)
        return Locked(self._rows, self._entities)

    def write(self, outbox: Sequence[OutboxRow]) -> None:
        """What has changed since, and the outbox. Raises `Moved`."""
        self._write_rows()
        self._write_entities()
        self._write_outbox(outbox)

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
               select locked.*, floor,
                      greatest(version + 1, floor + 1 + lead, (extract(epoch from clock_timestamp()) * 1000000)::bigint)
                 from locked cross join mirror cross join (select %s::bigint as lead) as apart""",
            [*keys, int(random.random() * _LEAD_MICROSECONDS)],  # noqa: S311
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
            raise Moved({entity for entity in elsewhere.values() if entity is not None})

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
                raise Moved(())  # somebody stored one of them under another entity meanwhile
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
