"""Deciding people under their locks, and writing down what has to be done.

Every transaction that decides, whoever asks for it, goes through `decide_persons`: it locks the persons, sorted, and only then
reads their entities. So two that decide the same person pass one after the other, and the second sees what the first has written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

import structlog

from schemas.keys import EntityKey
from services.consumer.ledger import enrollments, history
from services.consumer.ledger.history import Happening
from services.consumer.ledger.policies import ActivePolicy, Policies
from services.consumer.nouns import (
    PRIORITY_ADD,
    PRIORITY_DROP,
    PRIORITY_INSTRUCTOR,
    SATISFIED,
    TAKES_AWAY,
    TERM,
    Effect,
    PersonRef,
    Seat,
    SeatRef,
    SeatState,
)
from services.consumer.policy.decide import Entitlement, Stamp, decide, effect_of, fold
from services.kit.postgres import Connection, text_array

log = structlog.get_logger()
Cause = Literal["intake", "section", "replay", "policy", "release"]
"""Who asked: the live stream, a large section that changed (its members come after its event), a replay, another policy, or
parked records that this reader knows at last."""

_CHUNK = 500
"""People decided with one round of statements; a section's own event may touch thousands."""

_STAFF = frozenset({"TeacherEnrollment", "TaEnrollment", "DesignerEnrollment"})


def decide_persons(
    connection: Connection,
    persons: Collection[PersonRef],
    policies: Policies,
    *,
    cause: Cause,
    effects: Counter[Effect | Literal["none"]] | None = None,
) -> set[SeatRef]:
    """Decide these people from what the ledger knows, in the caller's open transaction; returns the seats that now have work.

    Writes entitlements, seats, work and history, and only where something changes. `effects` counts the decisions. A tenant
    without a policy gets no seats. Calls that are under way are left alone: whoever settles them looks at the seat again.
    """
    ordered = sorted(set(persons))
    if not ordered:
        return set()
    lock_persons(connection, ordered)
    active = policies.active(connection)
    work: set[SeatRef] = set()
    for chunk in _chunks([person for person in ordered if person.tenant in active]):
        plan = _plan(connection, chunk, active, policies.target, cause)
        _write_entitlements(connection, plan)
        work |= _write_seats(connection, plan.changes, policies, cause)
        if effects is not None:
            effects.update(change.effect for change in plan.changes)
            effects["none"] += plan.unchanged
    return work


def lock_persons(connection: Connection, ordered: Sequence[PersonRef]) -> None:
    """Take the locks that stand for these people, in the order of their keys, creating what is missing.

    The update never happens: a row that is there already is locked, and left as it is.
    """
    connection.execute(
        """insert into person (tenant, person)
           select * from unnest(%s::text[], %s::text[]) as p(tenant, person) order by tenant, person
           on conflict (tenant, person) do update set person = excluded.person where false""",
        _person_columns(ordered),
    )


def _chunks(persons: Sequence[PersonRef]) -> Iterator[Sequence[PersonRef]]:
    return (persons[start : start + _CHUNK] for start in range(0, len(persons), _CHUNK))


class _SeatRow(NamedTuple):
    """A seat as the ledger holds it; flat, because nearly all of them are only compared."""

    desired: SeatState
    accepted_at: datetime
    version: int
    target: str
    tenant: str
    person: str
    section: str
    course: str | None
    lms_section: str
    lms_user: str
    role: str
    base_role: str
    associated_user: str

    @property
    def seat(self) -> Seat:
        return Seat(*self[3:])

    @property
    def because(self) -> Stamp:
        return Stamp(self.accepted_at, self.version)


class _Change(NamedTuple):
    """A seat whose desired state changes."""

    ref: SeatRef
    seat: Seat
    entity: EntityKey | None
    """Whose entitlement decided it, or was the last to go; None when the ledger no longer knows."""
    before: SeatState | None
    after: SeatState
    because: Stamp
    effect: Effect
    policy_version: int

    @property
    def priority(self) -> int:
        if self.effect == "drop":
            return PRIORITY_DROP
        return PRIORITY_INSTRUCTOR if self.seat.base_role in _STAFF else PRIORITY_ADD


_EntitlementKey = tuple[EntityKey, SeatRef]


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a round of decisions writes."""

    entitlements: list[Entitlement]
    """New."""
    lapsed: list[_EntitlementKey]
    """No longer given."""
    changes: list[_Change]
    unchanged: int
    """Seats that stay as they are."""
    moved: list[Seat]
    """Seats whose course or base role the SIS or the policy tells differently, while their state stays."""


def _plan(
    connection: Connection, persons: Sequence[PersonRef], active: dict[str, ActivePolicy], target: str, cause: Cause
) -> _Plan:
    entities = enrollments.read(connection, persons)
    given = {
        (one.entity, one.ref): one
        for person, theirs in entities.items()
        for one in decide(theirs, active[person.tenant].policy, target)
    }
    stored = _stored_entitlements(connection, persons, target)
    seats = _stored_seats(connection, persons, target)
    wanted = fold(given.values())
    lapsed = [key for key in stored if key not in given]
    newest = {one.entity: one.newest for theirs in entities.values() for one in theirs}
    changes = [
        *_changed(wanted, seats, active),
        *_orphaned({ref: row for ref, row in seats.items() if ref not in wanted}, lapsed, newest, active),
    ]
    if cause == "policy":
        changes = _because_of_the_policy(connection, changes)
    return _Plan(
        entitlements=[one for key, one in given.items() if key not in stored],
        lapsed=lapsed,
        changes=sorted(changes, key=_by_ref),
        unchanged=len(seats.keys() | wanted.keys()) - len(changes),
        moved=[one.seat for ref, one in wanted.items() if ref in seats and _has_moved(one, seats[ref])],
    )


def _by_ref(change: _Change) -> SeatRef:
    return change.ref


def _changed(
    wanted: dict[SeatRef, Entitlement], seats: dict[SeatRef, _SeatRow], active: dict[str, ActivePolicy]
) -> Iterator[_Change]:
    for ref, one in wanted.items():
        before = seats[ref].desired if ref in seats else None
        if before != one.state:
            effect, version = effect_of(before, one.state), active[one.seat.tenant].version
            yield _Change(ref, one.seat, one.entity, before, one.state, one.because, effect, version)


def _orphaned(
    left: dict[SeatRef, _SeatRow],
    lapsed: Iterable[_EntitlementKey],
    newest: dict[EntityKey, Stamp],
    active: dict[str, ActivePolicy],
) -> Iterator[_Change]:
    """Nothing entitles to these seats any more (another role, another section, the waiting list): they should be gone."""
    last = {ref: entity for entity, ref in sorted(lapsed, key=lambda key: newest[key[0]])}
    for ref, row in left.items():
        if row.desired != "deleted":
            entity = last.get(ref)
            because = newest[entity] if entity else row.because
            effect, version = effect_of(row.desired, "deleted"), active[row.tenant].version
            yield _Change(ref, row.seat, entity, row.desired, "deleted", because, effect, version)


def _has_moved(wanted: Entitlement, row: _SeatRow) -> bool:
    return (wanted.seat.course, wanted.seat.base_role) != (row.course, row.base_role)


def _because_of_the_policy(connection: Connection, changes: list[_Change]) -> list[_Change]:
    """Freshness of what another policy changes counts from now, not from the old event."""
    row = connection.execute("select clock_timestamp()").fetchone()
    assert row is not None  # noqa: S101  (always one row)
    return [one._replace(because=Stamp(row[0], one.because.version)) for one in changes]


def _stored_entitlements(connection: Connection, persons: Sequence[PersonRef], target: str) -> set[_EntitlementKey]:
    rows = connection.execute(
        """select e.tenant, e.kind, e.key, e.target, e.seat
             from unnest(%s::text[], %s::text[]) as p(tenant, person)
             join entitlement e using (tenant, person) where e.target = %s""",
        [*_person_columns(persons), target],
    ).fetchall()
    return {(EntityKey(*row[:3]), SeatRef(*row[3:])) for row in rows}


def _stored_seats(connection: Connection, persons: Sequence[PersonRef], target: str) -> dict[SeatRef, _SeatRow]:
    """Read without a lock: only who holds the person's lock changes `desired`."""
    rows = connection.execute(
        """select s.seat, s.desired, s.accepted_at, s.version, s.target, s.tenant, s.person, s.section, s.course, s.lms_section,
                  s.lms_user, s.role, s.base_role, s.associated_user
             from unnest(%s::text[], %s::text[]) as p(tenant, person)
             join seat s using (tenant, person) where s.target = %s""",
        [*_person_columns(persons), target],
    ).fetchall()
    return {SeatRef(row[4], row[0]): _SeatRow(*row[1:]) for row in rows}


def _person_columns(persons: Sequence[PersonRef]) -> list[str]:
    return [text_array(one.tenant for one in persons), text_array(one.person for one in persons)]


def _write_entitlements(connection: Connection, plan: _Plan) -> None:
    if plan.lapsed:
        connection.execute(
            """delete from entitlement e
                using unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[]) as gone(tenant, kind, key, target, seat)
                where (e.tenant, e.kind, e.key, e.target, e.seat) = (gone.tenant, gone.kind, gone.key, gone.target, gone.seat)""",
            [text_array(column) for column in zip(*((*entity, *ref) for entity, ref in plan.lapsed), strict=True)],
        )
    if plan.entitlements:
        rows = [(*one.entity, *one.ref, one.seat.person) for one in plan.entitlements]
        connection.execute(
            """insert into entitlement (tenant, kind, key, target, seat, person)
               select * from unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[])
               on conflict (tenant, kind, key, target, seat) do nothing""",
            [text_array(column) for column in zip(*rows, strict=True)],
        )
    if plan.moved:
        _move(connection, plan.moved)


def _move(connection: Connection, seats: Sequence[Seat]) -> None:
    ordered = sorted(seats, key=lambda seat: seat.ref)
    columns = [
        text_array(seat.ref.target for seat in ordered),
        text_array(seat.ref.seat for seat in ordered),
        text_array(seat.course for seat in ordered),
        text_array(seat.base_role for seat in ordered),
    ]
    connection.execute(
        """with told as (select * from unnest(%s::text[], %s::text[], %s::text[], %s::text[])
                             as t(target, seat, course, base_role)),
                locked as (select s.target, s.seat from seat s join told using (target, seat)
                            order by s.target, s.seat for no key update of s),
                moved as (update seat s set course = told.course, base_role = told.base_role
                            from told join locked using (target, seat)
                           where (s.target, s.seat) = (told.target, told.seat))
           update work w set course = told.course from told where (w.target, w.seat) = (told.target, told.seat)""",
        columns,
    )


def _write_seats(connection: Connection, changes: Sequence[_Change], policies: Policies, cause: Cause) -> set[SeatRef]:
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
    takes_away: bool
    """Making it so takes somebody's access away, which is the guard's to allow."""


def _upsert_seats(connection: Connection, changes: Sequence[_Change]) -> dict[SeatRef, _Written]:
    """What became of each seat; a seat of another person (two SIS ids with one LMS id) is left alone, and missing here."""
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
                  base_role = excluded.base_role
            where seat.tenant = excluded.tenant and seat.person = excluded.person
           returning target, seat, decision, {SATISFIED}, {TAKES_AWAY}""".encode(),  # noqa: S608  (a constant of ours)
        [text_array(column) for column in zip(*rows, strict=True)],
    ).fetchall()
    return {SeatRef(target, seat): _Written(*rest) for target, seat, *rest in found}


def _write_work(
    connection: Connection, changes: Sequence[_Change], written: Mapping[SeatRef, _Written], swap_settle_seconds: float
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
    connection: Connection, changes: Sequence[_Change], written: Mapping[SeatRef, _Written], delays: Sequence[float]
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
            text_array("guarded" if written[one.ref].takes_away else "pending" for one in changes),
            text_array(str(one.priority) for one in changes),
            text_array(map(str, delays)),
        ],
    )


def _look_for_work(connection: Connection, changes: Sequence[_Change], delays: Sequence[float]) -> set[SeatRef]:
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
       attempts = 0, reason = null, code = null, releases = 0, waits_kind = null, waits_object = null,
       hold = case when excluded.state = 'guarded' then work.hold end, hold_number = null"""

_WORK = f"""
with fact as (
  select told.*, seat.tenant, seat.person, seat.course, {TERM} as term, seat.suspect_until,
         {SATISFIED} as satisfied, {TAKES_AWAY} as takes_away,
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
       case when satisfied and not busy then 'suspect' when takes_away then 'guarded' else 'pending' end,
       priority,
       case when satisfied and not busy then suspect_until else clock_timestamp() + delay * interval '1 second' end
  from fact
 where not satisfied or busy or suspect_until is not null
 order by target, seat
{_BEGIN_ANEW}
returning target, seat
"""  # noqa: S608  (constants of ours)


def _happening(change: _Change, cause: Cause, written: _Written | None) -> Happening:
    return Happening(
        tenant=change.seat.tenant,
        person=change.seat.person,
        what="conflict" if written is None else "decided",
        section=change.seat.section,
        target=change.ref.target,
        seat=change.ref.seat,
        kind=change.entity.kind if change.entity else None,
        key=change.entity.key if change.entity else None,
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
