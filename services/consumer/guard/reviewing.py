"""Judging the removals that wait: reads them and what went before, and writes the verdict, in one transaction.

The target's row in `guard` is locked first, by whoever judges, approves or pauses, so that two of them never share one budget.
Everything here is by statement over many rows; what is held in memory are the waiting seats' keys and one group per section.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import orjson
import structlog

from services.consumer.guard.judging import Group, Held, How, Passed, Plan, Scope, ScopeKind, Size, judge
from services.consumer.ledger.policies import Policies
from services.consumer.nouns import TAKES_AWAY
from services.consumer.policy.model import GuardRules
from services.kit.postgres import Connection, text_array

log = structlog.get_logger()

_SIZES_SECONDS = 900.0
"""The seats of every section are counted so often while there is anything to guard: seconds at millions of seats."""
_OLD_SIZES_SECONDS = 30.0
"""What is about to be held is compared with younger numbers: on a registration morning a section doubles in minutes."""

_WAITING = "select exists (select from work where target = %s and state = 'guarded')"
_LOCK = """
insert into guard (target) values (%s) on conflict (target) do update set target = excluded.target
returning paused, coalesce(extract(epoch from clock_timestamp() - sizes_at), 'infinity')::float8
"""
_FORGET_SIZES = "delete from guard_size where target = %s"
_COUNT_SIZES = """
insert into guard_size (target, tenant, section, course, active)
select target, tenant, section, min(course), count(*)
  from seat where target = %s and applied = 'active' group by target, tenant, section
"""
# What a decision or an observation has made into no removal needs no judgement; it is read, or settles.
_FREE = f"""
with free as materialized (
  select work.seat from work join seat using (target, seat)
   where target = %(target)s and work.state = 'guarded' and not {TAKES_AWAY} order by seat for update of work skip locked)
update work set state = 'pending' from free where work.target = %(target)s and work.seat = free.seat
"""  # noqa: S608  (a constant of ours)
# A row that is being decided anew at this moment is left to the next round.
_GROUPS = """
with waiting as materialized (
  select seat, term, state_since from work where target = %(target)s and state = 'guarded' order by seat for update skip locked),
told as (
  select waiting.seat, seat.tenant, seat.section, seat.course, waiting.term,
         seat.course is null or not exists (
           select from seat as other
            where other.tenant = seat.tenant and other.person = seat.person and other.target = seat.target
              and other.course = seat.course and other.seat <> seat.seat and other.desired = 'active') as leaves_course,
         coalesce(section.event ->> 'status' in ('cancelled', 'removed'), false) as cancelled,
         extract(epoch from clock_timestamp() - waiting.state_since)::float8 as waited
    from waiting
    join seat on seat.target = %(target)s and seat.seat = waiting.seat
    left join entity as section on section.tenant = seat.tenant and section.kind = 'section' and section.key = seat.section
   where %(waits)s::jsonb ? seat.tenant)
select tenant, section, course, term, leaves_course, cancelled,
       waited >= (%(waits)s::jsonb ->> tenant)::float8 as ripe, count(*)::int, array_agg(seat)
  from told group by tenant, section, course, term, leaves_course, cancelled, ripe
 order by tenant, section, course, leaves_course, cancelled, ripe
"""
_TENANTS = "select distinct tenant from work where target = %s and state = 'guarded'"
_ACTIVE = """
select asked.kind, asked.tenant, asked.key, coalesce(sum(size.active), 0)::int
  from unnest(%(kinds)s::text[], %(tenants)s::text[], %(keys)s::text[]) as asked (kind, tenant, key)
  join guard_size as size
    on size.target = %(target)s and size.tenant = asked.tenant
   and case when asked.kind in ('section', 'cancelled_section') then size.section = asked.key
            when asked.kind = 'course' then size.course = asked.key
            when asked.kind in ('term', 'cancelled_term') then starts_with(size.section, asked.key || '/')
            else true end
 group by asked.kind, asked.tenant, asked.key
"""
_GONE = """
select tenant, section, course, leaves_course, how, count(*) filter (where at > clock_timestamp() - interval '15 minutes')::int,
       count(*)::int
  from removal
 where target = %s and at > clock_timestamp() - interval '24 hours' and how in ('counted', 'cancelled')
 group by tenant, section, course, leaves_course, how
"""
_OPEN_HOLDS = "select scope, tenant, key, hold from hold where target = %s and state = 'open'"
_PLANS = """
select planned, scope, tenant, key, most - used from planned_change
 where target = %s and withdrawn_at is null and clock_timestamp() between from_at and until_at and used < most
 order by created_at
"""
_USE_PLAN = "update planned_change set used = used + %s where target = %s and planned = %s"
_OPEN_HOLD = """
insert into hold (target, tenant, scope, key, "window", removals, active, allowed, gained)
select %(target)s::text, %(tenant)s::text, %(scope)s::text, %(key)s::text, %(window)s::text, %(removals)s::int,
       %(active)s::int, %(allowed)s::text, count(*)
  from seat
 where target = %(target)s and tenant = %(tenant)s and desired = 'active'
   and accepted_at > clock_timestamp() - interval '15 minutes'
   and case when %(scope)s in ('section', 'cancelled_section') then section = %(key)s
            when %(scope)s = 'course' then course = %(key)s
            when %(scope)s in ('term', 'cancelled_term') then starts_with(section, %(key)s || '/')
            else true end
returning hold
"""
_LET_THROUGH = """
with passed as (
  update work set state = 'pending', cleared = seat.decision, hold = null, hold_number = null
    from seat, unnest(%(seats)s::text[], %(leaves)s::boolean[]) as passing (seat, leaves_course)
   where work.target = %(target)s and work.seat = passing.seat and work.state = 'guarded'
     and seat.target = work.target and seat.seat = work.seat
  returning seat.seat, seat.decision, seat.tenant, seat.section, seat.course, passing.leaves_course)
insert into removal (target, seat, decision, tenant, section, course, leaves_course, how)
select %(target)s, seat, decision, tenant, section, course, leaves_course, %(how)s from passed
"""
_HOLD = """
with held as (
  update work set state = 'held', hold = %(hold)s, hold_number = nextval('hold_number')
    from seat
   where work.target = %(target)s and work.seat = any(%(seats)s::text[]) and work.state = 'guarded'
     and seat.target = work.target and seat.seat = work.seat
  returning seat.tenant, seat.person, seat.section, seat.target, seat.seat, seat.version, seat.decision)
insert into history (tenant, person, section, target, seat, what, version, detail)
select tenant, person, section, target, seat, 'held', version,
       jsonb_build_object('hold', %(hold)s::bigint, 'decision', decision)
  from held
"""
_EMPTIED = """
update hold set state = 'emptied', closed_at = clock_timestamp()
 where target = %s and state = 'open' and not exists (
   select from work where work.target = hold.target and work.hold = hold.hold and work.state = 'held')
"""
_OLD = "delete from removal where target = %s and at < clock_timestamp() - interval '25 hours'"


@dataclass
class Review:
    """What one round did."""

    passed: Counter[How] = field(default_factory=Counter)
    held: int = 0
    opened: list[ScopeKind] = field(default_factory=list)
    """Scopes of the holds that were opened."""

    @property
    def has_passed(self) -> bool:
        """Whether there is something to send."""
        return bool(self.passed)


def something_waits(connection: Connection, target: str) -> bool:
    """Whether a review would find anything; costs one look at an index."""
    row = connection.execute(_WAITING, [target]).fetchone()
    return bool(row and row[0])


def review(connection: Connection, target: str, policies: Policies) -> Review:
    """Judge what waits, in the caller's transaction, which holds the target's lease."""
    done = Review()
    paused, age = connection.execute(_LOCK, [target]).fetchall()[0]
    if paused:
        return done
    connection.execute(_FREE.encode(), {"target": target})
    rules = _rules(connection, target, policies)
    seats = _groups(connection, target, rules)
    if not seats:
        return done
    if age > _SIZES_SECONDS:
        _count_sizes(connection, target)
    holds = {Scope(*scope): hold for *scope, hold in connection.execute(_OPEN_HOLDS, [target]).fetchall()}
    verdict = judge(seats, _sizes(connection, target, seats), holds, _plans(connection, target), rules)
    if _OLD_SIZES_SECONDS < age <= _SIZES_SECONDS and any(held.cause for held in verdict.held):
        _count_sizes(connection, target)
        verdict = judge(seats, _sizes(connection, target, seats), holds, _plans(connection, target), rules)
    _pass(connection, target, verdict.passed, seats, done)
    for held in verdict.held:
        _hold(connection, target, held, holds.get(held.scope), seats, done)
    return done


def tidy(connection: Connection, target: str) -> None:
    """Close holds that nothing is in any more, and forget removals that count in no window."""
    connection.execute(_EMPTIED, [target])
    connection.execute(_OLD, [target])


def _plans(connection: Connection, target: str) -> list[Plan]:
    return [Plan(str(planned), Scope(*scope), left) for planned, *scope, left in connection.execute(_PLANS, [target]).fetchall()]


def _rules(connection: Connection, target: str, policies: Policies) -> dict[str, GuardRules]:
    """Of every tenant that has something waiting. One without a policy has no seats to add, but may have some to remove."""
    active = policies.active(connection)
    tenants = [tenant for (tenant,) in connection.execute(_TENANTS, [target]).fetchall()]
    return {tenant: active[tenant].policy.guard if tenant in active else GuardRules() for tenant in tenants}


def _groups(connection: Connection, target: str, rules: Mapping[str, GuardRules]) -> dict[Group, list[str]]:
    """The seats of each group, their work locked."""
    if not rules:
        return {}
    waits = _json({tenant: of_tenant.wait_seconds for tenant, of_tenant in rules.items()})
    rows = connection.execute(_GROUPS, {"target": target, "waits": waits}).fetchall()
    return {Group(*row[:-1]): row[-1] for row in rows}


def _json(numbers: Mapping[str, float]) -> str:
    """A literal for ``::jsonb``."""
    return orjson.dumps(dict(numbers)).decode()


def _count_sizes(connection: Connection, target: str) -> None:
    connection.execute("set local enable_seqscan = on")  # all seats are read; by an index that would take far longer
    connection.execute(_FORGET_SIZES, [target])
    connection.execute(_COUNT_SIZES, [target])
    connection.execute("update guard set sizes_at = clock_timestamp() where target = %s", [target])


def _sizes(connection: Connection, target: str, groups: Iterable[Group]) -> dict[Scope, Size]:
    scopes = sorted({scope for group in groups for scope in (*group.scopes, *group.cancellations)})
    columns = {
        name: text_array(column) for name, column in zip(("kinds", "tenants", "keys"), zip(*scopes, strict=True), strict=True)
    }
    active = {Scope(*scope): count for *scope, count in connection.execute(_ACTIVE, columns | {"target": target}).fetchall()}
    recent: Counter[Scope] = Counter()
    day: Counter[Scope] = Counter()
    for tenant, section, course, leaves_course, how, in_quarter_hour, in_day in connection.execute(_GONE, [target]).fetchall():
        gone = Group(tenant, section, course, _term(section), leaves_course, how == "cancelled", True, in_day)
        for scope in gone.cancellations if gone.cancelled else gone.scopes:
            recent[scope] += in_quarter_hour
            day[scope] += in_day
    return {scope: Size(active.get(scope, 0), recent[scope], day[scope]) for scope in scopes}


def _term(section: str) -> str:
    """The term key of a section key."""
    return section.rsplit("/", 1)[0]


def _pass(connection: Connection, target: str, passed: Iterable[Passed], seats: Mapping[Group, list[str]], done: Review) -> None:
    by_how: dict[How, list[tuple[str, bool]]] = defaultdict(list)
    for one in passed:
        by_how[one.how] += [(seat, one.group.leaves_course) for seat in seats[one.group]]
        if one.planned is not None:
            connection.execute(_USE_PLAN, [one.group.size, target, one.planned])
    for how, rows in by_how.items():
        names, leaves = zip(*rows, strict=True)
        parameters = {"target": target, "how": how, "seats": text_array(names), "leaves": text_array(map(str, leaves))}
        connection.execute(_LET_THROUGH, parameters)
        done.passed[how] += len(rows)


def _hold(
    connection: Connection, target: str, held: Held, hold: int | None, seats: Mapping[Group, list[str]], done: Review
) -> None:
    if hold is None:
        hold = _open(connection, target, held)
        done.opened.append(held.scope.kind)
    members = [seat for group in held.groups for seat in seats[group]]
    connection.execute(_HOLD, {"target": target, "hold": hold, "seats": text_array(members)})
    done.held += len(members)
    log.warning("removals_held", target=target, hold=hold, scope=held.scope.kind, count=len(members))


def _open(connection: Connection, target: str, held: Held) -> int:
    assert held.cause is not None  # noqa: S101  (what has no cause is in a hold that is open)
    scope, cause = held.scope, held.cause
    connection.execute("set local enable_seqscan = on")  # all seats are read, once for each hold
    parameters = {"target": target, "tenant": scope.tenant, "scope": scope.kind, "key": scope.key, **cause._asdict()}
    row = connection.execute(_OPEN_HOLD, parameters).fetchone()
    assert row is not None  # noqa: S101  (an insert returns its row)
    return int(row[0])
