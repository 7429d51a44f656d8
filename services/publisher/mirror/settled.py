"""Rule R2: when may a request be answered 2xx?

When one read shows every source row of the request at its token or newer, and contained in a version that Kafka has; what a row
has left must have said so in Kafka, too. It is asked of the database and not of this process's memory, so it also holds for a
duplicate of a change that is still on its way, for another process's change, and after a database that came back with less than
it had.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import orjson

from schemas.events import OrderToken
from services.kit.postgres import Connection
from services.publisher.changes import Change
from services.publisher.mirror import order
from services.publisher.mirror.nouns import RowKey, row_key

Shown = Literal["published", "waiting", "missing"]
"""``missing``: a row is not there, or older than the change; fold again. ``waiting``: all there, not all of it published."""


class _Row(NamedTuple):
    """One row as the read found it."""

    token: OrderToken
    positions: dict[str, int]
    published: bool


def read(connection: Connection, requests: Sequence[Sequence[Change]]) -> list[Shown]:
    """What the database shows of each request's changes, in one statement for all.

    Nearly all rows are as the request has left them, and published: the statement brings only the others.
    """
    asked = [_asked(change) for changes in requests for change in changes]
    # An event that Kafka refused for good is a dead letter and waits for a person, as does an entity that cannot be folded; the
    # source has done its part.
    found = connection.execute(
        """with found as (
             select k.tenant, k.record, k.key, s.channel, s.incarnation, s.position, s.as_of_from, s.as_of_to, s.snapshot,
                    s.positions,
                    (e.key is null
                     or s.applied_version <= e.published_version
                     or exists (select from outbox o
                                 where (o.tenant, o.kind, o.key) = (e.tenant, e.kind, e.key)
                                   and o.version >= s.applied_version and o.dead_reason is not null)
                     or (e.unfoldable is not null
                         and not exists (select from outbox o
                                          where (o.tenant, o.kind, o.key) = (e.tenant, e.kind, e.key)
                                            and o.dead_reason is null)))
                    and (s.left_entities = '[]' or not exists (
                      select from jsonb_to_recordset(s.left_entities) as l (kind text, key text, version bigint)
                        join entity x on (x.tenant, x.kind, x.key) = (s.tenant, l.kind, l.key)
                       where x.published_version < l.version
                         and not exists (select from outbox o
                                          where (o.tenant, o.kind, o.key) = (x.tenant, x.kind, x.key)
                                            and o.version >= l.version and o.dead_reason is not null))) as published,
                    (s.channel, s.incarnation, s.snapshot) = (k.channel, k.incarnation, k.snapshot)
                    and s.position is not distinct from k.position
                    and s.as_of_from is not distinct from k.as_of_from
                    and s.as_of_to is not distinct from k.as_of_to as same
               from json_to_recordset(%s::json)
                 as k (tenant text, record text, key text, channel text, incarnation text, position bigint,
                       as_of_from timestamptz, as_of_to timestamptz, snapshot boolean)
               left join source_row s using (tenant, record, key)
               left join entity e on (e.tenant, e.kind, e.key) = (s.tenant, s.entity_kind, s.entity_key))
           select * from found where (published and same) is not true""",
        [orjson.dumps(asked).decode()],
    )
    doubtful = {RowKey(*row[:3]): _Row(order.token(row[3:9]), row[9], row[10]) if row[3] is not None else None for row in found}
    return [_shown(changes, doubtful) for changes in requests]


def _asked(change: Change) -> dict[str, Any]:
    token = change.order
    return {
        "tenant": change.tenant,
        "record": change.record,
        "key": change.row_key,
        "channel": token.channel,
        "incarnation": token.incarnation,
        "position": token.position,
        "as_of_from": token.as_of_from,
        "as_of_to": token.as_of_to,
        "snapshot": token.snapshot,
    }


def _shown(changes: Sequence[Change], doubtful: Mapping[RowKey, _Row | None]) -> Shown:
    shown: Shown = "published"
    for change in changes if doubtful else ():
        key = row_key(change)
        if key not in doubtful:
            continue
        row = doubtful[key]
        if row is None or not order.shows(row.token, row.positions, change.order):
            return "missing"
        if not row.published:
            shown = "waiting"
    return shown
