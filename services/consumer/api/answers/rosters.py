"""Answers of ``/comparisons``, ``/differences``, ``/agreement`` and ``/writing``."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from services.consumer.api.bodies import Later, Moment, PersonId, Reason, SectionPlace, Target, Tenant, TermPlace
from services.consumer.nouns import SeatState
from services.consumer.rosters.comparing import Kind
from services.consumer.rosters.runs import RunState
from services.consumer.targets.port import ObservedState
from services.kit.openapi import Described

_RUN = Field(examples=["0d5c3f3e-7a5e-4c0c-8a52-3d3d5a3d7e10"])
_ROLE = Field(examples=["StudentEnrollment"])


class ComparisonStarted(Described):
    """It runs from now on; read it to see how far it is."""

    comparison: UUID = _RUN
    sections: int = Field(examples=[60])
    """To be read."""


class Comparison(Described):
    """One comparison of rosters with the ledger."""

    comparison: UUID = _RUN
    scope: dict[str, Any] = Field(examples=[{"institution": "PSUNV", "term": "1259"}])
    repair: bool = Field(examples=[False])
    state: RunState = Field(examples=["done"])
    actor: str = Field(examples=["operator"])
    created_at: Moment
    finished_at: Moment | None
    sections: int = Field(examples=[60])
    open: int = Field(examples=[0])
    """Sections that are still to be read."""
    missing: int = Field(examples=[1])
    """Sections that the LMS does not have."""
    failed: int = Field(examples=[1])
    """Sections that could not be read."""
    people: int = Field(examples=[1204])
    """Rows of the rosters read so far."""
    untold: int = Field(examples=[3])
    """Seats of which they say nothing for certain."""
    differences: int = Field(examples=[12])
    repairs: int = Field(examples=[0])
    """Seats that were given to the driver, or are adopted, as the policy says."""


class ComparisonList(Described):
    """The newest fifty."""

    target: Target
    comparisons: list[Comparison]


class UnreadSection(Described):
    """A section that could not be read."""

    section: str = Field(examples=["PSUNV-1259-1001"])
    """SIS id in the LMS."""
    code: str = Field(examples=["server_fault"])
    """Why not."""


class ComparisonDetail(Comparison):
    """One comparison, with the sections that could not be read."""

    failed_sections: list[UnreadSection]


class ComparisonCancelled(Described):
    """The comparison that was ended."""

    comparison: UUID = _RUN
    state: Literal["cancelled"]


class Difference(Described):
    """Something that the LMS showed otherwise than the ledger wants it. What does not apply is left out."""

    number: int = Field(examples=[321])
    kind: Kind
    tenant: Tenant
    section: SectionPlace
    person: PersonId | None = None
    """Left out when nobody knows whose row it is."""
    lms_user: str | None = Field(default=None, examples=["0009001"])
    role: str = _ROLE
    desired: SeatState | None = None
    """Left out when the ledger has no such seat."""
    shown: ObservedState
    shown_role: str | None = Field(default=None, examples=["StudentEnrollment"])
    confirmed: bool
    """The LMS had it as wanted, so that somebody changed it since."""
    live: bool
    """The term is written to."""
    lms_enrollment: str | None = Field(default=None, examples=["50000123"])
    lms_course: str | None = Field(default=None, examples=["20017"])
    found_at: Moment
    read_at: Moment
    repair_at: Moment | None = None
    """When it was, or will be, put right by itself."""
    wanted_since: Moment | None = None
    goes_at: Later | None = None
    """From when on the policy has the enrollment of a member whom nobody gave go, with the next comparison."""


class DifferencePage(Described):
    """What stands."""

    target: Target
    differences: list[Difference]
    next_after: int | None = Field(examples=[321])


class DifferenceCount(Described):
    """Differences of one kind in a term."""

    kind: Kind
    changed_by_somebody: bool
    count: int = Field(examples=[12])
    oldest_at: Moment


class TermAgreement(Described):
    """How far one term is as it should be."""

    term: TermPlace
    live: bool
    seats: int = Field(examples=[1204])
    agree: int = Field(examples=[1188])
    """As they should be, when last looked at."""
    unknown: int = Field(examples=[1])
    """Nobody has looked at them."""
    young: int = Field(examples=[3])
    """Of the others, those that the student system changed within a day."""
    sections_read: int = Field(examples=[60])
    oldest_reading_at: Moment | None
    differences: list[DifferenceCount]


class AgreementReport(Described):
    """Term by term."""

    target: Target
    terms: list[TermAgreement]


class WritingWord(Described):
    """Whether something is written to, and who said so."""

    live: bool
    reason: Reason | None = None
    actor: str | None = Field(default=None, examples=["registrar"])
    since: Moment | None = None


class TermWriting(WritingWord):
    """The same of one term."""

    term: TermPlace


class Writing(Described):
    """Which terms are live, and which in shadow."""

    target: Target
    terms: list[TermWriting]
    all_others: WritingWord
    """Of every term that has no word of its own."""


class Released(Described):
    """What the end of a shadow sets going."""

    adds: int = Field(examples=[31])
    removals: int = Field(examples=[4])
    """The guard judges them first."""
    updates: int = Field(examples=[2])


class Switched(Described):
    """Whether it is written to now."""

    live: bool
    released: Released | None = None
    """Of going live."""
