"""What a decision is made from, and what it says: the nouns of `decide`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal, NamedTuple

from schemas.events import EnrollmentRole, EnrollmentStatus
from schemas.keys import EntityKey
from services.consumer.nouns import Seat, SeatRef, SeatState


class Stamp(NamedTuple):
    """Which event a decision rests on. The later acceptance is the newer one."""

    accepted_at: datetime
    version: int


def stamp_of(at: datetime) -> Stamp:
    """Of what is no event: it is numbered as events are, by the clock in microseconds."""
    return Stamp(at, round(at.timestamp() * 1_000_000))


@dataclass(frozen=True, slots=True)
class SectionState:
    """What decides about a section's members."""

    status: Literal["active", "tentative", "closed", "cancelled", "removed"]
    course: str | None
    """Course key text."""
    stamp: Stamp
    session: str | None = None
    """Part of term, as the SIS codes it."""
    component: str | None = None
    """Lecture, laboratory, discussion, ..., as the SIS codes it."""


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

    @property
    def is_learner(self) -> bool:
        """Takes the class, in whatever role; otherwise teaches it."""
        return self.entity.key.endswith("/learner")


def status_of(enrollment: Enrollment) -> EnrollmentStatus:
    """A class that does not take place cancels its members; who never had a seat in it still has none."""
    gone = enrollment.section is not None and enrollment.section.status in ("cancelled", "removed")
    return "cancelled" if gone and enrollment.status != "waitlisted" else enrollment.status


class OverrideKey(NamedTuple):
    """Names one override, as `EntityKey` names an entity; the two sort together."""

    tenant: str
    kind: Literal["override"]
    key: str
    """Its number."""


Source = EntityKey | OverrideKey
"""What a seat is decided by."""


class Override(NamedTuple):
    """A registrar's exception that is in force: what one seat is, whatever the SIS says. Whoever decides says which are."""

    number: int
    tenant: str
    person: str
    section: str
    """Section key text."""
    role: EnrollmentRole
    state: SeatState
    made_at: datetime
    course: str | None = None
    """Course key text of the section, None while the SIS has not said."""
    adopted: bool = False
    """It stands for what somebody did in the LMS, not for a registrar's word."""

    @property
    def source(self) -> OverrideKey:
        """What it is called where entities are meant as well."""
        return OverrideKey(self.tenant, "override", str(self.number))


class Entitlement(NamedTuple):
    """What one entity, or one override, gives one seat."""

    source: Source
    ref: SeatRef
    """The seat's identity, made once."""
    seat: Seat
    state: SeatState
    because: Stamp
    """The newest event behind it: the section's when that changed last. Of an override, when it was made."""
