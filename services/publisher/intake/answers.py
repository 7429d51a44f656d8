"""What the publisher's routes for JSON answer, as models that describe it; the tests hold every answer of theirs to these."""

from __future__ import annotations

from typing import Any, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field, RootModel

from services.kit.openapi import Described

_MOMENT = Field(examples=["2027-01-11T15:04:05Z"])
_ID = Field(examples=["8d7f0f0e-53b5-4a5a-8a0e-1f0c9f3b2a77"])


class Taken(Described):
    """Every event is committed and published. Counts are of source rows, `events` of new versions of entities."""

    receipt: UUID = _ID
    changed: int = Field(examples=[1])
    unchanged: int = Field(examples=[0])
    """Duplicates, older rows, and rows that change nothing."""
    ambiguous: int = Field(examples=[0])
    """Rows whose order had to be decided by arrival."""
    events: int = Field(examples=[1])


class RepublishState(Described):
    """How far a republish has come."""

    id: UUID = _ID
    scope: dict[str, Any] = Field(examples=[{"tenant": "main", "term": "2267", "section": "26191"}])
    count: int = Field(examples=[31])
    """What the scope held when it was asked for."""
    emitted: int = Field(examples=[31])
    done: bool
    asked_at: AwareDatetime = _MOMENT
    ended_at: AwareDatetime | None = _MOMENT


class RepublishList(RootModel[list[RepublishState]]):
    """The newest fifty; they are kept for 30 days."""


class DigestsAsked(Described):
    """A round of digests begins within a second."""

    request: UUID = _ID


class SnapshotState(Described):
    """One full extract, and how far it is. What does not apply is left out."""

    id: UUID = _ID
    kind: str = Field(examples=["STDNT_ENRL"])
    institution: str = Field(examples=["NORTH"])
    term: str = Field(examples=["2267"])
    channel: str = Field(examples=["snapshot:campus"])
    started_at: AwareDatetime = _MOMENT
    """When its query began."""
    received_at: AwareDatetime = _MOMENT
    digest: str = Field(examples=["9b0e" + "5d1c" * 15])
    """SHA-256 of the file."""
    bytes: int = Field(examples=[1204331])
    state: Literal["receiving", "refused", "held", "applying", "applied", "superseded"] = Field(examples=["applied"])
    reason: str | None = Field(default=None, examples=[None])
    """Why it was refused, or is held."""
    detail: str | None = Field(default=None, examples=[None])
    """The same for people. No row of it is quoted."""
    rows: int = Field(examples=[20412])
    unusable: int = Field(examples=[0])
    """Rows that are in quarantine."""
    absent: int | None = Field(default=None, examples=[31])
    """Rows of the mirror that it lacks; left out where nothing is concluded from that."""
    done_percent: int | None = Field(default=None, examples=[100])
    changed: int = Field(examples=[44])
    """Rows that changed something."""
    approved_by: str | None = Field(default=None, examples=[None])
    closed_at: AwareDatetime | None = Field(default=None, examples=["2027-01-11T15:04:05Z"])


class SnapshotList(Described):
    """Fifty, the open ones first; they are kept for 90 days."""

    snapshots: list[SnapshotState]


class ChannelState(Described):
    """One way by which changes come. What does not apply is left out."""

    channel: str = Field(examples=["ib:PSFT_CS"])
    last_message_at: AwareDatetime | None = Field(default=None, examples=["2027-01-11T15:04:05Z"])
    deliveries: int = Field(examples=[8123])
    expected_every_seconds: float | None = Field(default=None, examples=[900.0])
    """By `SOURCE_CADENCE_FILE`."""
    silent_for_seconds: int | None = Field(default=None, examples=[None])
    """In hours in which something was expected."""
    silent: bool | None = Field(default=None, examples=[False])


class ChannelList(Described):
    """All channels that ever delivered, or should."""

    channels: list[ChannelState]
