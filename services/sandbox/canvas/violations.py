"""What a sync must never do to Canvas, checked after each write."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from services.sandbox.canvas.state import Enrollment
from services.sandbox.canvas.writelog import Attempt

_TASKS = ("delete", "conclude", "deactivate", "inactivate")


@dataclass(slots=True, frozen=True)
class Violation:
    rule: str
    seq: int
    """The write that broke it."""
    detail: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def check(attempt: Attempt, row: Enrollment | None) -> Iterator[Violation]:
    """The rules that one attempt breaks; `row` is the enrollment it touched, if it was applied."""
    if attempt.notify:
        yield Violation("notify", attempt.seq, "a sync must not mail people")
    if attempt.endpoint == "enrollments.delete" and attempt.task not in _TASKS:
        # A missing or misspelt task concludes (``enrollments_api_controller.rb#destroy``).
        yield Violation("task", attempt.seq, f"task was {attempt.task!r}, which concludes")
    if attempt.endpoint.startswith("enrollments.create") and attempt.asked_state is None:
        # Without a state people are invited, or demoted before the start (``course.rb#enroll_user``).
        yield Violation("state", attempt.seq, "a create without enrollment_state invites")
    if row is not None:
        # Counted over the person's rows, not looked up in the index that is meant to prevent it.
        count = sum(other.key == row.key for other in row.user.enrollments)
        if count > 1:
            yield Violation("duplicate", attempt.seq, f"{count} enrollments of one key")
