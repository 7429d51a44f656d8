"""What the learning platform must show, computed from the SIS's own tables.

Written against the registrar's rules in `services/consumer/policy/default.yaml`, but without using any code of the product:
a mistake in translation, folding, policy or delivery shows as a difference.
"""

from __future__ import annotations

from typing import NamedTuple

from services.sandbox.sis.school import INSTITUTION, TERM, Enrollment, School

STUDENT, AUDITOR, TEACHER, ASSISTANT = "StudentEnrollment", "Auditor", "TeacherEnrollment", "TaEnrollment"
_INSTRUCTOR_ROLES = {"PI": TEACHER, "SI": TEACHER, "TA": ASSISTANT}


class Seat(NamedTuple):
    """One place in one section of the learning platform, by SIS ids."""

    section: str
    person: str
    role: str


def section_id(class_nbr: str) -> str:
    """The SIS id that the learning platform knows a class by."""
    return f"{INSTITUTION}-{TERM}-{class_nbr}"


def roster(school: School) -> set[Seat]:
    """Every seat that must be active; whoever is not in it must not be active."""
    return {seat for class_nbr in school.classes for seat in class_roster(school, class_nbr)}


def class_roster(school: School, class_nbr: str) -> set[Seat]:
    """The active seats of one class: nobody learns in a cancelled class, and careers of one student count once."""
    school_class = school.classes[class_nbr]
    section = section_id(class_nbr)
    teaching = {Seat(section, row.emplid, _INSTRUCTOR_ROLES[row.role]) for row in school_class.instructors if row.emplid}
    if school_class.status == "X":
        return set()
    live = [row for row in school.of_class(class_nbr) if row.status == "E"]
    regular = {row.key.emplid for row in live if row.grading_basis != "AUD"}
    learning = {Seat(section, row.key.emplid, _learner_role(row, regular)) for row in live}
    return teaching | learning


def _learner_role(row: Enrollment, regular: set[str]) -> str:
    """A student for credit in one career is not an auditor because of another."""
    return STUDENT if row.key.emplid in regular else AUDITOR
