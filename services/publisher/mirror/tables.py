"""The mirror's tables within one transaction: lock and read what the requests touch; `writing` writes what has changed since."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from typing import Any

from schemas.keys import EntityKey, EntityKind
from services.kit.postgres import Connection
from services.publisher.mirror import order, writing
from services.publisher.mirror.database import text_columns
from services.publisher.mirror.nouns import EntityRow, Locked, OutboxRow, Request, RowKey, StoredRow, row_key


class MirrorClosed(RuntimeError):
    """The database is not an opened mirror (any more); it has to be recovered before anything is written."""


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

    def lock(self, requests: Sequence[Request]) -> Locked:
        """Everything that the requests touch. Raises `MirrorClosed`.

        A row that moves or comes to life meanwhile is not among what is read; `writing` notices when it is to be inserted.
        """
        changes = [change for request in requests for change in request.changes]
        owners = self._owners(dict.fromkeys(map(row_key, changes)))
        named = [change.entity for change in changes] + list(owners.values())
        wanted = dict.fromkeys(entity for entity in named if entity is not None)
        for request in requests:
            wanted |= dict.fromkeys((*request.republish, *request.returned))
        self._lock_and_read(sorted(wanted))
        self._read_homeless([key for key, entity in owners.items() if entity is None])
        return Locked(self._rows, self._entities)

    def write(self, outbox: Sequence[OutboxRow]) -> None:
        """What has changed since, and the outbox. Raises `Moved`."""
        writing.write(self._connection, Locked(self._rows, self._entities), outbox)

    def _owners(self, keys: Collection[RowKey]) -> dict[RowKey, EntityKey | None]:
        """The entity that each stored row is folded into; None for a tombstone that has none."""
        if not keys:
            return {}
        found = self._connection.execute(
            """select s.tenant, s.record, s.key, s.entity_kind, s.entity_key
                 from unnest(%s::text[], %s::text[], %s::text[]) as k (tenant, record, key)
                 join source_row s using (tenant, record, key)""",
            text_columns(keys),
        )
        return {RowKey(*row[:3]): _entity(row[0], row[3], row[4]) for row in found}

    def _lock_and_read(self, entities: Sequence[EntityKey]) -> None:
        if not entities:
            return
        keys = text_columns(entities)
        self._lock(entities, keys)
        self._read(keys)
        if len(self._entities) != len(entities):
            raise MirrorClosed("the mirror has no floor; it was emptied")

    def _lock(self, entities: Sequence[EntityKey], keys: list[str]) -> None:
        """Create what is missing and lock the rest, in the order of the database's own sort.

        An update whose condition is false changes nothing, but its row is locked (PostgreSQL documentation, INSERT).
        """
        self._connection.execute(
            """insert into entity as e (tenant, kind, key, institution, term, section, person)
               select * from unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[])
                as k (tenant, kind, key, institution, term, section, person) order by tenant, kind, key
               on conflict (tenant, kind, key) do update set version = e.version where false""",
            [*keys, *text_columns(map(_names, entities))],
        )

    def _read(self, keys: list[str]) -> None:
        """The locked entities, with all their rows. A statement of its own: what it sees was committed before it began."""
        found = self._connection.execute(
            f"""select e.tenant, e.kind, e.key, e.version, e.content_hash, e.unfoldable, floor,
                       greatest(version + 1, floor + 1 + lead, (extract(epoch from clock_timestamp()) * 1000000)::bigint),
                       {_ROW_COLUMNS}
                  from unnest(%s::text[], %s::text[], %s::text[]) as k (tenant, kind, key)
                  join entity e on (e.tenant, e.kind, e.key) = (k.tenant, k.kind, k.key)
                 cross join mirror cross join (select %s::bigint as lead) as apart
                  left join source_row s on (s.tenant, s.entity_kind, s.entity_key) = (k.tenant, k.kind, k.key)""",  # noqa: S608
            [*keys, int(random.random() * _LEAD_MICROSECONDS)],  # noqa: S311
        )
        for found_row in found:
            name, version, content_hash, unfoldable, floor, next_version = EntityKey(*found_row[:3]), *found_row[3:8]
            if self._floor != floor and self._floor is not None:
                raise MirrorClosed("another process has recovered the mirror")
            if name not in self._entities:
                self._entities[name] = EntityRow(name, version, content_hash, next_version, was_unfoldable=unfoldable is not None)
            if found_row[8] is not None:
                self._keep(found_row[8:])

    def _read_homeless(self, keys: Sequence[RowKey]) -> None:
        """Tombstones without an entity have nothing else to be locked by."""
        if not keys:
            return
        found = self._connection.execute(
            f"""select {_ROW_COLUMNS}
                  from unnest(%s::text[], %s::text[], %s::text[]) as k (tenant, record, key)
                  join source_row s using (tenant, record, key)
                 where s.entity_kind is null order by s.tenant, s.record, s.key for update of s""",  # noqa: S608
            text_columns(sorted(keys)),
        )
        for row in found:
            self._keep(row)

    def _keep(self, row: Sequence[Any]) -> None:
        """A row of `_ROW_COLUMNS`."""
        key, entity = RowKey(row[0], row[1], row[2]), _entity(row[0], row[4], row[5])
        self._rows[key] = StoredRow(
            key, row[3], entity, row[6], row[7], order.token(row[8:14]), row[14], row[15], row[16], row[17]
        )


_ROW_COLUMNS = """s.tenant, s.record, s.key, s.key_columns, s.entity_kind, s.entity_key, s.columns, s.deleted,
    s.channel, s.incarnation, s.position, s.as_of_from, s.as_of_to, s.snapshot, s.positions, s.applied_version, s.seen_version,
    case when s.left_entities <> '[]' then (
      select coalesce(jsonb_agg(l), '[]')
        from jsonb_to_recordset(s.left_entities) as l (kind text, key text, version bigint)
        join entity o on (o.tenant, o.kind, o.key) = (s.tenant, l.kind, l.key) and o.published_version < l.version)
    else s.left_entities end"""


def _entity(tenant: str, kind: EntityKind | None, key: str | None) -> EntityKey | None:
    return EntityKey(tenant, kind, key) if kind is not None and key is not None else None


def _names(key: EntityKey) -> tuple[str | None, str | None, str | None, str | None]:
    """Institution, term, section and person of an entity, as far as its kind has them; a republish selects by them."""
    parts = key.parts
    if key.kind == "person":
        return None, None, None, parts[0]
    if key.kind == "course":
        return parts[0], None, None, None
    padded: list[str | None] = [*parts[:4], None, None, None]
    return padded[0], padded[1], padded[2], padded[3]
