"""How a replay turned out: the verdict of every offset or seat, with what was opened as it is now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from psycopg.rows import class_row

from services.consumer.ledger.reopening import SEATS_OF_ENTITIES
from services.consumer.ledger.replays import Verdict
from services.consumer.nouns import SATISFIED
from services.kit.postgres import Connection

FinalVerdict = Literal["applied", "in_progress", "still_failing"] | Verdict
"""What a reader of the report sees. `reopened` remains only in a dry run: the record would be re-opened."""


@dataclass(frozen=True, slots=True)
class Line:
    """One offset, or one seat, of the report. An offset's line names nobody."""

    line: int
    """Counts from 1."""
    partition: int | None
    offset: int | None
    target: str | None
    seat: str | None
    verdict: FinalVerdict
    reason: str | None
    """Of `still_failing` the state of the worst seat's work and its reason."""
    kind: str | None
    version: int | None
    superseded_by: int | None
    superseded_at_offset: int | None


def counts(connection: Connection, replay: UUID) -> dict[str, int]:
    """How many offsets or seats ended with each verdict; only those that occur."""
    rows = connection.execute(_LINES + "select verdict, count(*) from line group by verdict", [replay, 0, None])  # noqa: S608
    return dict(sorted(rows.fetchall()))


def lines(connection: Connection, replay: UUID, after: int, limit: int) -> list[Line]:
    """The next `limit` lines behind `after`, in order."""
    with connection.cursor(row_factory=class_row(Line)) as cursor:
        query = _LINES + "select * from line order by line"  # noqa: S608
        return cursor.execute(query, [replay, after + 1, limit]).fetchall()


# What was opened is judged by the seats as they are now, because the driver works after the replay has passed. One line after the
# other, by index: joined as sets, a planner that knows nothing about a young replay compares every record with every seat.
_LINES = f"""
with chosen as (
  select l.*, l.verdict = 'reopened' and not replay.dry_run as follows
    from replay_line l join replay using (replay)
   where l.replay = %s and l.line >= %s order by l.line limit %s
), line as (
  select chosen.line, chosen."partition", chosen."offset", chosen.target, chosen.seat,
         case when not follows then chosen.verdict
              when newest.version > chosen.version then 'superseded'
              when standing.failing is not null then 'still_failing'
              when coalesce(standing.applied, true) then 'applied'
              else 'in_progress' end as verdict,
         case when not follows then chosen.reason
              when newest.version > chosen.version then null
              else substr(standing.failing, 2) end as reason,
         chosen.kind, chosen.version,
         case when follows then nullif(greatest(newest.version, chosen.version), chosen.version)
              else chosen.superseded_by end as superseded_by,
         case when not follows then chosen.superseded_at_offset
              when newest.version > chosen.version then newest."offset" end as superseded_at_offset
    from chosen
    left join lateral (
      select version, "offset" from entity
       where follows and (entity.tenant, entity.kind, entity.key) = (chosen.tenant, chosen.kind, chosen.key)
       union all
      select version, null from seat where follows and (seat.target, seat.seat) = (chosen.target, chosen.seat)
    ) newest on true
    left join lateral (
      with asked as (select chosen.tenant, chosen.kind, chosen.key where chosen.follows), {SEATS_OF_ENTITIES}
      select bool_and({SATISFIED} and work.seat is null) as applied,
             min(case work.state when 'dead' then '1' when 'held' then '2' when 'waiting' then '3' when 'retrying' then '4' end
                 || work.state || coalesce(': ' || coalesce(work.reason, work.waits_kind || ' missing'), '')) as failing
        from (select target, seat from of_entity union select chosen.target, chosen.seat) as concerned
        join seat using (target, seat)
        left join work using (target, seat)
    ) standing on follows and newest.version = chosen.version
)
"""  # noqa: S608  (built from constants)
