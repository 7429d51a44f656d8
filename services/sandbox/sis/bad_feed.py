"""What no registrar wants to see: a query that lost its filter drops nearly all of a class, and is taken back later."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from services.sandbox.sis import messages as rows
from services.sandbox.sis.messages import Message
from services.sandbox.sis.morning import ENROLLMENTS, Morning
from services.sandbox.sis.school import Enrollment, EnrollmentKey
from services.sandbox.sis.truth import STUDENT, Seat, section_id

_LEAST_MEMBERS = 12
"""Of a smaller class half are too few to be held."""


@dataclass(frozen=True, slots=True)
class BadFeed:
    """Three messages about one class. The SIS's own tables never say what the first one says."""

    section: str
    members: int
    wrong: Message
    """Drops all members but one."""
    add: Message
    """A student registers for the class meanwhile."""
    newcomer: Seat
    right: Message
    """The members as they have been all the time."""

    @property
    def dropped(self) -> int:
        """How many the first message drops."""
        return len(self.wrong.rows)


def plan_bad_feed(morning: Morning) -> BadFeed | None:
    """For the largest class after the morning, into whose tables the newcomer is put; None when every class is small."""
    school = morning.school
    today = datetime.now(UTC).date().isoformat()
    classes = {nbr: _members(morning, nbr) for nbr, each in school.classes.items() if each.status == "A"}
    class_nbr, members = max(classes.items(), key=lambda item: len(item[1]))
    if len(members) < _LEAST_MEMBERS:
        return None
    known = {row.key.emplid for row in school.of_class(class_nbr)}
    student = next(each for each in school.students if each.emplid not in known)
    newcomer = school.put(Enrollment(EnrollmentKey(student.emplid, student.career, class_nbr), "E", "ENRL", added=today))
    number = len(morning.messages)
    dropped = [replace(row, status="D", reason="DROP", dropped=today) for row in members[1:]]
    return BadFeed(
        section_id(class_nbr),
        len(members),
        wrong=_message(number, [rows.enrollment_row(row, "C") for row in dropped]),
        add=_message(number + 1, [rows.enrollment_row(newcomer, "A")]),
        newcomer=Seat(section_id(class_nbr), student.emplid, STUDENT),
        right=_message(number + 2, [rows.enrollment_row(row, "C") for row in members[1:]]),
    )


def _members(morning: Morning, class_nbr: str) -> list[Enrollment]:
    return [row for row in morning.school.of_class(class_nbr) if row.status == "E" and row.grading_basis != "AUD"]


def _message(number: int, content: list[rows.RowChange]) -> Message:
    return Message(number, ENROLLMENTS, tuple(content), at=0.0, post_at=0.0)
