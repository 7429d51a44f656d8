"""From what the SIS says to what the seats should be: pure, no clock, no I/O.

The decision depends on the newest state of the entities alone, never on the order in which they came, so deciding again
changes nothing and a replay decides what the live stream decided.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, NamedTuple

from schemas.events import EnrollmentRole, EnrollmentStatus
from schemas.keys import EntityKey
from services.consumer.nouns import Effect, Seat, SeatRef, SeatState
from services.consumer.policy.model import Place, Policy

_STRENGTH: dict[SeatState, int] = {"active": 3, "inactive": 2, "completed": 1, "deleted": 0}
"""Strongest access wins where several entitlements meet in one seat."""


class Stamp(NamedTuple):
    """Which event a decision rests on. The later acceptance is the newer one."""

    accepted_at: datetime
    version: int


@dataclass(frozen=True, slots=True)
class SectionState:
    """What decides about a section's members."""

    status: Literal["active", "tentative", "closed", "cancelled", "removed"]
    course: str | None
    """Course key text."""
    stamp: Stamp
    session: str | None = None
    """Part of term, as the SIS codes it."""


class Enrollment(NamedTuple):
    """One enrollment entity at its newest version, with its section's when the SIS has told it."""

    entity: EntityKey
    status: EnrollmentStatus
    role: EnrollmentRole
    effective_date: date | None
    """The change's own business date. Rules about dates use this and never today: a replay has to decide alike."""
    stamp: Stamp
    section: SectionState | None = None

    @property
    def newest(self) -> Stamp:
        """The newest of the events that this enrollment's decision rests on."""
        return max(self.stamp, self.section.stamp) if self.section else self.stamp


class Entitlement(NamedTuple):
    """What one entity gives one seat."""

    entity: EntityKey
    ref: SeatRef
    """The seat's identity, made once."""
    seat: Seat
    state: SeatState
    version: int
    """Of the entity."""
    because: Stamp
    """The newest event behind it: the section's when that changed last."""
    decide_again_at: datetime | None = None
    """When time alone will change the decision (a start in the future); None: only an event or another policy can."""


def decide(enrollments: Iterable[Enrollment], policy: Policy, target: str) -> list[Entitlement]:
    """What the enrollments of a person give, in the order of their keys. A status or role that gives no seat gives nothing."""
    found = (_entitlement(enrollment, policy, target) for enrollment in sorted(enrollments, key=_by_key))
    return [entitlement for entitlement in found if entitlement is not None]


def _by_key(enrollment: Enrollment) -> EntityKey:
    return enrollment.entity


def _entitlement(enrollment: Enrollment, policy: Policy, target: str) -> Entitlement | None:
    role = policy.roles[enrollment.role]
    institution, term, section, person, _family = enrollment.entity.parts
    tenant = enrollment.entity.tenant
    told = enrollment.section
    place = Place(institution, term, told.session if told else None)
    state = policy.state(_status(enrollment), enrollment.effective_date, place)
    if role is None or state is None:
        return None
    seat = Seat(
        target=target,
        tenant=tenant,
        person=person,
        section=enrollment.entity.section,
        course=told.course if told else None,
        lms_section=policy.sis_ids.section.format(tenant=tenant, institution=institution, term=term, section=section),
        lms_user=policy.sis_ids.user.format(tenant=tenant, person=person),
        role=role.label,
        base_role=role.base,
    )
    return Entitlement(enrollment.entity, seat.ref, seat, state, enrollment.stamp.version, enrollment.newest)


def _status(enrollment: Enrollment) -> EnrollmentStatus:
    """A class that does not take place cancels its members; who never had a seat in it still has none."""
    gone = enrollment.section is not None and enrollment.section.status in ("cancelled", "removed")
    return "cancelled" if gone and enrollment.status != "waitlisted" else enrollment.status


def fold(entitlements: Iterable[Entitlement]) -> dict[SeatRef, Entitlement]:
    """The entitlement that decides each seat: the strongest, and among equals the newest event counts as its reason."""
    seats: dict[SeatRef, Entitlement] = {}
    for one in entitlements:
        known = seats.get(one.ref)
        if known is None or _rank(known) < _rank(one):
            seats[one.ref] = one
    return seats


def _rank(one: Entitlement) -> tuple[int, Stamp, EntityKey]:
    return _STRENGTH[one.state], one.because, one.entity


def effect_of(before: SeatState | None, after: SeatState) -> Effect:
    """What a change of a seat does to its person; `before` is None for a seat that the ledger did not know."""
    if after == "active":
        return "add"
    if after == "deleted" or (after == "inactive" and before != "deleted"):
        return "drop"
    return "update"
