"""Undoing what differs, as far as the policy says so: nothing is called here, the driver is given work.

A seat of ours is opened again, to be read before it is written: what the roster showed may have been mended meanwhile. Somebody
else's row becomes a seat that should be gone, so that its removal is counted, held and recorded like every other one. What the
policy adopts is only marked: see `adoptions`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import NamedTuple

from services.consumer.ledger import writing
from services.consumer.ledger.policies import ActivePolicy
from services.consumer.nouns import PRIORITY_REPAIR, TERM, seat_key
from services.consumer.rosters import adoptions
from services.consumer.rosters.comparing import Difference, KnownSeat
from services.consumer.rosters.sections import Section
from services.consumer.targets.port import RosterRow
from services.kit.postgres import Connection, text_array

_MANY = 10
"""Missing seats of a section, if they are half of it, are listed and left to a person."""
_RUN = "select repair, repairs from roster_run where target = %s and run = %s"
_COUNT = "update roster_run set repairs = repairs + %s where target = %s and run = %s"
_OPEN_AGAIN = f"""
with opened as (
  insert into work (target, seat, tenant, person, course, term, state, priority, next_at, read_first)
  select seat.target, seat.seat, seat.tenant, seat.person, seat.course, {TERM}, 'pending', {PRIORITY_REPAIR},
         clock_timestamp(), true
    from seat where seat.target = %(target)s and seat.seat = any(%(seats)s::text[]) order by seat.target, seat.seat
      on conflict (target, seat) do nothing
  returning target, seat),
noted as (
  update roster_finding set repair_at = clock_timestamp()
    from opened
   where roster_finding.target = opened.target and lms_section = %(lms_section)s and roster_finding.seat = opened.seat),
told as (
  insert into history (tenant, person, section, target, seat, what, version, detail)
  select seat.tenant, seat.person, seat.section, target, seat, 'reopened', seat.version, jsonb_build_object('run', %(run)s::text)
    from opened join seat using (target, seat))
select count(*)::int from opened
"""  # noqa: S608  (constants of ours)
# Version 0: no event is behind such a seat.
_TAKE_OVER = f"""
with told as (
  select * from unnest(%(seats)s::text[], %(subjects)s::text[], %(persons)s::text[], %(users)s::text[], %(roles)s::text[],
                       %(base_roles)s::text[], %(states)s::text[], %(enrollments)s::text[], %(courses)s::text[])
             as told (seat, subject, person, lms_user, role, base_role, shown, lms_enrollment, lms_course)),
taken as (
  insert into seat (target, seat, tenant, person, section, course, lms_section, lms_user, role, base_role, desired, effect,
                    version, policy_version, accepted_at, applied, applied_at, origin, lms_enrollment, lms_course)
  select %(target)s, seat, %(tenant)s, person, %(section)s,
         (select course from seat as other where other.target = %(target)s and other.lms_section = %(lms_section)s
            and course is not null limit 1),
         %(lms_section)s, lms_user, role, base_role, 'deleted', 'drop', 0, %(policy_version)s, clock_timestamp(), shown,
         clock_timestamp(), 'foreign', lms_enrollment, lms_course
    from told
   where not exists (select from seat as other
                      where other.target = %(target)s and other.lms_section = %(lms_section)s
                        and other.lms_enrollment = told.lms_enrollment)
   order by seat
      on conflict (target, seat) do nothing
  returning target, seat, tenant, person, section, course, {TERM} as term),
given as (
  insert into work (target, seat, tenant, person, course, term, state, priority, next_at, read_first)
  select target, seat, tenant, person, course, term, 'guarded', {PRIORITY_REPAIR}, clock_timestamp(), true
    from taken order by target, seat),
noted as (
  update roster_finding set repair_at = clock_timestamp(), seat = coalesce(roster_finding.seat, taken.seat)
    from taken join told using (seat)
   where roster_finding.target = taken.target and lms_section = %(lms_section)s and roster_finding.subject = told.subject),
told_of as (
  insert into history (tenant, person, section, target, seat, what, detail)
  select tenant, person, section, target, seat, 'taken_over', jsonb_build_object('run', %(run)s::text) from taken)
select count(*)::int from taken
"""  # noqa: S608  (constants of ours)


class _Extra(NamedTuple):
    subject: str
    person: str
    row: RosterRow


def repair(
    connection: Connection,
    target: str,
    section: Section,
    known: Sequence[KnownSeat],
    differences: Sequence[Difference],
    stands: Mapping[str, timedelta],
    active: ActivePolicy,
) -> int:
    """Give the driver what the policy wants undone, and mark what it wants adopted, where it is live, within the bounds of one
    comparison; how many seats."""
    row = connection.execute(_RUN, [target, section.run]).fetchone()
    assert row is not None  # noqa: S101  (it is locked)
    wanted, repaired = row
    if _is_beyond_belief(known, differences):
        return 0
    followed = adoptions.followed_in_shadow(connection, target, section, differences, active)
    adoptions.mark(connection, target, section, followed)
    if not wanted:
        return 0
    rules = active.policy.drift
    all_live = all(seat.live for seat in known) and writing.live(connection, target, section.section.rsplit("/", 1)[0])
    sure = [one for one in differences if one.certain and (one.seat.live if one.seat else all_live)]
    adopted = adoptions.wanted(connection, target, section, sure, active)
    due = [
        one
        for one in sure
        if (adopted[one.subject].seats if one.subject in adopted else rules.repairs(one.kind, stands[one.subject]))
    ]
    due = due[: max(0, rules.most_repairs - repaired)]
    undone = [one for one in due if one.subject not in adopted]
    count = _open_again(connection, target, section, undone) + _take_over(connection, target, section, undone, active)
    count += adoptions.mark(connection, target, section, [adopted[one.subject] for one in due if one.subject in adopted])
    if count:
        connection.execute(_COUNT, [count, target, section.run])
    return count


def _is_beyond_belief(known: Iterable[KnownSeat], differences: Iterable[Difference]) -> bool:
    """Whether so many seats are missing at once that the roster is more likely wrong than the section: an outage, a token that
    sees only a part of it. Nothing else guards what is given back."""
    missing = sum(one.kind == "missing" for one in differences)
    should_be_there = sum(seat.settled and seat.desired != "deleted" for seat in known)
    return missing >= _MANY and missing * 2 >= should_be_there


def _open_again(connection: Connection, target: str, section: Section, due: Iterable[Difference]) -> int:
    seats = [one.seat.seat for one in due if one.seat is not None]
    if not seats:
        return 0
    place = {"target": target, "lms_section": section.lms_section, "run": str(section.run), "seats": text_array(seats)}
    return _one(connection, _OPEN_AGAIN, place)


def _take_over(connection: Connection, target: str, section: Section, due: Iterable[Difference], active: ActivePolicy) -> int:
    """Of a person in a wrong role the other row goes, too."""
    extra = list(_extra(due, section, active))
    if not extra:
        return 0
    place = {
        "target": target,
        "tenant": section.tenant,
        "section": section.section,
        "lms_section": section.lms_section,
        "policy_version": active.version,
        "run": str(section.run),
        "seats": text_array(seat_key(section.lms_section, one.row.lms_user or "", one.row.role) for one in extra),
        "subjects": text_array(one.subject for one in extra),
        "persons": text_array(one.person for one in extra),
        "users": text_array(one.row.lms_user for one in extra),
        "roles": text_array(one.row.role for one in extra),
        "base_roles": text_array(one.row.base_role for one in extra),
        "states": text_array(one.row.observation.state for one in extra),
        "enrollments": text_array(one.row.observation.lms_enrollment for one in extra),
        "courses": text_array(one.row.observation.lms_course for one in extra),
    }
    return _one(connection, _TAKE_OVER, place)


def _extra(due: Iterable[Difference], section: Section, active: ActivePolicy) -> Iterable[_Extra]:
    for one in due:
        if one.row is not None and one.row.lms_user is not None:
            person = one.seat.person if one.seat else active.policy.sis_ids.person_of(section.tenant, one.row.lms_user)
            if person is not None:
                yield _Extra(one.subject, person, one.row)


def _one(connection: Connection, statement: str, parameters: Mapping[str, object]) -> int:
    row = connection.execute(statement.encode(), parameters).fetchone()
    assert row is not None  # noqa: S101  (an aggregate always gives a row)
    return int(row[0])
