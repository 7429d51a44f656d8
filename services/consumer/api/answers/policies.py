"""Answers of ``/policies``."""

from __future__ import annotations

from pydantic import Field

from services.consumer.api.bodies import Institution, PersonId, SectionPlace, TermId
from services.consumer.guard.judging import ScopeKind
from services.consumer.ledger.policy_plans import Kind
from services.consumer.nouns import SeatState
from services.kit.openapi import Described

DIGEST_EXAMPLE = "2-1-0-0-" + "9b0e" * 16


class Totals(Described):
    """How many seats would change, by kind."""

    add: int = Field(examples=[2])
    drop: int = Field(examples=[1])
    update: int = Field(examples=[0])
    moved: int = Field(examples=[0])
    """Told differently, no more."""


class TermTotals(Described):
    """The same of one term; a kind that does not occur is left out."""

    institution: Institution
    term: TermId
    add: int | None = Field(default=None, examples=[2])
    drop: int | None = Field(default=None, examples=[1])
    update: int | None = Field(default=None, examples=[None])
    moved: int | None = Field(default=None, examples=[None])


class ExpectedHold(Described):
    """Removals that the guard would hold under the new limits."""

    scope: ScopeKind
    key: str = Field(examples=["PSUNV/1259/1001"])
    """The scope's key."""
    removals: int = Field(examples=[23])
    active: int | None = Field(default=None, examples=[26])
    """Seats of the scope that give access."""
    limit: str | None = Field(default=None, examples=["percent 50, at_least 10"])
    open: bool | None = Field(default=None, examples=[None])
    """They would join a hold that is open."""


class SeatChange(Described):
    """One seat that would change."""

    person: PersonId
    section: SectionPlace
    role: str = Field(examples=["StudentEnrollment"])
    effect: Kind
    before: SeatState | None = Field(examples=[None])
    after: SeatState | None


class PolicyPlan(Described):
    """What would change. Nothing was written."""

    active_version: int | None = Field(examples=[3])
    """Of the policy that decides now; `null`: there is none."""
    reached_everybody: bool
    """Otherwise that policy is still being carried out, and what is left of it counts as a change."""
    persons: int = Field(examples=[300])
    seats: Totals
    terms: list[TermTotals]
    removals: int = Field(examples=[1])
    """Seats that give access in the LMS, and should not any more."""
    held: list[ExpectedHold]
    rows: list[SeatChange]
    """The first of them, as many as were asked for."""
    digest: str = Field(examples=[DIGEST_EXAMPLE])
    """Names the plan."""


class PolicyApplied(Described):
    """The version that decides from now on."""

    version: int = Field(examples=[4])
    new: bool
    """Otherwise it was stored before."""
