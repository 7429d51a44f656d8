"""Answers of ``/intake``."""

from __future__ import annotations

from pydantic import Field

from services.consumer.api.bodies import Moment
from services.kit.openapi import Described

_TOPIC = Field(examples=["enrollstream.enrollment.v1"])


class IntakeStop(Described):
    """A partition at which the line stopped."""

    topic: str = _TOPIC
    partition: int = Field(examples=[2])
    offset: int = Field(examples=[1204])
    """The record that would have been one too many."""
    reason: str = Field(examples=["not_json"])
    """The most frequent one."""
    not_usable: int = Field(examples=[51])
    of_the_last: int = Field(examples=[100])
    since: Moment
    divert_before: int | None = Field(examples=[1300])
    """What lies below may go to the dead letters; `null` while nobody has said so."""


class IntakeStops(Described):
    """Where the line stands still, or was told to go on."""

    stops: list[IntakeStop]


class ParkedRecord(Described):
    """A record that waits for a newer release."""

    topic: str = _TOPIC
    partition: int = Field(examples=[2])
    offset: int = Field(examples=[1204])
    field: str = Field(examples=["status"])
    """Whose word this release does not know."""
    since: Moment


class ParkedRecords(Described):
    """All that wait, and those that wait longest."""

    records: int = Field(examples=[1])
    oldest_seconds: float = Field(examples=[3600.5])
    oldest: list[ParkedRecord]
