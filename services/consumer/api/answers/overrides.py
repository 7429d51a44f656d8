"""Answers of ``/overrides`` and ``/undos``."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

from pydantic import Field

from schemas.events import EnrollmentRole
from services.consumer.api.bodies import Later, Moment, PersonId, Reason, SectionPlace, Sha256
from services.consumer.ledger.overruling import OverrideState
from services.consumer.nouns import AppliedState, SeatState
from services.kit.openapi import Described

_UNDO = Field(examples=["b1c8a4de-4c5f-4b59-9f0a-5f2d3f6f0c7a"])


class OverrideWithdrawn(Described):
    """How an override ended before its time."""

    at: Moment
    actor: str = Field(examples=["registrar"])
    reason: Reason


class Override(Described):
    """A registrar's exception for one person, section and role."""

    override: int = Field(examples=[88])
    person: PersonId
    section: SectionPlace
    role: EnrollmentRole
    """As the student system calls it."""
    gives: SeatState
    until: Later
    reason: Reason
    actor: str = Field(examples=["registrar"])
    made_at: Moment
    state: OverrideState
    withdrawn: OverrideWithdrawn | None = Field(default=None, examples=[None])
    """Of one that was."""


class OverridePage(Described):
    """Overrides, the newest first."""

    overrides: list[Override]
    next_after: int | None = Field(examples=[88])


class Inverse(Described):
    """One seat, and what it was before."""

    person: PersonId
    section: SectionPlace
    role: EnrollmentRole
    gives: SeatState
    """What it was, and would be again."""
    shown: AppliedState = Field(examples=["deleted"])
    """What it is."""


class UndoPlan(Described):
    """Which seats would have to be what."""

    seats: int = Field(examples=[23])
    left_alone: dict[Literal["as_before", "not_known", "no_role"], int] = Field(examples=[{"as_before": 2}])
    """Seats that were touched and need nothing, or of which too little is known."""
    inverses: list[Inverse]
    """The first thousand."""
    digest: Sha256
    """Covers all of them."""


class UndoMade(Described):
    """What the undo did."""

    undo: UUID = _UNDO
    overrides: int = Field(examples=[23])
    """That were made."""
    left: int = Field(examples=[0])
    """Seats that an override decides already, or to which the policy gives nothing."""


class Undo(Described):
    """An undo, and what is left of it."""

    undo: UUID = _UNDO
    scope: dict[str, Any] = Field(examples=[{"institution": "PSUNV", "term": "1259", "section": "1001"}])
    begins: Moment = Field(alias="from")
    ends: Later = Field(alias="until")
    in_force_until: Later
    """The end of its overrides."""
    seats: int = Field(examples=[23])
    in_force: int = Field(examples=[23])
    """Overrides of it that still decide."""
    reason: Reason
    actor: str = Field(examples=["registrar"])
    made_at: Moment
    withdrawn_at: Moment | None = Field(default=None, examples=[None])


class UndoList(Described):
    """The newest fifty."""

    undos: list[Undo]


class UndoWithdrawn(Described):
    """How many overrides ended."""

    undo: UUID = _UNDO
    ended: int = Field(examples=[23])
