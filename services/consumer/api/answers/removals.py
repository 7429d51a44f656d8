"""Answers of ``/removals`` and ``/planned-changes``."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from pydantic import Field

from services.consumer.api.bodies import Later, Moment, Target, Tenant
from services.kit.openapi import Described

_PLANNED = Field(examples=["5e0f7c52-6a86-4f39-9d0e-0c7c7d1f6d11"])


class PlannedChange(Described):
    """Removals that were announced, and are not counted while it is in force."""

    planned_change: UUID = _PLANNED
    tenant: Tenant
    scope: dict[str, dict[str, str]] = Field(examples=[{"section": {"institution": "PSUNV", "term": "1259", "section": "1001"}}])
    """What is meant, as it was announced."""
    begins: Moment = Field(alias="from")
    ends: Later = Field(alias="until")
    most: int = Field(examples=[300])
    """Removals that it explains, at most."""
    used: int = Field(examples=[12])
    """Of these, how many have gone."""
    reason: str = Field(examples=["The class is cancelled"])
    actor: str = Field(examples=["registrar"])


class Removals(Described):
    """Whether removals go, and what is announced."""

    target: Target
    paused: bool
    reason: str | None = Field(examples=["A feed looks wrong"])
    """Why they are paused; `null` when they are not."""
    open_holds: int = Field(examples=[1])
    planned_changes: list[PlannedChange]


class Paused(Described):
    """Whether removals are paused now."""

    target: Target
    paused: bool


class Announced(Described):
    """The announcement's number."""

    planned_change: UUID = _PLANNED


class AnnouncementWithdrawn(Announced):
    """The announcement that is over."""

    withdrawn: Literal[True]
