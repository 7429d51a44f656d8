"""Adopting what is marked: overrides that make seats what the LMS shows already, without a call.

An override is made under the locks of its section and people, which come before those of the seats (decision 30). So this is done
after the roster was recorded, in transactions of its own: a few seconds later, or after a restart. A seat that has moved
since its roster was read is left to the next one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from itertools import groupby
from typing import NamedTuple
from uuid import UUID

from services.consumer.ledger import history, overruling, section_locks
from services.consumer.ledger.deciding import decide_persons, lock_persons
from services.consumer.ledger.history import Happening
from services.consumer.ledger.overrides import ADOPTER
from services.consumer.ledger.overruling import Asked
from services.consumer.ledger.policies import ActivePolicy, Policies
from services.consumer.ledger.writing import is_live
from services.consumer.nouns import SATISFIED, PersonRef, SeatRef, state_of
from services.consumer.rosters.comparing import Kind
from services.consumer.rosters.sections import HoldsLease
from services.consumer.targets.port import ObservedState
from services.kit.postgres import Connection, text_array


class Adopted(NamedTuple):
    """What became of a section's marks."""

    seats: int
    """They are as the LMS shows them."""
    work: set[SeatRef]
    """Seats that now have work: others of the same people."""


_NEWS = "interval '1 hour'"
"""What was shown longer ago, or before a backup was taken, may have been changed again."""
_AT_ONCE = 200
"""Differences of one transaction: it holds the lease, whose renewal must not wait for long."""
_PLACES = """
select finding.subject, finding.tenant, finding.person, finding.section
  from (select distinct target, lms_section, subject from roster_adoption
         where target = %s and lms_section = %s order by subject limit %s) as marked
  join roster_finding as finding using (target, lms_section, subject)
"""
_LOCK = """
select from seat
 where target = %(target)s
   and seat in (select seat from roster_adoption
                 where target = %(target)s and lms_section = %(lms_section)s and subject = any(%(subjects)s::text[]))
 order by target, seat for no key update
"""
# A seat that was decided, called or confirmed since the roster was read, or that is at work, is not what was shown any more; nor
# is a row of which a seat of ours is known to be by now. In shadow nobody works, and what was shown is believed already.
_MARKED = f"""
select finding.subject, finding.kind, finding.tenant, finding.person, finding.section, finding.lms_user, adoption.seat,
       adoption.role, adoption.base_role, adoption.shown, adoption.lms_enrollment, adoption.lms_course, adoption.run,
       adoption.until, finding.read_at, {is_live("finding.target", "finding.term")} as live,
       adoption.until > clock_timestamp() and finding.read_at > clock_timestamp() - {_NEWS}
         and ((seat.seat is null and {is_live("finding.target", "finding.term")})
              or ((seat.tenant, seat.person) = (finding.tenant, finding.person)
                  and case when {is_live("finding.target", "finding.term")} then work.seat is null
                           else seat.applied = adoption.shown end
                  and seat.fence is null and seat.suspect_until is null
                  and coalesce(seat.applied_at <= finding.read_at, true)
                  and not exists (select from intent
                                   where intent.target = seat.target and intent.seat = seat.seat and intent.closed_at is null)))
         and not exists (select from seat as other
                          where other.target = adoption.target and other.lms_section = adoption.lms_section
                            and other.seat <> adoption.seat and other.lms_enrollment = adoption.lms_enrollment) as stands
  from roster_adoption as adoption
  join roster_finding as finding using (target, lms_section, subject)
  left join seat on (seat.target, seat.seat) = (adoption.target, adoption.seat)
  left join work on (work.target, work.seat) = (adoption.target, adoption.seat)
 where adoption.target = %(target)s and adoption.lms_section = %(lms_section)s
   and adoption.subject = any(%(subjects)s::text[])
 order by finding.subject, adoption.seat
"""  # noqa: S608  (constants of ours)
# A seat that the ledger did not have begins as one that should be gone, of which no event is known (version 0); its override
# decides it in the same transaction.
_BELIEVE = """
insert into seat (target, seat, tenant, person, section, course, lms_section, lms_user, role, base_role, desired, effect,
                  version, policy_version, accepted_at, applied, applied_at, origin, lms_enrollment, lms_course)
select %(target)s, seat, %(tenant)s, person, section, null, %(lms_section)s, lms_user, role, base_role, 'deleted', 'drop', 0,
       %(policy_version)s, clock_timestamp(), shown, read_at, 'adopted', lms_enrollment, lms_course
  from unnest(%(seats)s::text[], %(persons)s::text[], %(sections)s::text[], %(users)s::text[], %(roles)s::text[],
              %(base_roles)s::text[], %(states)s::text[], %(enrollments)s::text[], %(courses)s::text[],
              %(read_at)s::timestamptz[])
       as told (seat, person, section, lms_user, role, base_role, shown, lms_enrollment, lms_course, read_at)
 order by seat
    on conflict (target, seat) do update
   set applied = excluded.applied, applied_at = excluded.applied_at,
       lms_enrollment = coalesce(excluded.lms_enrollment, seat.lms_enrollment),
       lms_course = coalesce(excluded.lms_course, seat.lms_course)
"""
_DIFFERING = f"select seat from seat where target = %s and seat = any(%s::text[]) and not {SATISFIED}"  # noqa: S608
_SETTLE = f"""
update seat set applied_version = version where target = %s and seat = any(%s::text[]) and {SATISFIED}
"""  # noqa: S608  (a constant of ours)
_DONE = """
delete from roster_adoption where target = %(target)s and lms_section = %(lms_section)s and subject = any(%(subjects)s::text[])
"""
_NO_DIFFERENCE = "delete from roster_finding where target = %s and lms_section = %s and subject = any(%s::text[])"


class _Marked(NamedTuple):
    """One seat of a difference that is to hold, as `_MARKED` tells it."""

    subject: str
    kind: Kind
    tenant: str
    person: str
    section: str
    lms_user: str
    seat: str
    role: str
    base_role: str
    shown: ObservedState
    lms_enrollment: str | None
    lms_course: str | None
    run: UUID
    until: datetime
    read_at: datetime
    live: bool
    """Its term is written to; if not, only what was adopted before is followed."""
    stands: bool
    """Nothing has happened to it since the roster was read."""

    @property
    def reason(self) -> str:
        """Of its override, for people."""
        return f"{self.kind} was adopted as comparison {self.run} showed it"


def adopt(connection: Connection, target: str, lms_section: str, policies: Policies, holds_lease: HoldsLease) -> Adopted:
    """Adopt the next of what is marked in the section and still stands, in one transaction; the other marks are dropped, and
    their differences stay listed. Doing it again, or after the lease was lost, does nothing."""
    with connection.transaction():
        places = connection.execute(_PLACES, [target, lms_section, _AT_ONCE]).fetchall()
        section_locks.take(connection, [(tenant, section, False) for _, tenant, _, section in places])
        persons = sorted({PersonRef(tenant, person) for _, tenant, person, _ in places})
        lock_persons(connection, persons)  # before the lease: whoever waits for it must not wait for them
        if not persons or not holds_lease(connection):
            return Adopted(0, set())
        work = decide_persons(connection, persons, policies, cause="override")
        subjects = text_array(subject for subject, *_ in places)
        where = {"target": target, "lms_section": lms_section, "subjects": subjects}
        connection.execute(_LOCK, where)
        marked = [_Marked(*row) for row in connection.execute(_MARKED.encode(), where).fetchall()]
        standing = _standing(connection, policies, marked, persons)
        adopted = {one.seat: (one, ask) for one, ask in standing}  # two seats of a person may have become one, in one other role
        if adopted:
            work |= _adopt(connection, policies, lms_section, list(adopted.values()))
            connection.execute(_NO_DIFFERENCE, [target, lms_section, text_array({one.subject for one, _ in standing})])
        connection.execute(_DONE, where)
        return Adopted(len(adopted), work)


def _standing(
    connection: Connection, policies: Policies, marked: Collection[_Marked], persons: Collection[PersonRef]
) -> list[tuple[_Marked, Asked]]:
    """What can be adopted, each seat with the override that says so: of a difference all seats, or none."""
    active = policies.active(connection)
    in_force = overruling.of_seats(connection, policies.target, [one.seat for one in marked])

    def stands(one: _Marked) -> bool:
        is_locked = PersonRef(one.tenant, one.person) in persons
        return one.stands and is_locked and all(it.actor == ADOPTER for it in in_force.get(one.seat, ()))

    def is_wanted(one: _Marked) -> bool:
        its = active.get(one.tenant)
        return its is not None and its.policy.drift.adopted_for(one.kind) is not None

    found: list[tuple[_Marked, Asked]] = []
    for _, together in groupby(marked, lambda one: one.subject):
        seats = list(together)
        asked = [_asked(one, active.get(one.tenant), policies.target) if stands(one) else None for one in seats]
        if all(asked) and any(one.seat in in_force or (one.live and is_wanted(one)) for one in seats):
            found.extend((one, ask) for one, ask in zip(seats, asked, strict=True) if ask)
    return found


def _asked(one: _Marked, active: ActivePolicy | None, target: str) -> Asked | None:
    """The override that makes this very seat what is shown; None: under the policy of now there is none."""
    role = active.policy.role_called(one.role, one.base_role) if active else None
    gives = state_of(one.shown)
    if active is None or role is None or gives is None:
        return None
    asked = Asked(PersonRef(one.tenant, one.person), one.section, role, gives, one.until, one.reason, ADOPTER)
    given = overruling.would_give(active.policy, target, asked)
    return asked if given and given.ref == SeatRef(target, one.seat) else None


def _adopt(
    connection: Connection, policies: Policies, lms_section: str, standing: Sequence[tuple[_Marked, Asked]]
) -> set[SeatRef]:
    """First the seats are taken as they are shown: then nothing that is decided about them is a change."""
    target, seats = policies.target, [one.seat for one, _ in standing]
    tenant = standing[0][0].tenant
    _believe(connection, policies, lms_section, [one for one, _ in standing])
    work = _end_former(connection, policies, tenant, seats)
    differing = {seat for (seat,) in connection.execute(_DIFFERING.encode(), [target, text_array(seats)]).fetchall()}
    _, more = overruling.make_many(
        connection, policies, tenant, [ask for one, ask in standing if one.seat in differing], undo=None
    )
    connection.execute(_SETTLE.encode(), [target, text_array(seats)])
    return work | more


def _believe(connection: Connection, policies: Policies, lms_section: str, seats: Sequence[_Marked]) -> None:
    tenant = seats[0].tenant
    connection.execute(
        _BELIEVE,
        {
            "target": policies.target,
            "tenant": tenant,
            "lms_section": lms_section,
            "policy_version": policies.active(connection)[tenant].version,
            "seats": text_array(one.seat for one in seats),
            "persons": text_array(one.person for one in seats),
            "sections": text_array(one.section for one in seats),
            "users": text_array(one.lms_user for one in seats),
            "roles": text_array(one.role for one in seats),
            "base_roles": text_array(one.base_role for one in seats),
            "states": text_array(one.shown for one in seats),
            "enrollments": text_array(one.lms_enrollment for one in seats),
            "courses": text_array(one.lms_course for one in seats),
            "read_at": text_array(one.read_at.isoformat() for one in seats),
        },
    )
    history.append(connection, (_observed(one, policies.target) for one in seats))


def _observed(one: _Marked, target: str) -> Happening:
    return Happening(
        one.tenant,
        one.person,
        "observed",
        section=one.section,
        target=target,
        seat=one.seat,
        detail={"run": str(one.run), "applied": one.shown, "lms_enrollment": one.lms_enrollment},
    )


def _end_former(connection: Connection, policies: Policies, tenant: str, seats: Sequence[str]) -> set[SeatRef]:
    """End the adoptions that decided these seats until now. Their people are decided."""
    former = {one.number for theirs in overruling.of_seats(connection, policies.target, seats).values() for one in theirs}
    return (
        overruling.withdraw_these(connection, policies, tenant, former, ADOPTER, "changed again in the LMS") if former else set()
    )
