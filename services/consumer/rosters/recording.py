"""What a roster said, written down in one transaction: what the ledger learns, what differs, and what is repaired.

The section's seats are locked first, in the order in which everybody locks them, then their work; only then are they compared. So
a seat that was decided, called or confirmed since its roster was read is seen to have moved, and is left alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from services.consumer.ledger.policies import Policies
from services.consumer.ledger.writing import is_live
from services.consumer.nouns import NEEDS_LEAVE, PRIORITY_REPAIR, SATISFIED, TERM, Seat
from services.consumer.policy.drift_rules import DriftRules
from services.consumer.rosters import adoptions, findings, repairing
from services.consumer.rosters.comparing import Comparison, KnownSeat, compare
from services.consumer.rosters.sections import HoldsLease, Section
from services.consumer.targets.port import Observation, RosterRow
from services.kit.postgres import Connection, text_array

_RUNS_ON = "select from roster_run where target = %s and run = %s and state = 'running' for no key update"
_LOCK_SEATS = "select from seat where target = %s and lms_section = %s order by target, seat for no key update"
_LOCK_WORK = """
select from work join seat using (target, seat) where seat.target = %s and seat.lms_section = %s
 order by work.target, work.seat for update of work
"""
# An observer's seat is not in the roster.
_KNOWN = f"""
select seat.seat, seat.person, seat.section, seat.lms_user, seat.role, seat.base_role, seat.desired, seat.applied,
       {is_live("seat.target", TERM)} as live,
       seat.version > 0 as ours, work.seat is null as settled,
       coalesce(seat.suspect_until > %(began_at)s or seat.suspect_until is not null and {is_live("seat.target", TERM)}, false)
         or seat.fence is not null or coalesce(seat.applied_at >= %(quiet_since)s, false)
         or exists (select from intent
                     where intent.target = seat.target and intent.person = seat.person and intent.seat = seat.seat
                       and intent.closed_at is null) as moving,
       coalesce(work.state in ('pending', 'guarded') and work.attempts = 0, false) as queued,
       coalesce(work.waits_kind = 'user', false) as accountless
  from seat left join work using (target, seat)
 where seat.target = %(target)s and seat.lms_section = %(lms_section)s and seat.associated_user = ''
"""  # noqa: S608  (constants of ours)
_SEATS = """
select target, tenant, person, section, course, lms_section, lms_user, role, base_role, associated_user, seat
  from seat where target = %s and seat = any(%s::text[])
"""
_NOW_SATISFIED = SATISFIED.replace("seat.applied", "told.state")
# What is learnt is not older than `quiet_since`, and what is begun because of it is looked at before it is written. A seat whose
# last call was of unknown outcome is learnt only in shadow, and only when this reading began late enough to clear it.
_LEARN = f"""
with told as (
  select * from unnest(%(seats)s::text[], %(states)s::text[], %(enrollments)s::text[], %(courses)s::text[])
             as told (seat, state, lms_enrollment, lms_course)),
learnt as (
  update seat
     set applied = told.state, applied_at = %(quiet_since)s, suspect_until = null,
         applied_version = case when {_NOW_SATISFIED} then seat.version else seat.applied_version end,
         lms_enrollment = coalesce(told.lms_enrollment, seat.lms_enrollment),
         lms_course = coalesce(told.lms_course, seat.lms_course),
         origin = coalesce(seat.origin, case when told.state not in ('absent', 'deleted') then 'adopted' end)
    from told
   where seat.target = %(target)s and seat.seat = told.seat
     and (seat.suspect_until is not null
          or (seat.applied, seat.lms_enrollment, seat.lms_course) is distinct from
             (told.state, coalesce(told.lms_enrollment, seat.lms_enrollment), coalesce(told.lms_course, seat.lms_course)))
  returning seat.target, seat.seat, seat.tenant, seat.person, seat.section, seat.course, seat.version, seat.applied,
            seat.lms_enrollment, {TERM} as term, {SATISFIED} as satisfied, {NEEDS_LEAVE} as needs_leave),
settled as (
  delete from work using learnt where work.target = learnt.target and work.seat = learnt.seat and learnt.satisfied),
begun as (
  insert into work as old (target, seat, tenant, person, course, term, state, priority, next_at, read_first)
  select target, seat, tenant, person, course, term, case when needs_leave then 'guarded' else 'pending' end, {PRIORITY_REPAIR},
         clock_timestamp(), true
    from learnt where not satisfied order by target, seat
      on conflict (target, seat) do update
     set read_first = true,
         state = case when old.state in ('pending', 'guarded', 'suspect') then excluded.state else old.state end)
insert into history (tenant, person, section, target, seat, what, version, detail)
select tenant, person, section, target, seat, 'observed', version,
       jsonb_build_object('run', %(run)s::text, 'applied', applied, 'lms_enrollment', lms_enrollment)
  from learnt
"""  # noqa: S608  (constants of ours)
_READ = """
update roster_section
   set state = 'read', code = null, people = %(people)s, differences = %(differences)s, untold = %(untold)s,
       read_at = %(began_at)s
 where target = %(target)s and run = %(run)s and lms_section = %(lms_section)s and state = 'open'
returning lms_section
"""


def doubtful(connection: Connection, target: str, section: Section, roster: Sequence[RosterRow]) -> dict[str, Seat]:
    """Seats to be read one by one before the roster is recorded, by their keys. Locks and writes nothing."""
    found = compare(_known(connection, target, section), roster, {}, ()).doubtful
    rows = connection.execute(_SEATS, [target, text_array(sorted(found))]).fetchall() if found else []
    return {key: Seat(*seat) for *seat, key in rows}


def record(
    connection: Connection,
    target: str,
    section: Section,
    roster: Sequence[RosterRow],
    reads: Mapping[str, Observation],
    policies: Policies,
    holds_lease: HoldsLease,
    accountless: Collection[str] = (),
) -> Comparison | None:
    """Write down what the roster and `reads`, both begun after `section.began_at`, say; of the seats read, `accountless` have no
    user. None, and nothing written: the lease is lost, or the comparison is over."""
    with connection.transaction():
        if not holds_lease(connection) or connection.execute(_RUNS_ON, [target, section.run]).fetchone() is None:
            return None
        connection.execute(_LOCK_SEATS, [target, section.lms_section])
        connection.execute(_LOCK_WORK, [target, section.lms_section])
        active = policies.active(connection).get(section.tenant)
        rules = active.policy.drift if active else DriftRules()
        known = _known(connection, target, section)
        comparison = compare(known, roster, reads, rules.extra_roles, accountless)
        place = {"target": target, "run": section.run, "lms_section": section.lms_section, "began_at": section.began_at}
        untold = len(comparison.untold) + len(comparison.doubtful)
        counted = {"people": len(roster), "differences": len(comparison.differences), "untold": untold}
        if connection.execute(_READ, place | counted).fetchone() is None:
            return None
        _learn(connection, target, section, comparison.learnt)
        adoptions.forget(connection, target, section.lms_section)
        stands = findings.write(connection, target, section, comparison, active)
        if active is not None:
            repairing.repair(connection, target, section, known, comparison.differences, stands, active)
        return comparison


def _known(connection: Connection, target: str, section: Section) -> list[KnownSeat]:
    times = {"began_at": section.began_at, "quiet_since": section.quiet_since}
    parameters = times | {"target": target, "lms_section": section.lms_section}
    return [KnownSeat(*row) for row in connection.execute(_KNOWN.encode(), parameters).fetchall()]


def _learn(connection: Connection, target: str, section: Section, learnt: Mapping[str, Observation]) -> None:
    if learnt:
        seen = learnt.values()
        connection.execute(
            _LEARN.encode(),
            {
                "target": target,
                "run": str(section.run),
                "quiet_since": section.quiet_since,
                "seats": text_array(learnt),
                "states": text_array(one.state for one in seen),
                "enrollments": text_array(one.lms_enrollment for one in seen),
                "courses": text_array(one.lms_course for one in seen),
            },
        )
