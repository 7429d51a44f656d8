"""What may be changed while the sandbox runs, besides faults."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from services.sandbox.canvas.throttle import ThrottleSettings


@dataclass(slots=True)
class Assumptions:
    """What the code suggests and nobody has seen on a real installation: each may be switched to the other reading."""

    revival_keeps_completed_at: bool = True
    """A create that brings a concluded row back leaves the moment of its conclusion (``app/models/course.rb#enroll_user``)."""
    invitation_at_start: Literal["always", "hidden", "never"] = "always"
    """Whoever is invited before the start gets mail at the start, although ``notify`` was off: always, only where the course
    hides itself before its start (``app/models/enrollment.rb#dispatch_invitations_later`` asks for that), or never."""
    sticky_when_made: bool = True
    """What a row is made with outside of imports is sticky at once: ``lib/sticky_sis_fields.rb`` lists it before every save,
    earlier versions did so only before an update."""
    blueprint_takes_observers: bool = True
    """Blueprint courses refuse students; whether they refuse observers too is open."""


@dataclass(slots=True)
class Settings:
    """Behaviour of one sandbox; `control` changes it in place."""

    latency_ms: float = 0.0
    """Every call takes at least this long, half of it before and half after the change is applied."""
    jitter_ms: float = 0.0
    """Up to this much more, evenly distributed."""
    visibility_lag_seconds: float = 0.0
    """Reads show enrollments as they were so long ago; the answer to a write is always current."""
    unauthorized_status: int = 403
    """403, or 401 where ``api_auth_error_updates`` is off (``lib/authentication_methods.rb``)."""
    throttle: ThrottleSettings = field(default_factory=ThrottleSettings)
    assumptions: Assumptions = field(default_factory=Assumptions)
