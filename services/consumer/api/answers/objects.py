"""Answers of ``/objects``."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from services.consumer.api.bodies import Moment, SectionPlace, Target
from services.consumer.nouns import ObjectKind
from services.consumer.provision.steps import State
from services.kit.openapi import Described

Mode = Literal["on", "off", "not_supported"]

_KIND = Field(examples=["section"])
_STATE = Field(examples=["retrying"])
_REASON = Field(examples=["server_fault"])


class ObjectCount(Described):
    """Objects of one kind that are in one state for one reason."""

    kind: ObjectKind = _KIND
    state: State = _STATE
    reason: str | None = _REASON
    live: bool
    """Whether they may be written to; nothing is done for the others."""
    objects: int = Field(examples=[3])
    oldest_seconds: float = Field(examples=[42.5])
    """Since the longest of them entered this state."""


class ObjectSummary(Described):
    """What is made in the LMS, and how far that is."""

    target: Target
    made: dict[ObjectKind, Mode] = Field(examples=[{"term": "off", "course": "on", "section": "on", "person": "off"}])
    """`on`: the policy has it made; `not_supported`: it has, and this LMS cannot."""
    objects: list[ObjectCount]


class LmsObject(Described):
    """One object. What does not apply is left out."""

    number: int = Field(examples=[12])
    kind: ObjectKind = _KIND
    sis_id: str = Field(examples=["PSUNV-1259-1001"])
    """As the LMS knows it."""
    section: SectionPlace | None = None
    """The section that it was wanted for."""
    state: State = _STATE
    reason: str | None = Field(default=None, examples=["server_fault"])
    live: bool
    """Whether it may be written to."""
    since: Moment
    """In this state."""
    next_at: Moment | None = None
    attempts: int = Field(examples=[2])
    lms_id: str | None = Field(default=None, examples=["20017"])
    origin: str | None = Field(default=None, examples=["ours"])
    kept: list[str] | None = Field(default=None, examples=[["name"]])
    """Attributes that somebody has set in the LMS, and that stay so."""
    waits_for: str | None = Field(default=None, examples=["PSUNV-1259-CHEM110"])
    """SIS id of what it has to be made in."""


class ObjectPage(Described):
    """Objects, in the order in which they were taken up."""

    target: Target
    objects: list[LmsObject]
    next_after: int | None = Field(examples=[12])
    """Where the next page begins; `null` when this is the last."""
