"""Comparisons, as people and the schedule start, watch and cancel them. Every function runs in the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Literal, NamedTuple
from uuid import UUID

import orjson

from schemas import keys
from services.consumer.ledger.policies import Policies
from services.kit.postgres import Connection, text_array

RunState = Literal["running", "done", "cancelled"]


class Scope(NamedTuple):
    """What is compared: everything, an institution's term, or one section of it."""

    institution: str | None = None
    term: str | None = None
    section: str | None = None

    @property
    def prefix(self) -> str:
        """What the keys of its sections, with a slash behind them, begin with."""
        parts = [part for part in self if part is not None]
        return keys.join(*parts) + "/" if parts else ""

    def as_json(self) -> str:
        """As it is stored; ``{}`` for everything."""
        named = {name: part for name, part in self._asdict().items() if part is not None}
        return orjson.dumps(named, option=orjson.OPT_SORT_KEYS).decode()


class Run(NamedTuple):
    """One comparison."""

    run: UUID
    scope: dict[str, str]
    repair: bool
    state: RunState
    actor: str
    created_at: datetime
    finished_at: datetime | None
    sections: int
    open: int
    """Sections that are still to be read."""
    missing: int
    """Sections that the LMS does not have."""
    failed: int
    """Sections that could not be read."""
    people: int
    """Rows of the rosters read so far."""
    untold: int
    """Seats of which they say nothing for certain: in motion, being worked on, or not to be read."""
    differences: int
    repairs: int


class AlreadyRunning(Exception):
    """One comparison at a time: they share the token's quota."""

    def __init__(self, run: UUID) -> None:
        super().__init__(run)
        self.run = run


def is_over(tenant: str, section: str) -> str:
    """An SQL expression: whether two weeks have passed since the last day of the term, as far as the student system has told it,
    in which a section lies. Both are expressions; the section's key text, or its term's."""
    return f"""exists (
   select from entity as term
    where term.tenant = {tenant} and term.kind = 'term'
      and term.key = split_part({section}, '/', 1) || '/' || split_part({section}, '/', 2)
      and (term.event ->> 'end_date')::date < current_date - 14)"""


_SEATS = f"""
select distinct on (lms_section) lms_section, tenant, section from seat
 where target = %(target)s and starts_with(section || '/', %(prefix)s)
   and (%(ended_terms)s or not {is_over("seat.tenant", "seat.section")})
 order by lms_section, section
"""  # noqa: S608  (an expression of ours)
# Classes without a member are read as well: somebody may have been put there by hand.
_CLASSES = f"""
select tenant, key from entity
 where kind = 'section' and starts_with(key || '/', %(prefix)s) and event ->> 'status' in ('active', 'tentative')
   and (%(ended_terms)s or not {is_over("entity.tenant", "entity.key")})
 order by tenant, key
"""  # noqa: S608  (an expression of ours)
_RUNNING = "select run from roster_run where target = %s and state = 'running'"
_START = "insert into roster_run (target, run, scope, repair, actor) values (%s, %s, %s::jsonb, %s, %s)"
_ADD = """
insert into roster_section (target, run, lms_section, tenant, section)
select %s, %s, * from unnest(%s::text[], %s::text[], %s::text[])
"""
_RUNS = """
select roster_run.run, scope, repair, roster_run.state, actor, created_at, finished_at, told.sections, told.open, told.missing,
       told.failed, told.people, told.untold, told.differences, repairs
  from roster_run
 cross join lateral (
   select count(*)::int as sections, count(*) filter (where state = 'open')::int as open,
          count(*) filter (where state = 'missing')::int as missing, count(*) filter (where state = 'failed')::int as failed,
          coalesce(sum(people), 0)::int as people, coalesce(sum(untold), 0)::int as untold,
          coalesce(sum(differences), 0)::int as differences
     from roster_section where roster_section.target = roster_run.target and roster_section.run = roster_run.run) as told
 where roster_run.target = %(target)s
"""
_CANCEL = """
update roster_run set state = 'cancelled', finished_at = clock_timestamp() where target = %s and run = %s and state = 'running'
"""
_IS_DUE = """
select last.began < recovery.ended_at or clock_timestamp() - last.began >= %(every_seconds)s * interval '1 second'
  from (select coalesce(
          (select max(created_at) from roster_run
            where target = %(target)s and scope = '{}' and repair and state <> 'cancelled'),
          (select min(created_at) from policy)) as began) as last
  left join recovery on true
 where recovery.active is not true
"""
_OLD = """
delete from roster_run where target = %s and state <> 'running' and created_at < clock_timestamp() - interval '90 days'
"""


def start(
    connection: Connection,
    target: str,
    run: UUID,
    scope: Scope,
    policies: Policies,
    actor: str,
    *,
    repair: bool,
    ended_terms: bool = True,
) -> int:
    """Begin a comparison, with or without terms that are over; how many sections it has. Raises `AlreadyRunning`."""
    connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"roster {target}"])
    running = connection.execute(_RUNNING, [target]).fetchone()
    if running is not None:
        raise AlreadyRunning(running[0])
    connection.execute(_START, [target, run, scope.as_json(), repair, actor])
    sections = _sections(connection, policies, {"target": target, "prefix": scope.prefix, "ended_terms": ended_terms})
    if sections:
        columns = [text_array(column) for column in zip(*sections, strict=True)]
        connection.execute(_ADD, [target, run, *columns])
    return len(sections)


def _sections(connection: Connection, policies: Policies, asked: Mapping[str, object]) -> list[tuple[str, str, str]]:
    """(LMS section, tenant, section key text), those with seats and those that the student system knows."""
    found = {row[0]: row for row in connection.execute(_SEATS.encode(), asked).fetchall()}
    active = policies.active(connection)
    for tenant, key in connection.execute(_CLASSES.encode(), asked).fetchall():
        if tenant in active:
            lms_section = active[tenant].policy.lms_section(tenant, key)
            found.setdefault(lms_section, (lms_section, tenant, key))
    return sorted(found.values())


def cancel(connection: Connection, target: str, run: UUID) -> bool:
    """End it before its time; False when it is over or there is none."""
    return connection.execute(_CANCEL, [target, run]).rowcount == 1


def read(connection: Connection, target: str, run: UUID) -> Run | None:
    """One comparison."""
    row = connection.execute(_RUNS + " and roster_run.run = %(run)s", {"target": target, "run": run}).fetchone()
    return Run(*row) if row else None


def find(connection: Connection, target: str, limit: int) -> list[Run]:
    """Comparisons, the newest first."""
    newest = _RUNS + " order by created_at desc, roster_run.run limit %(limit)s"
    return [Run(*row) for row in connection.execute(newest, {"target": target, "limit": limit}).fetchall()]


def failed(connection: Connection, target: str, run: UUID, limit: int) -> list[tuple[str, str]]:
    """Sections that could not be read, as the LMS calls them, with the outcome of the last attempt."""
    return connection.execute(
        """select lms_section, coalesce(code, '') from roster_section
            where target = %s and run = %s and state = 'failed' order by lms_section limit %s""",
        [target, run, limit],
    ).fetchall()


def is_due(connection: Connection, target: str, every_seconds: float) -> bool:
    """Whether everything is to be compared, and repaired, without being asked.

    So long after the last time, or after the ledger was made; and after a recovery, because what the ledger lost without a trace
    (an override, say) only a roster shows.
    """
    row = connection.execute(_IS_DUE, {"target": target, "every_seconds": every_seconds}).fetchone()
    return bool(row and row[0])


def forget_old(connection: Connection, target: str) -> None:
    """Comparisons are kept for 90 days."""
    connection.execute(_OLD, [target])
