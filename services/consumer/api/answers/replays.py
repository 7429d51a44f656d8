"""Answers of ``/replays``; `replay_answers` makes them."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from pydantic import Field

from schemas.keys import EntityKind
from services.consumer.api.bodies import Moment, PersonId, Sha256, Target, Tenant
from services.consumer.ledger.replay_report import FinalVerdict
from services.consumer.ledger.replays import State
from services.consumer.nouns import AppliedState, SeatState, WorkState
from services.kit.openapi import Described

_REPLAY = Field(examples=["6f1c1e9e-2f0b-4f0c-9d0f-7f2b8f6f5a10"])
_VERSION = Field(examples=[1767225600000000])


class ReplayRange(Described):
    """Offsets of one partition that are read again."""

    topic: str = Field(examples=["enrollstream.enrollment.v1"])
    partition: int = Field(examples=[2])
    first: int = Field(alias="from", examples=[1200])
    last: int = Field(alias="to", examples=[1299])
    next: int = Field(examples=[1250])
    """The first offset without a verdict."""


class Replay(Described):
    """A plan or what carries one out, as far as it has come."""

    replay: UUID = _REPLAY
    scope: dict[str, Any] = Field(examples=[{"dead_letters": {"target": "canvas", "class": "refused:validation"}}])
    """As it was asked for, with its tenant or target."""
    verify: bool = Field(examples=[False])
    dry_run: bool
    """It is a plan."""
    plan: UUID | None = Field(examples=[None])
    """The plan that it carries out."""
    applied_by: UUID | None = Field(examples=[None])
    """Of a plan: what carries it out."""
    state: State = Field(examples=["done"])
    reason: str | None = Field(examples=[None])
    """Why it failed."""
    done: int = Field(examples=[17])
    total: int = Field(examples=[17])
    """Offsets or seats."""
    ranges: list[ReplayRange]
    """Of a scope of the log."""
    digest: Sha256 | None
    """Of a plan that is done."""
    changes: int | None = Field(examples=[17])
    """Of a plan that is done: how much it would change."""
    actor: str = Field(examples=["operator"])
    created_at: Moment
    finished_at: Moment | None


class ReplayList(Described):
    """The newest fifty."""

    replays: list[Replay]


class ReplaySeat(Described):
    """A seat, by what the LMS knows it by."""

    target: Target
    lms_section: str = Field(examples=["PSUNV-1259-1001"])
    lms_user: PersonId
    role: str = Field(examples=["StudentEnrollment"])
    associated_user: str | None = Field(default=None, examples=[None])
    """Whom an observer observes."""


class Superseding(Described):
    """The newer version of an entity."""

    version: int = _VERSION
    offset: int | None = Field(examples=[1310])
    """Where it came."""


class ReplayLine(Described):
    """What became of one offset, or of one seat. An offset's line names nobody."""

    line: int = Field(examples=[1])
    verdict: FinalVerdict = Field(examples=["still_failing"])
    reason: str | None = Field(examples=["dead: refused:validation"])
    version: int | None = _VERSION
    superseded_by: Superseding | None = Field(examples=[None])
    seat: ReplaySeat | None = None
    """Of a scope of the ledger."""
    partition: int | None = Field(default=None, examples=[None])
    """Of a range of the log."""
    offset: int | None = Field(default=None, examples=[None])
    kind: EntityKind | None = Field(default=None, examples=[None])


class ReplayReport(Replay):
    """How it turned out."""

    verdicts: dict[str, int] = Field(examples=[{"applied": 16, "still_failing": 1}])
    """How many lines have each verdict."""
    lines: list[ReplayLine]
    next_after: int | None = Field(examples=[100])


class ReplayEntity(Described):
    """An entity whose record would be taken."""

    tenant: Tenant
    kind: EntityKind
    key: str = Field(examples=["PSUNV/1259/1001/0009001/learner"])


class ReplayChange(Described):
    """One thing that would change: a seat, or an entity that the ledger lacks or has in an older version."""

    seat: ReplaySeat | None = None
    desired: SeatState | None = None
    applied: AppliedState | None = Field(default=None, examples=["absent"])
    work: WorkState | None = Field(default=None, examples=["dead"])
    """`null` when it is settled."""
    version: int | None = _VERSION
    entity: ReplayEntity | None = Field(default=None, examples=[None])
    ledger_version: int | None = Field(default=None, examples=[None])


class ReplayChanges(Described):
    """A page of what a finished plan would change."""

    replay: UUID = _REPLAY
    digest: Sha256
    """Covers exactly this list."""
    total: int = Field(examples=[17])
    changes: list[ReplayChange]
    next_after: int | None = Field(examples=[100])
