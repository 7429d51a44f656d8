"""What may be changed while the sandbox runs, besides faults."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.sandbox.canvas.throttle import ThrottleSettings


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
