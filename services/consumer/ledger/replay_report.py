"""How a replay turned out: the verdict of every offset, with the seats of re-opened records as they are now."""

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
    """One offset of the report; names nobody."""

    offset: int
    verdict: FinalVerdict
    reason: str | None
    """Of `still_failing` the state of the worst seat's work and its reason."""
    kind: str | None
    version: int | None
    superseded_by: int | None
    superseded_at_offset: int | None


def counts(connection: Connection, replay: UUID) -> dict[str, int]:
    """How many offsets ended with each verdict; only those that occur."""
    rows = connection.execute(_LINES + "select verdict, count(*) from line group by verdict", [replay, 0, None])  # noqa: S608
    return dict(sorted(rows.fetchall()))


def lines(connection: Connection, replay: UUID, after: int, limit: int) -> list[Line]:
    """The next `limit` offsets above `after`, in order."""
    with connection.cursor(row_factory=class_row(Line)) as cursor:
        query = _LINES + 'select * from line order by "offset"'  # noqa: S608
        return cursor.execute(query, [replay, after + 1, limit]).fetchall()


# A record is judged against the seats as they are now, because the driver works after the replay has passed. One record after the
# other, by index: joined as sets, a planner that knows nothing about a young replay compares every record with every seat.
_LINES = f"""
with chosen as (
  select r.*, r.verdict = 'reopened' and not replay.dry_run as follows
    from replay_record r join replay using (replay)
   where r.replay = %s and r."offset" >= %s order by r."offset" limit %s
), line as (
  select chosen."offset",
         case when not follows then chosen.verdict
              when entity.version > chosen.version then 'superseded'
              when standing.failing is not null then 'still_failing'
              when coalesce(standing.applied, true) then 'applied'
              else 'in_progress' end as verdict,
         case when not follows then chosen.reason
              when entity.version > chosen.version then null
              else substr(standing.failing, 2) end as reason,
         chosen.kind, chosen.version,
         case when follows then nullif(greatest(entity.version, chosen.version), chosen.version)
              else chosen.superseded_by end as superseded_by,
         case when not follows then chosen.superseded_at_offset
              when entity.version > chosen.version then entity."offset" end as superseded_at_offset
    from chosen
    left join entity
      on follows and (entity.tenant, entity.kind, entity.key) = (chosen.tenant, chosen.kind, chosen.key)
    left join lateral (
      with asked as (select chosen.tenant, chosen.kind, chosen.key where chosen.follows), {SEATS_OF_ENTITIES}
      select bool_and({SATISFIED} and work.seat is null) as applied,
             min(case work.state when 'dead' then '1' when 'held' then '2' when 'waiting' then '3' when 'retrying' then '4' end
                 || work.state || coalesce(': ' || coalesce(work.reason, work.waits_kind || ' missing'), '')) as failing
        from of_entity
        join seat using (target, seat)
        left join work using (target, seat)
    ) standing on follows and entity.version = chosen.version
)
"""  # noqa: S608  (built from constants)
