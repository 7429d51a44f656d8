"""Comparisons, as people and the schedule start, watch and cancel them. Every function runs in the caller's transaction."""

from __future__ import annotations

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
    differences: int
    repairs: int


class AlreadyRunning(Exception):
    """One comparison at a time: they share the token's quota."""

    def __init__(self, run: UUID) -> None:
        super().__init__(run)
        self.run = run


_SEATS = """
select distinct on (lms_section) lms_section, tenant, section from seat
 where target = %(target)s and starts_with(section || '/', %(prefix)s) order by lms_section, section
"""
# Classes without a member are read as well: somebody may have been put there by hand.
_CLASSES = """
select tenant, key from entity
 where kind = 'section' and starts_with(key || '/', %(prefix)s) and event ->> 'status' in ('active', 'tentative')
 order by tenant, key
"""
_RUNNING = "select run from roster_run where target = %s and state = 'running'"
_START = "insert into roster_run (target, run, scope, repair, actor) values (%s, %s, %s::jsonb, %s, %s)"
_ADD = """
insert into roster_section (target, run, lms_section, tenant, section)
select %s, %s, * from unnest(%s::text[], %s::text[], %s::text[])
"""
_RUNS = """
select roster_run.run, scope, repair, roster_run.state, actor, created_at, finished_at, told.sections, told.open, told.missing,
       told.failed, told.people, told.differences, repairs
  from roster_run
 cross join lateral (
   select count(*)::int as sections, count(*) filter (where state = 'open')::int as open,
          count(*) filter (where state = 'missing')::int as missing, count(*) filter (where state = 'failed')::int as failed,
          coalesce(sum(people), 0)::int as people, coalesce(sum(differences), 0)::int as differences
     from roster_section where roster_section.target = roster_run.target and roster_section.run = roster_run.run) as told
 where roster_run.target = %(target)s
"""
_CANCEL = """
update roster_run set state = 'cancelled', finished_at = clock_timestamp() where target = %s and run = %s and state = 'running'
"""
_LAST = """
select extract(epoch from clock_timestamp() - coalesce(
         (select max(created_at) from roster_run where target = %s), (select min(created_at) from policy)))::float8
"""
_OLD = """
delete from roster_run where target = %s and state <> 'running' and created_at < clock_timestamp() - interval '90 days'
"""


def start(connection: Connection, target: str, run: UUID, scope: Scope, policies: Policies, actor: str, *, repair: bool) -> int:
    """Begin a comparison; how many sections it has. Raises `AlreadyRunning`."""
    connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"roster {target}"])
    running = connection.execute(_RUNNING, [target]).fetchone()
    if running is not None:
        raise AlreadyRunning(running[0])
    connection.execute(_START, [target, run, scope.as_json(), repair, actor])
    sections = _sections(connection, target, scope, policies)
    if sections:
        columns = [text_array(column) for column in zip(*sections, strict=True)]
        connection.execute(_ADD, [target, run, *columns])
    return len(sections)


def _sections(connection: Connection, target: str, scope: Scope, policies: Policies) -> list[tuple[str, str, str]]:
    """(LMS section, tenant, section key text), those with seats and those that the student system knows."""
    asked = {"target": target, "prefix": scope.prefix}
    found = {row[0]: row for row in connection.execute(_SEATS, asked).fetchall()}
    active = policies.active(connection)
    for tenant, key in connection.execute(_CLASSES, asked).fetchall():
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


def find(connection: Connection, target: str, before: datetime | None, limit: int) -> list[Run]:
    """Comparisons, the newest first, begun before a moment."""
    newest = (
        _RUNS
        + """ and (%(before)s::timestamptz is null or created_at < %(before)s)
                         order by created_at desc, roster_run.run limit %(limit)s"""
    )
    rows = connection.execute(newest, {"target": target, "before": before, "limit": limit}).fetchall()
    return [Run(*row) for row in rows]


def failed(connection: Connection, target: str, run: UUID, limit: int) -> list[tuple[str, str]]:
    """Sections that could not be read, as the LMS calls them, with the outcome of the last attempt."""
    return connection.execute(
        """select lms_section, coalesce(code, '') from roster_section
            where target = %s and run = %s and state = 'failed' order by lms_section limit %s""",
        [target, run, limit],
    ).fetchall()


def since_last(connection: Connection, target: str) -> float | None:
    """Seconds since the last one began, or since the ledger was made; None before its first start."""
    row = connection.execute(_LAST, [target]).fetchone()
    return row[0] if row else None


def forget_old(connection: Connection, target: str) -> None:
    """Comparisons are kept for 90 days."""
    connection.execute(_OLD, [target])
