"""Answers of ``/holds``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from services.consumer.api.bodies import Moment, PersonId, SectionPlace, Target, Tenant
from services.consumer.guard.holds import HoldState
from services.consumer.guard.judging import ScopeKind, Window
from services.consumer.nouns import SeatState
from services.kit.openapi import Described

_NUMBER = Field(examples=[17])
_PLACE = Field(examples=[{"institution": "PSUNV", "term": "1259", "section": "1001"}])


class Courses(Described):
    """Two classes that had one number."""

    was: str = Field(examples=["009001-1-1259-1"])
    """The course of the class that the number stood for ..."""
    now: str = Field(alias="is", examples=["009417-1-1259-1"])
    """... and of the one that it stands for."""


class FirstApproval(Described):
    """Of the two that a large hold takes."""

    actor: str = Field(examples=["operator"])
    snapshot: int = Field(examples=[4711])
    until: Moment
    """Then it lapses."""


class Hold(Described):
    """Removals of one scope, or access to one section, that need a person."""

    hold: int = _NUMBER
    tenant: Tenant
    scope: ScopeKind
    """What was too many removals of: a section, course, term, source, or the tenant; or classes that were cancelled. Of
    `reused_section` those are held who would get into it."""
    place: dict[str, str] = _PLACE
    """Which one, by the ids of the SIS."""
    cause: str = Field(
        examples=["23 removals within 15 minutes from a section with 26 active seats; the limit is percent 50, at_least 10."]
    )
    """For people."""
    removals: int = Field(examples=[23])
    """When it was opened, with those that had gone before."""
    active: int = Field(examples=[26])
    """Seats of the scope that gave access then."""
    gained: int = Field(examples=[0])
    """Seats of the scope that were given in the 15 minutes before: a renamed id gives as many as it takes."""
    limit: str = Field(examples=["percent 50, at_least 10"])
    """The limit that was reached, as the policy writes it."""
    window: Window | None
    """Over what time was counted; `null` where a whole class counts at once."""
    state: HoldState
    """`discarded`: the removals stay held; `emptied`: the student system took all of them back."""
    opened_at: Moment
    closed_at: Moment | None = Field(examples=[None])
    held: int = Field(examples=[23])
    """Removals that are in it now."""
    approved: int = Field(examples=[0])
    """Removals that a person let go."""
    courses: Courses | None = Field(examples=[None])
    """Of a re-used number."""
    first_approval: FirstApproval | None = Field(examples=[None])
    """`null` when nobody waits for a second person."""
    snapshot: int = Field(examples=[4711])
    """The newest removal in it: what approving by this number lets go is what was there to be seen."""


class HoldPage(Described):
    """Holds, the newest first."""

    target: Target
    holds: list[Hold]
    next_after: int | None = _NUMBER
    """Where the next page begins; `null` when this is the last."""


class HeldRemoval(Described):
    """One removal in a hold."""

    number: int = Field(examples=[4711])
    tenant: Tenant
    person: PersonId
    section: SectionPlace
    role: str = Field(examples=["StudentEnrollment"])
    """As the LMS calls it."""
    desired: SeatState = Field(examples=["deleted"])
    """What the seat would become."""
    held_since: Moment


class HoldDetail(Hold):
    """One hold, and a page of what is in it."""

    members: list[HeldRemoval]
    next_after: int | None = Field(examples=[4711])
    """Where the next page of members begins; `null` when this is the last."""


class Approved(Described):
    """The removals that go now."""

    hold: int = _NUMBER
    approved: int = Field(examples=[23])
    left: int = Field(examples=[0])
    """Removals that came after the snapshot; they stay held."""


class Awaited(Described):
    """Noted: nothing goes before a second person has approved as well."""

    hold: int = _NUMBER
    awaits: Literal["a second person"]
    until: Moment
    """Then the first approval lapses."""


class Discarded(Described):
    """The removals that stay held."""

    hold: int = _NUMBER
    state: Literal["discarded"]
    held: int = Field(examples=[23])
