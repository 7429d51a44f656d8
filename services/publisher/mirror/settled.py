"""Rule R2: when may a request be answered 2xx?

When one read shows every source row of the request at its token or newer, and contained in a version that Kafka has; what a row
has left must have said so in Kafka, too. It is asked of the database and not of this process's memory, so it also holds for a
duplicate of a change that is still on its way, for another process's change, and after a database that came back with less than
it had.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from schemas.events import OrderToken
from services.kit.postgres import Connection, text_array
from services.publisher.changes import Change
from services.publisher.mirror import order
from services.publisher.mirror.nouns import RowKey, row_key

Shown = Literal["published", "waiting", "missing"]
"""``missing``: a row is not there, or older than the change; fold again. ``waiting``: all there, not all of it published."""


class _Row:
    """One row as the read found it."""

    def __init__(self, token: OrderToken, positions: dict[str, int], published: bool) -> None:
        self.token = token
        self.positions = positions
        self.published = published


def read(connection: Connection, requests: Sequence[Sequence[Change]]) -> list[Shown]:
    """What the database shows of each request's changes, in one statement for all."""
    keys = sorted({row_key(change) for changes in requests for change in changes})
    # An event that Kafka refused for good is a dead letter and waits for a person, as does an entity that cannot be folded; the
    # source has done its part.
    found = connection.execute(
        """select s.tenant, s.record, s.key, s.channel, s.incarnation, s.position, s.as_of_from, s.as_of_to, s.snapshot,
                  s.positions,
                  (e.key is null
                   or s.applied_version <= e.published_version
                   or exists (select from outbox o
                               where (o.tenant, o.kind, o.key) = (e.tenant, e.kind, e.key)
                                 and o.version >= s.applied_version and o.dead_reason is not null)
                   or (e.unfoldable is not null
                       and not exists (select from outbox o
                                        where (o.tenant, o.kind, o.key) = (e.tenant, e.kind, e.key) and o.dead_reason is null)))
                  and (s.left_entities = '[]' or not exists (
                    select from jsonb_to_recordset(s.left_entities) as l (kind text, key text, version bigint)
                      join entity x on (x.tenant, x.kind, x.key) = (s.tenant, l.kind, l.key)
                     where x.published_version < l.version
                       and not exists (select from outbox o
                                        where (o.tenant, o.kind, o.key) = (x.tenant, x.kind, x.key)
                                          and o.version >= l.version and o.dead_reason is not null)))
             from unnest(%s::text[], %s::text[], %s::text[]) as k (tenant, record, key)
             join source_row s using (tenant, record, key)
             left join entity e on (e.tenant, e.kind, e.key) = (s.tenant, s.entity_kind, s.entity_key)""",
        [text_array(key[column] for key in keys) for column in range(3)],
    )
    rows = {RowKey(*row[:3]): _Row(order.token(row[3:9]), row[9], row[10]) for row in found}
    return [_shown(changes, rows) for changes in requests]


def _shown(changes: Sequence[Change], rows: dict[RowKey, _Row]) -> Shown:
    shown: Shown = "published"
    for change in changes:
        row = rows.get(row_key(change))
        if row is None or not order.shows(row.token, row.positions, change.order):
            return "missing"
        if not row.published:
            shown = "waiting"
    return shown
