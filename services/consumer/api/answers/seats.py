"""Answers of ``/seats/summary`` and ``/dead-letters``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from services.consumer.api.bodies import Institution, Moment, PersonId, SectionPlace, Target, Tenant, TermId
from services.consumer.nouns import AppliedState, MissingKind, SeatState, WorkState
from services.kit.openapi import Described

_CLASS = Field(alias="class", examples=["refused:validation"])
_SEATS = Field(examples=[3])


class StateCount(Described):
    """Seats in one state."""

    state: WorkState | Literal["settled"] = Field(examples=["dead"])
    waits_for: MissingKind | None = Field(default=None, examples=[None])
    """Of waiting seats: what the LMS lacks."""
    dead_class: str | None = Field(default=None, alias="class", examples=["refused:validation"])
    """Of dead ones: why."""
    seats: int = _SEATS
    oldest_at: Moment | None = None
    """When the longest one entered the state."""
    next_at: Moment | None = None
    """When the first is tried again by itself."""


class Beside(Described):
    """Seats with something about them beside their state."""

    seats: int = _SEATS
    oldest_at: Moment | None


class Backlog(Described):
    """What is left to do that needs nobody else."""

    seats: int = Field(examples=[12])
    per_minute: float = Field(examples=[48.0])
    """What was confirmed lately."""
    eta_seconds: float | None = Field(examples=[15.0])
    """Until all of it is done at this pace; `null` while nothing is being done."""


class SeatSummary(Described):
    """All seats in the scope, by state."""

    target: Target
    institution: Institution | None
    term: TermId | None
    seats: int = Field(examples=[940])
    backlog: Backlog
    states: list[StateCount]
    suspect: Beside
    """A call of unknown outcome may still land."""
    intent_open: Beside
    """A call is under way, or was when its driver died."""


class DeadLetterClass(Described):
    """The dead letters of one cause."""

    dead_class: str = _CLASS
    seats: int = _SEATS
    oldest_at: Moment
    newest_at: Moment
    tried_again_after_seconds: float = Field(examples=[86400.0])
    """After each death, by the timer of the class."""
    tried_again_at_most: int | None = Field(examples=[3])
    """So often for one decision; `null`: for as long as it takes."""
    next_at: Moment | None
    """When the timer brings the first back."""
    left_to_people: int = Field(examples=[1])
    """No timer brings these back."""


class DeadLetterClasses(Described):
    """The classes that there are."""

    target: Target
    seats: int = _SEATS
    classes: list[DeadLetterClass]


class DeadLetterPlace(Described):
    """Where the next page begins."""

    since: Moment
    seat: str = Field(examples=["PSUNV-1259-1001/0009001/StudentEnrollment/"])


class DeadLetter(Described):
    """A seat that the LMS refuses for good."""

    tenant: Tenant
    person: PersonId
    section: SectionPlace
    lms_section: str = Field(examples=["PSUNV-1259-1001"])
    """SIS id of the section in the LMS."""
    lms_user: PersonId
    """SIS id of the user in the LMS."""
    role: str = Field(examples=["StudentEnrollment"])
    desired: SeatState
    applied: AppliedState = Field(examples=["absent"])
    version: int = Field(examples=[1767225600000000])
    """Of the event that decided it."""
    dead_since: Moment
    unsettled_since: Moment
    releases: int = Field(examples=[2])
    """How often a timer has tried it again."""


class DeadLetterPage(Described):
    """Dead letters of one class, those that died first first."""

    target: Target
    dead_class: str = _CLASS
    dead_letters: list[DeadLetter]
    next_after: DeadLetterPlace | None
