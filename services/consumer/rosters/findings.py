"""What stands: every difference of the newest reading of each section, kept until a later reading shows it no more."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from services.consumer.ledger.policies import ActivePolicy, Policies
from services.consumer.ledger.writing import is_live, live_since
from services.consumer.nouns import SeatState
from services.consumer.rosters.comparing import KINDS, Comparison, Difference, Kind
from services.consumer.rosters.runs import is_over
from services.consumer.rosters.sections import Section
from services.consumer.targets.port import ObservedState
from services.kit.postgres import Connection, text_array

_FACTS = {
    "subject": "text",
    "kind": "text",
    "person": "text",
    "section": "text",
    "lms_user": "text",
    "role": "text",
    "base_role": "text",
    "desired": "text",
    "shown": "text",
    "shown_role": "text",
    "confirmed": "boolean",
    "lms_enrollment": "text",
    "lms_course": "text",
    "seat": "text",
}
_NAMES = ", ".join(_FACTS)
_NEWEST = ", ".join(f"{name} = excluded.{name}" for name in _FACTS if name not in ("subject", "seat", "person"))
_WRITE = f"""
with told as (
  insert into roster_finding as old (target, lms_section, tenant, term, read_at, {_NAMES})
  select %(target)s, %(lms_section)s, %(tenant)s, split_part(section, '/', 1) || '/' || split_part(section, '/', 2),
         %(read_at)s, {_NAMES}
    from unnest({", ".join(f"%({name})s::{kind}[]" for name, kind in _FACTS.items())}) as found ({_NAMES})
   order by subject
      on conflict (target, lms_section, subject) do update
     set {_NEWEST}, read_at = excluded.read_at, person = coalesce(excluded.person, old.person),
         seat = coalesce(excluded.seat, old.seat),
         found_at = case when old.kind = excluded.kind then old.found_at else excluded.found_at end
  returning subject, kind, tenant, person, section, seat, shown, xmax = 0 as is_new,
            greatest(found_at, {live_since("old.target", "old.term")}) as stands_since),
noted as (
  insert into history (tenant, person, section, target, seat, what, detail)
  select tenant, person, section, %(target)s, seat, 'differs',
         jsonb_build_object('run', %(run)s::text, 'kind', kind, 'shown', shown)
    from told where is_new and person is not null)
select subject, clock_timestamp() - stands_since from told
"""  # noqa: S608  (constants of this module)
_FORGET = """
delete from roster_finding where target = %s and lms_section = %s and not subject = any(%s::text[])
"""
# When a stranger's enrollment goes, as soon as a comparison comes to it; null: not by itself. Who has no person does not fit the
# policy's template, and to a term that is over no comparison comes.
_GOES_AT = f"""
case when {is_live("roster_finding.target", "roster_finding.term")} and person is not null and repair_at is null
      and not {is_over("roster_finding.tenant", "roster_finding.term")}
     then greatest(found_at, {live_since("roster_finding.target", "roster_finding.term")}) + days * interval '1 day' end
"""
_RULES = """
left join unnest(%(rule_tenants)s::text[], %(rule_kinds)s::text[], %(rule_days)s::int[]) as rule (of_tenant, of_kind, days)
       on (of_tenant, of_kind) = (tenant, kind)
"""
# What was given to the driver and has been undone is not told, though only the next reading drops it.
_PAGE = f"""
select * from (
select number, kind, tenant, section, person, lms_user, role, desired, shown, shown_role, confirmed,
       {is_live("roster_finding.target", "roster_finding.term")} as live, lms_enrollment, lms_course, found_at, read_at,
       repair_at, (select accepted_at from seat
                    where (seat.target, seat.seat) = (roster_finding.target, roster_finding.seat)) as wanted_since,
       {_GOES_AT} as goes_at
  from roster_finding {_RULES}
 where target = %(target)s and number > %(after)s and starts_with(section || '/', %(prefix)s)
   and (%(kind)s::text is null or kind = %(kind)s)) as told
 where %(goes_within_days)s::int is null or goes_at <= clock_timestamp() + %(goes_within_days)s * interval '1 day'
 order by number limit %(limit)s
"""  # noqa: S608  (constants of ours)
_EXPIRING = f"""
select count(*) filter (where goes_at <= clock_timestamp() + interval '1 day')::int,
       count(*) filter (where goes_at <= clock_timestamp() + interval '7 days')::int
  from (select {_GOES_AT} as goes_at from roster_finding {_RULES} where target = %(target)s) as told
"""  # noqa: S608  (constants of ours)
_COUNTS = f"""
select term, {is_live("roster_finding.target", "roster_finding.term")} as live, kind, confirmed, count(*)::int, min(found_at)
  from roster_finding where target = %(target)s and starts_with(section || '/', %(prefix)s)
 group by target, term, kind, confirmed order by term, kind, confirmed
"""  # noqa: S608  (constants of ours)


class Finding(NamedTuple):
    """One difference that stands."""

    number: int
    kind: Kind
    tenant: str
    section: str
    """Section key text."""
    person: str | None
    """SIS id; None when nobody knows whose row it is."""
    lms_user: str | None
    role: str
    desired: SeatState | None
    """None: the ledger has no such seat."""
    shown: ObservedState
    shown_role: str | None
    confirmed: bool
    """The LMS had it as wanted, so that somebody changed it since."""
    live: bool
    """Its term is written to."""
    lms_enrollment: str | None
    lms_course: str | None
    found_at: datetime
    read_at: datetime
    repair_at: datetime | None
    """When it was given to the driver."""
    wanted_since: datetime | None
    """When the publisher accepted the change behind the seat: another feed may not have brought it yet."""
    goes_at: datetime | None
    """The day on which the policy has a stranger's enrollment go, with the next comparison; None: it does not go by itself."""


class Filter(NamedTuple):
    """Which differences are asked about; None: whatever it is."""

    prefix: str = ""
    """What the keys of their sections, with a slash behind them, begin with."""
    kind: Kind | None = None
    goes_within_days: int | None = None
    """Only those that go by then, or could have gone already."""


class Expiring(NamedTuple):
    """How many strangers' enrollments go soon."""

    day: int
    """Within a day."""
    week: int
    """Within a week, those of the day included."""


class Count(NamedTuple):
    """How many differences of a kind stand in a term."""

    term: str
    live: bool
    kind: Kind
    confirmed: bool
    findings: int
    oldest_at: datetime


def write(
    connection: Connection, target: str, section: Section, comparison: Comparison, active: ActivePolicy | None
) -> dict[str, timedelta]:
    """Replace what stood in the section; for how long each difference stands in a live term, by its subject. About seats in
    motion the reading says nothing: what stood of them stays."""
    found: dict[str, timedelta] = {}
    if comparison.differences:
        facts = [_facts(one, section, active) for one in comparison.differences]
        columns = {name: text_array(column) for name, column in zip(_FACTS, zip(*facts, strict=True), strict=True)}
        place = {
            "target": target,
            "run": str(section.run),
            "lms_section": section.lms_section,
            "tenant": section.tenant,
            "read_at": section.began_at,
        }
        found = dict(connection.execute(_WRITE.encode(), place | columns).fetchall())
    stays = [*found, *comparison.untold, *comparison.doubtful]
    connection.execute(_FORGET, [target, section.lms_section, text_array(stays)])
    return found


def _facts(one: Difference, section: Section, active: ActivePolicy | None) -> Sequence[str | None]:
    """In the order of `_FACTS`."""
    seat, row = one.seat, one.row
    ids = (row.observation.lms_enrollment, row.observation.lms_course) if row else (None, None)
    if seat is not None:
        mine = (seat.person, seat.section, seat.lms_user, seat.role, seat.base_role, seat.desired)
        return (one.subject, one.kind, *mine, one.shown, row.role if row else None, str(one.confirmed), *ids, seat.seat)
    assert row is not None  # noqa: S101  (one of the two is there)
    person = active.policy.sis_ids.person_of(section.tenant, row.lms_user) if active and row.lms_user else None
    theirs = (person, section.section, row.lms_user, row.role, row.base_role, None)
    return (one.subject, one.kind, *theirs, one.shown, None, str(one.confirmed), *ids, None)


def page(connection: Connection, policies: Policies, asked: Filter, after: int, limit: int) -> list[Finding]:
    """A page of what stands, behind number `after`."""
    parameters = _rules(connection, policies) | asked._asdict() | {"after": after, "limit": limit}
    return [Finding(*row) for row in connection.execute(_PAGE.encode(), parameters).fetchall()]


def expiring(connection: Connection, policies: Policies) -> Expiring:
    """How much goes by itself soon."""
    row = connection.execute(_EXPIRING.encode(), _rules(connection, policies)).fetchone()
    assert row is not None  # noqa: S101  (an aggregate always gives a row)
    return Expiring(*row)


def _rules(connection: Connection, policies: Policies) -> dict[str, object]:
    """After how many days strangers go, under the policies of now."""
    rules = [
        (tenant, kind, after.days)
        for tenant, active in policies.active(connection).items()
        for kind in KINDS
        if (after := active.policy.drift.removed_after(kind)) is not None
    ]
    return {
        "target": policies.target,
        "rule_tenants": text_array(tenant for tenant, _, _ in rules),
        "rule_kinds": text_array(kind for _, kind, _ in rules),
        "rule_days": text_array(str(days) for _, _, days in rules),
    }


def counts(connection: Connection, target: str, prefix: str = "") -> list[Count]:
    """How much stands, by term and kind."""
    rows = connection.execute(_COUNTS.encode(), {"target": target, "prefix": prefix}).fetchall()
    return [Count(*row) for row in rows]
