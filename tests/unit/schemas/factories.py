"""Events with defaults, for tests that care about one field."""

from __future__ import annotations

from typing import Any

from schemas.codec import build
from schemas.events import EnrollmentEvent

FIELDS: dict[str, Any] = {
    "tenant": "main",
    "version": 1_789_396_921_004_217,
    "content_hash": "0" * 32,
    "accepted_at": "2026-09-14T14:42:01.004217Z",
    "institution": "NORTH",
    "term": "2267",
    "section": "26191",
    "person": "0090001",
    "role_family": "learner",
    "status": "enrolled",
    "role": "student",
}


def enrollment(**fields: Any) -> EnrollmentEvent:
    """A valid enrollment event with these fields changed."""
    event = build("enrollment", FIELDS | fields)
    assert isinstance(event, EnrollmentEvent)
    return event
