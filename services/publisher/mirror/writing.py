"""What ends a transaction of the mirror: rows, entities and outbox in one statement.

Values travel as JSON documents, one for each table. Array literals, one for each column, cost ten times as much to make: in them
every quotation mark of a JSON value and every byte of an event has to be escaped, and every time turned into text.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, LiteralString, NamedTuple

import orjson

from schemas.keys import EntityKey
from services.kit.postgres import Connection
from services.publisher.mirror.nouns import EntityRow, Left, Locked, Moved, OutboxRow, StoredRow


class _Part(NamedTuple):
    """One table's share of the statement."""

    name: LiteralString
    sql: LiteralString
    parameters: list[str | bytes]


def write(connection: Connection, locked: Locked, outbox: Sequence[OutboxRow]) -> None:
    """Whatever differs from what was locked, and the outbox. Raises `Moved`."""
    rows = [row for _, row in sorted(locked.rows.items())]
    entities = [entity for _, entity in sorted(locked.entities.items())]
    values = _RowValues(locked.entities)
    new = [values.of_new(row) for row in rows if row.is_new]
    parts = [
        _part("new_row", _INSERT_ROWS, new),
        _part("known_row", _UPDATE_ROWS, [values.of_known(row) for row in rows if not row.is_new and row.changed]),
        _part("issued", _ISSUE, [_issued(entity) for entity in entities if entity.issued]),
        _part("marked", _MARK, [_marked(entity) for entity in entities if entity.unfoldable]),
        _part("sent", _SEND, _sent(outbox), b"".join(row.value for row in outbox)),
    ]
    needed = [part for part in parts if part is not None]
    if not needed:
        return
    written = connection.execute(
        f"with {', '.join(f'{part.name} as ({part.sql} returning true)' for part in needed)} "  # noqa: S608
        f"select {'count(*) from new_row' if new else '0'}",
        [parameter for part in needed for parameter in part.parameters],
    ).fetchone()
    if written != (len(new),):
        raise Moved("what was not found where it had been looked for is stored elsewhere")


def _part(name: LiteralString, sql: LiteralString, values: Sequence[dict[str, Any]], *more: bytes) -> _Part | None:
    return _Part(name, sql, [orjson.dumps(values).decode(), *more]) if values else None


_ROW = """tenant text, record text, key text, key_columns jsonb, entity_kind text, entity_key text, columns jsonb,
    deleted boolean, left_entities jsonb, seen_version bigint, channel text, incarnation text, position bigint,
    as_of_from timestamptz, as_of_to timestamptz, snapshot boolean, positions jsonb, applied_version bigint"""
_INSERT_ROWS = f"""
    insert into source_row (tenant, record, key, key_columns, entity_kind, entity_key, columns, deleted, left_entities,
      seen_version, channel, incarnation, position, as_of_from, as_of_to, snapshot, positions, applied_version)
    select * from json_to_recordset(%s::json) as v ({_ROW})
        on conflict do nothing"""  # noqa: S608  (constants of this module)
_UPDATE_ROWS = f"""
    update source_row s
       set entity_kind = v.entity_kind, entity_key = v.entity_key, columns = v.columns, deleted = v.deleted,
           left_entities = v.left_entities, seen_version = v.seen_version, channel = v.channel, incarnation = v.incarnation,
           position = v.position, as_of_from = v.as_of_from, as_of_to = v.as_of_to, snapshot = v.snapshot,
           positions = v.positions, applied_version = coalesce(v.applied_version, s.applied_version),
           updated_at = clock_timestamp()
      from json_to_recordset(%s::json) as v ({_ROW})
     where (s.tenant, s.record, s.key) = (v.tenant, v.record, v.key)"""  # noqa: S608
_ISSUE = """
    update entity e
       set version = v.version, content_hash = v.content_hash, status = coalesce(v.status, e.status), unfoldable = null,
           updated_at = clock_timestamp()
      from json_to_recordset(%s::json)
        as v (tenant text, kind text, key text, version bigint, content_hash text, status text)
     where (e.tenant, e.kind, e.key) = (v.tenant, v.kind, v.key)"""
_MARK = """
    update entity e set unfoldable = v.reason, updated_at = clock_timestamp()
      from json_to_recordset(%s::json) as v (tenant text, kind text, key text, reason text)
     where (e.tenant, e.kind, e.key) = (v.tenant, v.kind, v.key)"""
# The events themselves are one text; each row says where its own begins.
_SEND = """
    insert into outbox (tenant, kind, key, version, topic, record_key, headers, value)
    select tenant, kind, key, version, topic, convert_to(record_key, 'UTF8'), headers, substring(events from "start" for length)
      from json_to_recordset(%s::json)
        as v (tenant text, kind text, key text, version bigint, topic text, record_key text, headers jsonb,
              "start" int, length int)
     cross join (select %s::bytea as events) as one"""


class _RowValues:
    """Rows as `_ROW` has them."""

    def __init__(self, entities: dict[EntityKey, EntityRow]) -> None:
        self._entities = entities

    def of_new(self, row: StoredRow) -> dict[str, Any]:
        return self._values(row, self._applied_version(row))

    def of_known(self, row: StoredRow) -> dict[str, Any]:
        """The applied version stays (None) where only the token moved."""
        return self._values(row, self._applied_version(row) if row.content_changed else None)

    def _values(self, row: StoredRow, applied_version: int | None) -> dict[str, Any]:
        order, entity = row.order, row.entity
        return {
            "tenant": row.key.tenant,
            "record": row.key.record,
            "key": row.key.key,
            "key_columns": row.key_columns,
            "entity_kind": entity and entity.kind,
            "entity_key": entity and entity.key,
            "columns": row.columns,
            "deleted": row.deleted,
            "left_entities": self._left(row),
            "seen_version": row.seen_version,
            "channel": order.channel,
            "incarnation": order.incarnation,
            "position": order.position,
            "as_of_from": order.as_of_from,
            "as_of_to": order.as_of_to,
            "snapshot": order.snapshot,
            "positions": row.positions,
            "applied_version": applied_version,
        }

    def _applied_version(self, row: StoredRow) -> int:
        return self._entities[row.entity].version if row.entity is not None else 0

    def _left(self, row: StoredRow) -> list[Left]:
        """Every move away from an entity that has a version for it."""
        if not row.leaves:
            return row.left
        news = [self._entities[entity] for entity in sorted(row.leaves - {row.entity}) if self._entities[entity].issued]
        return row.left + [Left(kind=entity.key.kind, key=entity.key.key, version=entity.version) for entity in news]


def _issued(entity: EntityRow) -> dict[str, Any]:
    return entity.key._asdict() | {"version": entity.version, "content_hash": entity.content_hash, "status": entity.status}


def _marked(entity: EntityRow) -> dict[str, Any]:
    return entity.key._asdict() | {"reason": entity.unfoldable}


def _sent(outbox: Sequence[OutboxRow]) -> list[dict[str, Any]]:
    starts = accumulate((len(row.value) for row in outbox), initial=1)
    return [
        {
            **row.key._asdict(),
            "topic": row.topic,
            "record_key": row.record_key.decode(),
            "headers": row.headers,
            "start": start,
            "length": len(row.value),
        }
        for row, start in zip(outbox, starts, strict=False)
    ]
