"""Writing down what was decided: entitlements, what each seat should be, and the work that this leaves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

import structlog

from services.consumer.ledger import history
from services.consumer.ledger.decision_plan import Change, Plan
from services.consumer.ledger.history import Happening
from services.consumer.ledger.policies import Policies
from services.consumer.nouns import NEEDS_LEAVE, SATISFIED, TERM, PersonRef, Seat, SeatRef
from services.kit.postgres import Connection, text_array

log = structlog.get_logger()
Cause = Literal["intake", "section", "replay", "policy", "release", "override", "start"]
"""Who asked: the live stream, a large section that changed (its members come after its event), a replay, another policy,
parked records that this reader knows at last, an override that was made, withdrawn or has ended, or an enrollment that begins."""


def write(connection: Connection, plan: Plan, policies: Policies, cause: Cause) -> set[SeatRef]:
    """Write the plan down in the transaction that holds the persons' locks; returns the seats that now have work."""
    _write_entitlements(connection, plan)
    _write_wakes(connection, plan.wakes)
    if plan.moved:
        _lock(connection, [*(seat.ref for seat in plan.moved), *(change.ref for change in plan.changes)])
        _move(connection, plan.moved)
    return _write_seats(connection, plan.changes, policies, cause)


def _write_entitlements(connection: Connection, plan: Plan) -> None:
    if plan.lapsed:
        connection.execute(
            """delete from entitlement e
                using unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[]) as gone(tenant, kind, key, target, seat)
                where (e.tenant, e.kind, e.key, e.target, e.seat) = (gone.tenant, gone.kind, gone.key, gone.target, gone.seat)""",
            [text_array(column) for column in zip(*((*source, *ref) for source, ref in plan.lapsed), strict=True)],
        )
    if plan.entitlements:
        rows = [(*one.source, *one.ref, one.seat.person) for one in plan.entitlements]
        connection.execute(
            """insert into entitlement (tenant, kind, key, target, seat, person)
               select * from unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[])
               on conflict (tenant, kind, key, target, seat) do nothing""",
            [text_array(column) for column in zip(*rows, strict=True)],
        )


def _write_wakes(connection: Connection, wakes: Mapping[PersonRef, datetime]) -> None:
    """A note that is not needed any more stays: it costs one decision that changes nothing."""
    if wakes:
        rows = [(*person, at.isoformat()) for person, at in sorted(wakes.items())]
        connection.execute(
            """insert into wake (tenant, person, at) select * from unnest(%s::text[], %s::text[], %s::timestamptz[])
               on conflict (tenant, person) do update set at = excluded.at where wake.at <> excluded.at""",
            [text_array(column) for column in zip(*rows, strict=True)],
        )


def _lock(connection: Connection, seats: Iterable[SeatRef]) -> None:
    """All seats that a batch writes, in the order in which everybody locks them, before any of their work."""
    ordered = sorted(set(seats))
    connection.execute(
        """select from seat join unnest(%s::text[], %s::text[]) as told (target, seat) using (target, seat)
            order by target, seat for no key update of seat""",
        [text_array(ref.target for ref in ordered), text_array(ref.seat for ref in ordered)],
    )


def _move(connection: Connection, seats: Sequence[Seat]) -> None:
    """The seats are locked."""
    ordered = sorted(seats, key=lambda seat: seat.ref)
    columns = [
        text_array(seat.ref.target for seat in ordered),
        text_array(seat.ref.seat for seat in ordered),
        text_array(seat.section for seat in ordered),
        text_array(seat.course for seat in ordered),
        text_array(seat.base_role for seat in ordered),
    ]
    connection.execute(
        """select from work join unnest(%s::text[], %s::text[]) as told (target, seat) using (target, seat)
            order by target, seat for update of work""",
        columns[:2],
    )
    connection.execute(
        """with told as (select * from unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[])
                             as t(target, seat, section, course, base_role)),
                moved as (update seat s set section = told.section, course = told.course, base_role = told.base_role
                            from told where (s.target, s.seat) = (told.target, told.seat))
           update work w set course = told.course from told where (w.target, w.seat) = (told.target, told.seat)""",
        columns,
    )


def _write_seats(connection: Connection, changes: Sequence[Change], policies: Policies, cause: Cause) -> set[SeatRef]:
    """Write what the seats should be, then, with their rows locked, whether there is anything to do about it."""
    if not changes:
        return set()
    written = _upsert_seats(connection, changes)
    done = [change for change in changes if change.ref in written]
    if len(done) < len(changes):
        log.warning("seats_belong_to_somebody_else", target=policies.target, count=len(changes) - len(done))
    work = _write_work(connection, done, written, policies.swap_settle_seconds) if done else set()
    history.append(connection, (_happening(change, cause, written.get(change.ref)) for change in changes))
    return work


class _Written(NamedTuple):
    """A seat after its desired state was written."""

    decision: int
    """Counts the changes."""
    satisfied: bool
    """The LMS is as wanted, as far as we know."""
    needs_leave: bool
    """Making it so is the guard's to allow."""


def _upsert_seats(connection: Connection, changes: Sequence[Change]) -> dict[SeatRef, _Written]:
    """What became of each seat. A seat of another person (two SIS ids with one LMS id) is left alone, and missing here, unless
    nothing entitles that person to it any more."""
    rows = [
        (
            *one.ref,
            one.seat.tenant,
            one.seat.person,
            one.seat.section,
            one.seat.course,
            one.seat.lms_section,
            one.seat.lms_user,
            one.seat.role,
            one.seat.base_role,
            one.seat.associated_user,
            one.after,
            one.effect,
            str(one.because.version),
            str(one.policy_version),
            one.because.accepted_at.isoformat(),
        )
        for one in changes
    ]
    found = connection.execute(
        f"""insert into seat (target, seat, tenant, person, section, course, lms_section, lms_user, role, base_role,
                             associated_user, desired, effect, version, policy_version, accepted_at)
           select * from unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
                                %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::int[],
                                %s::timestamptz[]) as told(target, seat)
            order by target, seat
           on conflict (target, seat) do update
              set desired = excluded.desired, effect = excluded.effect, version = excluded.version, decision = seat.decision + 1,
                  policy_version = excluded.policy_version, accepted_at = excluded.accepted_at, course = excluded.course,
                  base_role = excluded.base_role, tenant = excluded.tenant, person = excluded.person, section = excluded.section
            where (seat.tenant, seat.person) = (excluded.tenant, excluded.person)
               or (seat.desired = 'deleted'
                   and not exists (select from entitlement as theirs
                                    where (theirs.target, theirs.seat) = (seat.target, seat.seat)
                                      and (theirs.tenant, theirs.person) = (seat.tenant, seat.person)))
           returning target, seat, decision, {SATISFIED}, {NEEDS_LEAVE}""".encode(),  # noqa: S608  (a constant of ours)
        [text_array(column) for column in zip(*rows, strict=True)],
    ).fetchall()
    return {SeatRef(target, seat): _Written(*rest) for target, seat, *rest in found}


def _write_work(
    connection: Connection, changes: Sequence[Change], written: Mapping[SeatRef, _Written], swap_settle_seconds: float
) -> set[SeatRef]:
    """One work row for each seat that is not as it should be, none for those that are. The seats are locked.

    Whether a seat that is as it should be has something left is a longer question, so that it is asked only when there is one.
    All of the batch are asked about then: work rows are locked in one order.
    """
    delays = [swap_settle_seconds if one.effect == "drop" else 0 for one in changes]
    if any(written[one.ref].satisfied for one in changes):
        return _look_for_work(connection, changes, delays)
    _give_work(connection, changes, written, delays)
    return {one.ref for one in changes}


def _give_work(
    connection: Connection, changes: Sequence[Change], written: Mapping[SeatRef, _Written], delays: Sequence[float]
) -> None:
    """What the LMS does not have as wanted is work, whatever is under way."""
    connection.execute(
        f"""insert into work (target, seat, tenant, person, course, term, state, priority, next_at)
            select target, seat, tenant, person, course, {TERM}, state, priority,
                   clock_timestamp() + delay * interval '1 second'
              from unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::smallint[],
                          %s::float8[])
                as seat(target, seat, tenant, person, course, section, state, priority, delay)
             order by target, seat
            {_BEGIN_ANEW}""".encode(),  # noqa: S608  (constants of ours)
        [
            text_array(one.ref.target for one in changes),
            text_array(one.ref.seat for one in changes),
            text_array(one.seat.tenant for one in changes),
            text_array(one.seat.person for one in changes),
            text_array(one.seat.course for one in changes),
            text_array(one.seat.section for one in changes),
            text_array("guarded" if written[one.ref].needs_leave else "pending" for one in changes),
            text_array(str(one.priority) for one in changes),
            text_array(map(str, delays)),
        ],
    )


def _look_for_work(connection: Connection, changes: Sequence[Change], delays: Sequence[float]) -> set[SeatRef]:
    """The same where some seats are as wanted: they have work only while something is under way, or not known.

    Two statements, because each must see what became visible while the one before it waited for a lock: the seats are locked
    already, now the work rows, and only then is it asked whether a call is under way. A driver that had locked either of
    them has committed its intent by now; one that comes later finds what we leave.
    """
    columns = [
        text_array(one.ref.target for one in changes),
        text_array(one.ref.seat for one in changes),
        text_array(str(one.priority) for one in changes),
        text_array(map(str, delays)),
    ]
    connection.execute(
        """select from work join unnest(%s::text[], %s::text[]) as t(target, seat) using (target, seat)
            order by target, seat for update of work""",
        columns[:2],
    )
    rows = connection.execute(_WORK.encode(), columns).fetchall()
    return {SeatRef(target, seat) for target, seat in rows}


_BEGIN_ANEW = """on conflict (target, seat) do update
   set state = excluded.state, priority = excluded.priority, next_at = excluded.next_at, course = excluded.course,
       tenant = excluded.tenant, person = excluded.person,
       attempts = 0, reason = null, code = null, releases = 0, waits_kind = null, waits_object = null,
       hold = case when excluded.state = 'guarded' then work.hold end, hold_number = null"""

_WORK = f"""
with fact as (
  select told.*, seat.tenant, seat.person, seat.course, {TERM} as term, seat.suspect_until,
         {SATISFIED} as satisfied, {NEEDS_LEAVE} as needs_leave,
         seat.fence is not null or coalesce(work.read_first, false)
           or exists (select from intent
                       where intent.target = seat.target and intent.seat = seat.seat and intent.person = seat.person
                         and intent.closed_at is null) as busy
    from unnest(%s::text[], %s::text[], %s::smallint[], %s::float8[]) as told(target, seat, priority, delay)
    join seat using (target, seat)
    left join work using (target, seat)
), settled as (
  delete from work using fact
   where (work.target, work.seat) = (fact.target, fact.seat)
     and fact.satisfied and not fact.busy and fact.suspect_until is null
)
insert into work (target, seat, tenant, person, course, term, state, priority, next_at)
select target, seat, tenant, person, course, term,
       case when satisfied and not busy then 'suspect' when needs_leave then 'guarded' else 'pending' end,
       priority,
       case when satisfied and not busy then suspect_until else clock_timestamp() + delay * interval '1 second' end
  from fact
 where not satisfied or busy or suspect_until is not null
 order by target, seat
{_BEGIN_ANEW}
returning target, seat
"""  # noqa: S608  (constants of ours)


def _happening(change: Change, cause: Cause, written: _Written | None) -> Happening:
    return Happening(
        tenant=change.seat.tenant,
        person=change.seat.person,
        what="conflict" if written is None else "decided",
        section=change.seat.section,
        target=change.ref.target,
        seat=change.ref.seat,
        kind=change.source.kind if change.source else None,
        key=change.source.key if change.source else None,
        version=change.because.version,
        detail={
            "before": change.before,
            "desired": change.after,
            "effect": change.effect,
            "decision": written.decision if written else None,
            "policy_version": change.policy_version,
            "cause": cause,
        },
    )
