"""What the guard judges by: the removals that wait, what went before, and how many seats there are. Reads without locks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

import orjson

from services.consumer.guard.judging import Group, Plan, Scope, Size
from services.consumer.ledger import recovery
from services.consumer.ledger.policies import ActivePolicy, Policies
from services.consumer.ledger.writing import Terms
from services.consumer.nouns import TAKES_AWAY
from services.consumer.policy.guard_rules import GuardRules, Limits
from services.kit.postgres import Connection, text_array


class Members(NamedTuple):
    """The seats of a group, with the decision that each was judged for."""

    seats: list[str]
    decisions: list[int]


_TENANTS = "select distinct tenant from work where target = %s and state = 'guarded'"
IN_LIVE_TERM = "(work.term = any(%(terms)s::text[])) <> %(live)s"
"""Of a row called ``work``, with the parameters of `writing.Terms`. What waits in a term that is in shadow is judged when it is
to be sent. Not asked of the table for each row: there may be a hundred thousand of them, for weeks."""
# ``offset 0`` keeps a planner that knows nothing of the tables to one probe of an index for each removal. `moving`: nothing is
# taken from a person whom the SIS keeps under another id before their account has that one; there are hardly ever any.
_GROUPS = f"""
with moving as materialized (
  select tenant, person from lms_object where target = %(target)s and moves_to is not null and state <> 'settled'),
told as (
  select seat.seat, seat.decision, seat.tenant, seat.section, seat.course, work.term,
         seat.course is null or not exists (
           select from seat as other
            where other.tenant = seat.tenant and other.person = seat.person and other.target = seat.target
              and other.course = seat.course and other.seat <> seat.seat
              and other.desired = 'active' and other.applied = 'active') as leaves_course,
         coalesce(section.status in ('cancelled', 'removed'), false) as cancelled, came.channel as source,
         extract(epoch from clock_timestamp() - work.state_since)::float8 as waited
    from work
   cross join lateral (select * from seat where seat.target = work.target and seat.seat = work.seat offset 0) as seat
    left join lateral (
      select event ->> 'status' as status from entity
       where entity.tenant = seat.tenant and entity.kind = 'section' and entity.key = seat.section offset 0) as section on true
    left join lateral (
      select newest.source_row -> 'order' ->> 'channel' as channel
        from (select * from entity
               where entity.tenant = seat.tenant and entity.person = seat.person and entity.kind = 'enrollment'
              offset 0) as entity
       cross join lateral (
         select source_row from jsonb_array_elements(entity.event -> 'source_rows') as source_row
          order by source_row -> 'order' ->> 'as_of_to' desc nulls last limit 1) as newest
       where %(by_source)s and entity.section = seat.section
       order by entity.version desc limit 1) as came on true
   where work.target = %(target)s and work.state = 'guarded' and work.hold is null and {IN_LIVE_TERM}
     and work.cleared is distinct from seat.decision and {TAKES_AWAY} and %(waits)s::jsonb ? seat.tenant
     and not exists (select from moving where (moving.tenant, moving.person) = (seat.tenant, seat.person)))
select tenant, section, course, term, leaves_course, cancelled,
       waited >= (%(waits)s::jsonb ->> tenant)::float8 as ripe, count(*)::int, source, array_agg(seat), array_agg(decision)
  from told group by tenant, section, course, term, leaves_course, cancelled, ripe, source
 order by tenant, section, course, leaves_course, cancelled, ripe, source
"""  # noqa: S608  (a constant of ours)
_OPEN_HOLDS = "select scope, tenant, key, hold from hold where target = %s and state = 'open' and scope <> 'reused_section'"
_PLANS = """
select planned, scope, tenant, key, most - used from planned_change
 where target = %s and withdrawn_at is null and clock_timestamp() between from_at and until_at and used < most
 order by created_at
"""
_ACTIVE = """
select 'section', tenant, section, active from guard_size
 where target = %(target)s and tenant = any(%(tenants)s::text[]) and section = any(%(sections)s::text[])
union all
select 'course', tenant, course, sum(active)::int from guard_size
 where target = %(target)s and tenant = any(%(tenants)s::text[]) and course = any(%(courses)s::text[]) group by tenant, course
union all
select 'term', tenant, term, sum(active)::int from guard_size
 where target = %(target)s and tenant = any(%(tenants)s::text[]) and term = any(%(terms)s::text[]) group by tenant, term
union all
select 'tenant', tenant, '', sum(active)::int from guard_size
 where target = %(target)s and tenant = any(%(tenants)s::text[]) group by tenant
"""
_ACTIVE_NOW = """
select section, course, count(*)::int from seat where target = %s and tenant = %s and applied = 'active' group by section, course
"""
# A seat that went before and waits again counts once, as what waits.
_GONE = """
with gone as (
  select distinct on (seat) seat, tenant, section, course, leaves_course, how, source, at
    from removal
   where target = %(target)s and at > clock_timestamp() - interval '24 hours' and how in ('counted', 'cancelled')
   order by seat, at desc)
select tenant, section, course, leaves_course, how = 'cancelled', source,
       count(*) filter (where at > clock_timestamp() - interval '15 minutes')::int, count(*)::int
  from gone
 where not exists (
   select from work where work.target = %(target)s and work.seat = gone.seat and work.state = 'guarded' and work.hold is null)
 group by tenant, section, course, leaves_course, how = 'cancelled', source
"""
_GONE_SINCE_COUNTED = """
select removal.tenant, section, course, count(distinct seat)::int
  from removal join guard using (target) where target = %s and at > sizes_at group by removal.tenant, section, course
"""
_FORGET_SIZES = "delete from guard_size where target = %s"
_COUNT_SIZES = """
insert into guard_size (target, tenant, section, term, course, active, gained)
select target, tenant, section, split_part(section, '/', 1) || '/' || split_part(section, '/', 2), min(course),
       count(*) filter (where applied = 'active'),
       count(*) filter (where desired = 'active' and accepted_at > clock_timestamp() - interval '15 minutes')
  from seat where target = %s and (applied = 'active' or desired = 'active') group by target, tenant, section
"""


def rules_of(connection: Connection, target: str, policies: Policies) -> dict[str, GuardRules]:
    """The rules of every tenant that has removals waiting; those of a tenant without a policy are the packaged ones."""
    active = policies.active(connection)
    tenants = [tenant for (tenant,) in connection.execute(_TENANTS, [target]).fetchall()]
    return {tenant: _rules(active, tenant) for tenant in tenants}


def rules(connection: Connection, policies: Policies, tenant: str) -> GuardRules:
    """The rules of one tenant."""
    return _rules(policies.active(connection), tenant)


def _rules(active: Mapping[str, ActivePolicy], tenant: str) -> GuardRules:
    return active[tenant].policy.guard if tenant in active else GuardRules()


def waiting(connection: Connection, target: str, rules: Mapping[str, GuardRules], terms: Terms) -> dict[Group, Members]:
    """The removals to be judged: those in live terms."""
    if not rules:
        return {}
    waits = orjson.dumps({tenant: of_tenant.wait_seconds for tenant, of_tenant in rules.items()}).decode()
    by_source = any(of_tenant.source != Limits() for of_tenant in rules.values())
    parameters = {"target": target, "waits": waits, "by_source": by_source, **terms.parameters}
    rows = connection.execute(_GROUPS.encode(), parameters).fetchall()
    return {Group(*row[:-2]): Members(*row[-2:]) for row in rows}


def open_holds(connection: Connection, target: str) -> dict[Scope, int]:
    """Holds of removals that nobody has decided."""
    return {Scope(*scope): hold for *scope, hold in connection.execute(_OPEN_HOLDS, [target]).fetchall()}


def plans(connection: Connection, target: str) -> list[Plan]:
    """Announced changes whose time it is and that have room."""
    return [Plan(str(planned), Scope(*scope), left) for planned, *scope, left in connection.execute(_PLANS, [target]).fetchall()]


def sizes(connection: Connection, target: str, groups: Collection[Group]) -> dict[Scope, Size]:
    """Every scope that the groups lie in, as it stands."""
    active = _active(connection, target, groups)
    for tenant, section, course, gone in connection.execute(_GONE_SINCE_COUNTED, [target]).fetchall():
        for scope in _group(tenant, section, course, gone).places:
            active[scope] -= gone
    return _sizes(connection, target, groups, active)


def sizes_counted_now(connection: Connection, target: str, tenant: str, groups: Collection[Group]) -> dict[Scope, Size]:
    """The same, of groups of one tenant, without the numbers that the guard keeps: reads all of its seats, and writes nothing."""
    active: Counter[Scope] = Counter()
    for section, course, count in connection.execute(_ACTIVE_NOW, [target, tenant]).fetchall():
        for scope in _group(tenant, section, course, count).places:
            active[scope] += count
    return _sizes(connection, target, groups, active)


def _sizes(connection: Connection, target: str, groups: Collection[Group], active: Mapping[Scope, int]) -> dict[Scope, Size]:
    recent: Counter[Scope] = Counter()
    day: Counter[Scope] = Counter()
    for tenant, section, course, leaves, cancelled, source, *counts in connection.execute(_GONE, {"target": target}).fetchall():
        gone = _group(tenant, section, course, counts[1], leaves_course=leaves, source=source)
        for scope in gone.cancellations if cancelled else gone.scopes:
            recent[scope] += counts[0]
            day[scope] += counts[1]
    scopes = {scope for group in groups for scope in (*group.scopes, *group.cancellations)}
    return {scope: Size(max(0, active.get(scope.place, 0)), recent[scope], day[scope]) for scope in scopes}


def _group(
    tenant: str, section: str, course: str | None, size: int, *, leaves_course: bool = True, source: str | None = None
) -> Group:
    term = section.rsplit("/", 1)[0]
    return Group(tenant, section, course, term, leaves_course, cancelled=False, ripe=True, size=size, source=source)


def _active(connection: Connection, target: str, groups: Iterable[Group]) -> Counter[Scope]:
    listed = list(groups)
    parameters = {
        "target": target,
        "tenants": text_array({group.tenant for group in listed}),
        "sections": text_array({group.section for group in listed}),
        "courses": text_array({group.course for group in listed if group.course is not None}),
        "terms": text_array({group.term for group in listed}),
    }
    return Counter({Scope(*scope): count for *scope, count in connection.execute(_ACTIVE, parameters).fetchall()})


def count_sizes(connection: Connection, target: str) -> None:
    """Count the seats of every section: one pass over all of them, seconds at millions. While a recovery reads the seats from the
    LMS the older numbers are better."""
    if recovery.is_active(connection):
        return
    with connection.transaction():
        connection.execute("set local statement_timeout = 0")
        connection.execute("set local enable_seqscan = on")
        connection.execute(_FORGET_SIZES, [target])
        connection.execute(_COUNT_SIZES, [target])
        connection.execute(
            """insert into guard (target, sizes_at) values (%s, now())
               on conflict (target) do update set sizes_at = excluded.sizes_at""",
            [target],
        )


def gained(connection: Connection, target: str, scope: Scope) -> int:
    """Seats in a scope that were given in the 15 minutes before they were counted."""
    place = scope.place
    column = {"section": "section", "course": "course", "term": "term"}.get(place.kind, "''")
    row = connection.execute(
        f"select coalesce(sum(gained), 0)::int from guard_size where (target, tenant) = (%s, %s) and {column} = %s".encode(),  # noqa: S608  (a column of ours)
        [target, place.tenant, place.key],
    ).fetchone()
    assert row is not None  # noqa: S101  (an aggregate always gives a row)
    return int(row[0])
