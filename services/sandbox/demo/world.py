"""Canvas as the morning finds it: courses, sections, people and roles; some of them appear only while the morning runs."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from services.sandbox.canvas.client import CanvasControl
from services.sandbox.demo.verdict import Placement, Write
from services.sandbox.sis.morning import Morning
from services.sandbox.sis.school import TERM, SchoolClass, Student, teacher_name
from services.sandbox.sis.truth import AUDITOR, Seat, section_id


def seed(canvas: CanvasControl, morning: Morning) -> None:
    """Create everything that Canvas knows before the morning."""
    school = morning.school
    people = [_student(each) for each in school.students] + [_teacher(emplid) for emplid in school.instructor_pool]
    canvas.objects(
        terms=[{"sis_term_id": TERM}],
        roles=[{"name": AUDITOR}],
        courses=[_course(each) for each in {each.course_id: each for each in _classes(morning)}.values()],
        sections=[_section(each) for each in _classes(morning) if section_id(each.class_nbr) not in morning.late_sections],
        users=[person for person in people if person["sis_user_id"] not in morning.late_people],
    )


async def reveal_late_objects(canvas: CanvasControl, morning: Morning, started: float) -> None:
    """Create the late people and sections when their time comes; `started` is the wall clock at the morning's start."""
    sections = {section_id(each.class_nbr): each for each in _classes(morning)}
    students = {each.emplid: each for each in morning.school.students}
    agenda: list[tuple[float, dict[str, list[dict[str, Any]]]]] = [
        *((at, {"users": [_student(students[emplid])]}) for emplid, at in morning.late_people.items()),
        *((at, {"sections": [_section(sections[sis_id])]}) for sis_id, at in morning.late_sections.items()),
    ]
    for at, objects in sorted(agenda, key=lambda each: each[0]):
        await asyncio.sleep(started + at - time.time())
        await asyncio.to_thread(canvas.objects, **objects)


def placements(canvas: CanvasControl) -> list[Placement]:
    """Every enrollment that Canvas holds, in any state."""
    return [Placement(Seat(row["section"], row["user"], row["role"]), row["state"]) for row in canvas.roster()]


def applied(attempts: list[dict[str, Any]]) -> list[Write]:
    """The attempts of Canvas's write log that changed something."""
    return [
        Write(Seat(each["section"], each["user"], each["role"]), each["after"], each["at"])
        for each in attempts
        if each["changed"]
    ]


def _classes(morning: Morning) -> list[SchoolClass]:
    return list(morning.school.classes.values())


def _student(student: Student) -> dict[str, Any]:
    family, _, given = student.name.partition(",")
    return {"sis_user_id": student.emplid, "name": f"{given} {family}"}


def _teacher(emplid: str) -> dict[str, Any]:
    return {"sis_user_id": emplid, "name": teacher_name(emplid)}


def _course(school_class: SchoolClass) -> dict[str, Any]:
    return {"sis_course_id": _course_id(school_class), "name": _course_name(school_class), "term": TERM}


def _section(school_class: SchoolClass) -> dict[str, Any]:
    return {
        "sis_section_id": section_id(school_class.class_nbr),
        "name": f"{_course_name(school_class)}-{school_class.section}",
        "course": _course_id(school_class),
    }


def _course_id(school_class: SchoolClass) -> str:
    return f"{TERM}-{school_class.course_id}"


def _course_name(school_class: SchoolClass) -> str:
    return f"{school_class.subject} {school_class.catalog_nbr.strip()}"
