"""Every attempt to change an enrollment, whether it was applied and whether the caller got an answer."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from typing import Any

from services.sandbox.canvas.state import Enrollment


@dataclass(slots=True)
class Attempt:
    """One mutating enrollment call. `seq` is the order in which the sandbox took them, gapless from 1."""

    endpoint: str
    method: str
    token: str
    request_id: str
    task: str | None = None
    """Of a delete: as sent."""
    asked_state: str | None = None
    """Of a create: as sent."""
    notify: bool = False
    seq: int = 0
    at: float = 0.0
    """Seconds since the epoch when it was applied, or found not to be."""
    section: str | None = None
    """SIS ids where the objects have them, else what the caller wrote."""
    course: str | None = None
    user: str | None = None
    type: str | None = None
    role: str | None = None
    enrollment_id: int | None = None
    before: str | None = None
    after: str | None = None
    applied: bool = False
    answered: bool = False
    """The answer was written to a connection that was still open."""
    status: int | None = None
    """The status of the answer; None while the call runs, and for ever when a fault withheld it."""
    fault: str | None = None
    """The kind of fault that bit this call."""
    followers: list[int] = field(default_factory=list)
    """Enrollments that changed along with it."""

    def name(self, row: Enrollment) -> None:
        """Take the key of `row`."""
        login = row.user.login() or next(iter(row.user.pseudonyms), None)
        self.section = row.section.sis_section_id or str(row.section.id)
        self.course = row.course.sis_course_id or str(row.course.id)
        self.user = (login and login.sis_user_id) or str(row.user.id)
        self.type, self.role, self.enrollment_id = row.type, row.role.name, row.id

    @property
    def changed(self) -> bool:
        """Applied, and the stored state is another one now."""
        return self.applied and self.before != self.after

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"changed": self.changed}


class WriteLog:
    """In memory, complete, in order."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []

    def add(self, attempt: Attempt) -> None:
        """Number and time-stamp an attempt; called at the moment it was applied or turned out not to be."""
        attempt.seq, attempt.at = len(self.attempts) + 1, time.time()
        self.attempts.append(attempt)

    def after(self, seq: int, limit: int) -> list[Attempt]:
        """The next `limit` attempts with a higher number."""
        return self.attempts[max(seq, 0) : max(seq, 0) + limit]
