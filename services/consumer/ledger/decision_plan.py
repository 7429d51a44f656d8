"""What deciding people would change in the ledger. Reads only, so that a policy can be tried before it is applied."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from schemas.keys import EntityKey
from services.consumer.ledger import enrollments
from services.consumer.ledger.overrides import Overrides
from services.consumer.ledger.policies import ActivePolicy
from services.consumer.nouns import (
    PRIORITY_ADD,
    PRIORITY_DROP,
    PRIORITY_INSTRUCTOR,
    AppliedState,
    Effect,
    PersonRef,
    Seat,
    SeatRef,
    SeatState,
)
from services.consumer.policy.courses import follow_primaries
from services.consumer.policy.decide import decide, effect_of, fold, next_start
from services.consumer.policy.facts import Enrollment, Entitlement, Override, OverrideKey, Source, Stamp
from services.kit.postgres import Connection, text_array

_STAFF = frozenset({"TeacherEnrollment", "TaEnrollment", "DesignerEnrollment"})

EntitlementKey = tuple[Source, SeatRef]


class _SeatRow(NamedTuple):
    """A seat as the ledger holds it; flat, because nearly all of them are only compared."""

    desired: SeatState
    applied: AppliedState
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
        return Seat(*self[4:])

    @property
    def because(self) -> Stamp:
        return Stamp(self.accepted_at, self.version)


class Change(NamedTuple):
    """A seat whose desired state changes."""

    ref: SeatRef
    seat: Seat
    source: Source | None
    """Whose entitlement decided it, or was the last to go; None when the ledger no longer knows."""
    before: SeatState | None
    after: SeatState
    applied: AppliedState
    """What the LMS has; `unknown` also of a seat that the ledger did not know."""
    because: Stamp
    effect: Effect
    policy_version: int

    @property
    def priority(self) -> int:
        """Of the work that it makes."""
        if self.effect == "drop":
            return PRIORITY_DROP
        return PRIORITY_INSTRUCTOR if self.seat.base_role in _STAFF else PRIORITY_ADD


@dataclass(frozen=True, slots=True)
class Plan:
    """What a round of decisions writes."""

    entitlements: list[Entitlement]
    """New."""
    lapsed: list[EntitlementKey]
    """No longer given."""
    changes: list[Change]
    """In the order of the seats."""
    unchanged: int
    """Seats that stay as they are."""
    moved: list[Seat]
    """Seats whose section, course or base role the SIS or the policy tells differently, while their state stays."""
    wakes: dict[PersonRef, datetime]
    """When to decide these people again, because time alone changes what their enrollments give."""
    agreed: list[Override]
    """Adoptions that the SIS has overtaken: without them it decides."""


def plan(
    connection: Connection,
    persons: Sequence[PersonRef],
    active: Mapping[str, ActivePolicy],
    target: str,
    overrides: Overrides,
    now: datetime,
) -> Plan:
    """What these people's seats should be under these policies and overrides at this moment, beside what the ledger wants.

    To write it down, lock the persons before: what is read without the locks may be old.
    """
    entities = enrollments.read(connection, persons)
    of_persons = [
        decide(theirs, active[person.tenant].policy, target, overrides.in_force.get(person, ()), now)
        for person, theirs in entities.items()
    ]
    given = {(one.source, one.ref): one for theirs in of_persons for one in theirs}
    stored = _stored_entitlements(connection, persons, target)
    seats = _stored_seats(connection, persons, target)
    wanted = _wanted(of_persons, seats)
    lapsed = [key for key in stored if key not in given]
    newest: dict[Source, Stamp] = {
        one.entity: one.newest
        for person, theirs in entities.items()
        for one in follow_primaries(theirs, active[person.tenant].policy)
    }
    newest |= overrides.stamps
    changes = [
        *_changed(wanted, seats, _let_go(lapsed, newest), active),
        *_orphaned({ref: row for ref, row in seats.items() if ref not in wanted}, lapsed, newest, active),
    ]
    return Plan(
        entitlements=[one for key, one in given.items() if key not in stored],
        lapsed=lapsed,
        changes=sorted(changes, key=_by_ref),
        unchanged=len(seats.keys() | wanted.keys()) - len(changes),
        moved=[one.seat for ref, one in wanted.items() if ref in seats and _has_moved(one, seats[ref])],
        wakes=dict(_wakes(entities, active, now)),
        agreed=list(_agreed(of_persons, overrides)),
    )


def _wanted(of_persons: Iterable[Iterable[Entitlement]], seats: Mapping[SeatRef, _SeatRow]) -> dict[SeatRef, Entitlement]:
    """What each seat should be. Two people of the student system may be one user of the LMS: the seat is decided by what its own
    person is entitled to, whoever else is decided at the same time."""
    wanted: dict[SeatRef, Entitlement] = {}
    for theirs in of_persons:
        for ref, one in fold(theirs).items():
            if ref not in wanted or (ref in seats and seats[ref].person == one.seat.person):
                wanted[ref] = one
    return wanted


def _wakes(
    entities: Mapping[PersonRef, Sequence[Enrollment]], active: Mapping[str, ActivePolicy], now: datetime
) -> Iterator[tuple[PersonRef, datetime]]:
    for person, theirs in entities.items():
        policy = active[person.tenant].policy
        at = next_start(theirs, policy, now) if policy.waits_for_starts else None
        if at is not None:
            yield person, at


def _agreed(of_persons: Iterable[Sequence[Entitlement]], overrides: Overrides) -> Iterator[Override]:
    """The SIS says the same of the seat by now, or takes access away as well, and later: whoever did that in the LMS was only
    ahead of it. So that a student who was let in early and drops does not stay."""
    adopted: dict[Source, Override] = {one.source: one for theirs in overrides.in_force.values() for one in theirs if one.adopted}
    for given in of_persons if adopted else ():
        said = fold([one for one in given if one.source.kind != "override"])
        yield from (
            adopted[one.source] for one in given if one.source in adopted and one.ref in said and _agree(one, said[one.ref])
        )


def _agree(adopted: Entitlement, said: Entitlement) -> bool:
    if adopted.state == said.state:
        return True
    return "active" not in (adopted.state, said.state) and said.because.accepted_at > adopted.because.accepted_at


def _by_ref(change: Change) -> SeatRef:
    return change.ref


def _let_go(lapsed: Iterable[EntitlementKey], newest: Mapping[Source, Stamp]) -> dict[SeatRef, Stamp]:
    """Seats that an override does not decide any more, and since when: what the SIS says of them is old by now."""
    return {ref: newest[source] for source, ref in lapsed if source.kind == "override"}


def _changed(
    wanted: Mapping[SeatRef, Entitlement],
    seats: Mapping[SeatRef, _SeatRow],
    let_go: Mapping[SeatRef, Stamp],
    active: Mapping[str, ActivePolicy],
) -> Iterator[Change]:
    for ref, one in wanted.items():
        row = seats.get(ref)
        before = row.desired if row else None
        if before != one.state:
            applied: AppliedState = row.applied if row else "unknown"
            effect, version = effect_of(before, one.state), active[one.seat.tenant].version
            because = one.because
            if ref in let_go:
                because = Stamp(max(because.accepted_at, let_go[ref].accepted_at), because.version)
            yield Change(ref, one.seat, one.source, before, one.state, applied, because, effect, version)


def _orphaned(
    left: Mapping[SeatRef, _SeatRow],
    lapsed: Iterable[EntitlementKey],
    newest: Mapping[Source, Stamp],
    active: Mapping[str, ActivePolicy],
) -> Iterator[Change]:
    """Nothing entitles to these seats any more (another role, another section, the waiting list): they should be gone."""
    last = {ref: source for source, ref in sorted(lapsed, key=lambda key: newest[key[0]])}
    for ref, row in left.items():
        if row.desired != "deleted":
            source = last.get(ref)
            because = newest[source] if source else row.because
            effect, version = effect_of(row.desired, "deleted"), active[row.tenant].version
            yield Change(ref, row.seat, source, row.desired, "deleted", row.applied, because, effect, version)


def _has_moved(wanted: Entitlement, row: _SeatRow) -> bool:
    return (wanted.seat.section, wanted.seat.course, wanted.seat.base_role) != (row.section, row.course, row.base_role)


def _stored_entitlements(connection: Connection, persons: Sequence[PersonRef], target: str) -> set[EntitlementKey]:
    rows = connection.execute(
        """select e.tenant, e.kind, e.key, e.target, e.seat
             from unnest(%s::text[], %s::text[]) as p(tenant, person)
            cross join lateral (
              select * from entitlement where entitlement.tenant = p.tenant and entitlement.person = p.person offset 0) as e
            where e.target = %s""",
        [*_columns(persons), target],
    ).fetchall()
    return {(source_of(*row[:3]), SeatRef(*row[3:])) for row in rows}


def _stored_seats(connection: Connection, persons: Sequence[PersonRef], target: str) -> dict[SeatRef, _SeatRow]:
    """Read without a lock: only who holds the person's lock changes `desired`."""
    rows = connection.execute(
        """select s.seat, s.desired, s.applied, s.accepted_at, s.version, s.target, s.tenant, s.person, s.section, s.course,
                  s.lms_section, s.lms_user, s.role, s.base_role, s.associated_user
             from unnest(%s::text[], %s::text[]) as p(tenant, person)
            cross join lateral (
              select * from seat where seat.tenant = p.tenant and seat.person = p.person offset 0) as s
            where s.target = %s""",
        [*_columns(persons), target],
    ).fetchall()
    return {SeatRef(row[5], row[0]): _SeatRow(*row[1:]) for row in rows}


def _columns(persons: Sequence[PersonRef]) -> list[str]:
    return [text_array(one.tenant for one in persons), text_array(one.person for one in persons)]


def source_of(tenant: str, kind: Any, key: str) -> Source:
    """As the ledger stores it."""
    return OverrideKey(tenant, kind, key) if kind == "override" else EntityKey(tenant, kind, key)
