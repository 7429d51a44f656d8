"""The answer of ``/trace``."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from schemas.events import EnrollmentRole
from services.consumer.api.bodies import Later, Moment, PersonId, Reason, SectionPlace, Target, Tenant
from services.consumer.nouns import AppliedState, Effect, MissingKind, Origin, SeatState, WorkState
from services.consumer.rosters.comparing import Kind
from services.consumer.targets.port import ObservedState
from services.kit.openapi import Described

_ROLE = Field(examples=["StudentEnrollment"])
_VERSION = Field(examples=[1767225600000000])


class TraceSubject(Described):
    """What was looked for."""

    tenant: Tenant
    person: PersonId
    section: SectionPlace


class TraceFinding(Described):
    """One sentence about how things stand."""

    code: str = Field(examples=["applied"])
    """For programs; docs/api.md lists them."""
    text: str = Field(examples=["StudentEnrollment should be active, and the LMS has confirmed it."])
    check: str | None = Field(examples=[None])
    """What somebody can do about it."""


class TracedEntity(Described):
    """The newest state that the student system sent of a person or a section."""

    status: str = Field(examples=["active"])
    version: int = _VERSION
    accepted_at: Moment
    """By the publisher."""
    received_at: Moment
    """By this ledger."""
    topic: str | None = Field(examples=["enrollstream.enrollment.v1"])
    partition: int | None = Field(examples=[2])
    offset: int | None = Field(examples=[1204])


class TracedEnrollment(TracedEntity):
    """The newest state of the person in the section, as learner or as staff."""

    status: str = Field(examples=["enrolled"])
    role_family: str = Field(examples=["learner"])
    role: EnrollmentRole
    effective_date: str | None = Field(examples=["2027-01-11"])
    codes: Any = Field(examples=[{"status": "E"}])
    """As the student system has them."""
    session: str | None = Field(examples=["001"])
    begins_at: Moment | None = Field(examples=[None])
    """It gives access only from then on."""


class TracedWork(Described):
    """What is left to do about a seat."""

    state: WorkState
    reason: str | None = Field(examples=["refused:validation"])
    attempts: int = Field(examples=[2])
    next_at: Moment | None
    read_first: bool
    since: Moment
    hold: int | None = Field(examples=[17])
    waits_kind: MissingKind | None
    waits_object: str | None = Field(examples=["0009001"])
    making: str | None = Field(examples=[None])
    """How far that object is, where it is made; see `/objects`."""
    missing_since: Moment | None
    probes: int | None = Field(examples=[3])
    next_probe_at: Moment | None


class TracedCall(Described):
    """A call that is under way, or was when its driver died."""

    call: str = Field(examples=["activate"])
    wanted: str | None = Field(examples=["active"])
    opened_at: Moment
    deadline: Moment


class DecidingOverride(Described):
    """The override that decides a seat."""

    override: int = Field(examples=[88])
    until: Later


class TracedSeat(Described):
    """One seat: what it should be, and what the LMS confirmed."""

    target: Target
    lms_section: str = Field(examples=["PSUNV-1259-1001"])
    lms_user: PersonId
    role: str = _ROLE
    desired: SeatState
    effect: Effect
    version: int = _VERSION
    decision: int = Field(examples=[2])
    policy_version: int | None = Field(examples=[3])
    accepted_at: Moment
    applied: AppliedState = Field(examples=["active"])
    applied_version: int | None = _VERSION
    applied_at: Moment | None
    origin: Origin | None
    lms_enrollment: str | None = Field(examples=["50000123"])
    lms_course: str | None = Field(examples=["20017"])
    suspect_until: Moment | None = Field(examples=[None])
    fence: Any = None
    settled: bool
    live: bool
    work: TracedWork | None = Field(examples=[None])
    open_calls: list[TracedCall] | None = Field(examples=[None])
    override: DecidingOverride | None = Field(examples=[None])


class TracedOverride(Described):
    """An override of the person in the section."""

    override: int = Field(examples=[88])
    role: EnrollmentRole
    gives: SeatState
    until: Later
    reason: Reason
    actor: str = Field(examples=["registrar"])
    made_at: Moment
    ended_at: Moment | None = Field(examples=[None])
    withdrawn_at: Moment | None = Field(examples=[None])
    withdrawn_by: str | None = Field(examples=[None])
    withdrawn_reason: str | None = Field(examples=[None])
    in_force: bool


class TracedDifference(Described):
    """What the newest roster showed otherwise."""

    kind: Kind
    role: str = _ROLE
    desired: SeatState | None
    shown: ObservedState
    shown_role: str | None = _ROLE
    found_at: Moment
    read_at: Moment
    repair_at: Moment | None


class TraceEntry(Described):
    """Something that happened. What does not apply is left out."""

    at: Moment
    what: str = Field(examples=["confirmed"])
    kind: str | None = Field(default=None, examples=["enrollment"])
    role_family: str | None = Field(default=None, examples=["learner"])
    override: int | None = Field(default=None, examples=[None])
    version: int | None = Field(default=None, examples=[1767225600000000])
    topic: str | None = Field(default=None, examples=["enrollstream.enrollment.v1"])
    partition: int | None = Field(default=None, examples=[2])
    offset: int | None = Field(default=None, examples=[1204])
    target: Target | None = None
    seat: str | None = Field(default=None, examples=["PSUNV-1259-1001/0009001/StudentEnrollment/"])
    detail: dict[str, Any] | None = Field(default=None, examples=[{"state": "active"}])


class TraceLedger(Described):
    """The ledger itself."""

    policy_version: int | None = Field(examples=[3])
    recovery: bool = Field(examples=[False])
    """It lost history, and reads before it writes."""
    intake_moved_at: Moment | None


class Trace(Described):
    """Everything that the ledger knows about the person in the section."""

    looked_for: TraceSubject
    findings: list[TraceFinding]
    person: TracedEntity | None
    section: TracedEntity | None
    enrollments: list[TracedEnrollment]
    seats: list[TracedSeat]
    overrides: list[TracedOverride]
    differences: list[TracedDifference]
    timeline: list[TraceEntry]
    """The oldest first."""
    timeline_complete: bool
    """Otherwise these are the newest 500."""
    ledger: TraceLedger
