"""The tables of the invented SIS, shaped like PeopleSoft's: classes, instructors, students, enrolments."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, NamedTuple

INSTITUTION = "UNVTC"
TERM = "1273"
SESSION = "001"

EnrollmentStatus = Literal["E", "W", "D"]

_GIVEN = "Ada Bao Cyra Dov Esi Finn Gita Hugo Ines Juno Kofi Lena Mika Nils Oona Pavo Quin Rhea Sami Tove Uma Vito Wren Yara Zeno"
_FAMILY = "Amberg Birkow Calden Dorvan Elstad Fenwick Garrow Holmby Iverly Jastrow Kelder Lumley Morvik Norden Ostrey Pellam"
_SUBJECTS = ("GEOL", "MATH", "HIST", "BIOL", "ARTS", "CHEM", "PHIL", "STAT")


class EnrollmentKey(NamedTuple):
    """The primary key of STDNT_ENRL within one term of one institution."""

    emplid: str
    career: str
    class_nbr: str


@dataclass(frozen=True, slots=True)
class Student:
    """One invented person who takes classes."""

    emplid: str
    career: str
    name: str
    """As PeopleSoft writes it: ``Family,Given``."""


@dataclass(frozen=True, slots=True)
class Instructor:
    """One row of CLASS_INSTR. The person is not part of its key, so a change of hands is an update."""

    meeting: int
    sequence: int
    emplid: str
    role: str
    """PI, SI or TA."""


@dataclass(slots=True)
class SchoolClass:
    """One row of CLASS_TBL with its instructors."""

    class_nbr: str
    course_id: str
    section: str
    subject: str
    catalog_nbr: str
    status: Literal["A", "X"] = "A"
    instructors: list[Instructor] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Enrollment:
    """One row of STDNT_ENRL."""

    key: EnrollmentKey
    status: EnrollmentStatus
    reason: str
    grading_basis: str = "GRD"
    """``AUD`` for an auditor."""
    units: str = "3.00"
    added: str = ""
    dropped: str = ""


class School:
    """The SIS's database at one moment. The morning changes it row by row."""

    def __init__(self, students: list[Student], instructors: list[str], classes: list[SchoolClass]) -> None:
        self.students = students
        self.instructor_pool = instructors
        self.classes = {each.class_nbr: each for each in classes}
        self.enrollments: dict[EnrollmentKey, Enrollment] = {}

    def put(self, row: Enrollment) -> Enrollment:
        """Insert or update one enrolment."""
        self.enrollments[row.key] = row
        return row

    def delete(self, key: EnrollmentKey) -> Enrollment:
        """Physically delete one enrolment; returns what it was."""
        return self.enrollments.pop(key)

    def of_student(self, emplid: str) -> Iterator[Enrollment]:
        """All rows of one student."""
        return (row for row in self.enrollments.values() if row.key.emplid == emplid)

    def of_class(self, class_nbr: str) -> Iterator[Enrollment]:
        """All rows of one class."""
        return (row for row in self.enrollments.values() if row.key.class_nbr == class_nbr)

    def change_instructor(self, class_nbr: str, emplid: str) -> Instructor:
        """Give the first instructor row of a class to another person."""
        school_class = self.classes[class_nbr]
        changed = replace(school_class.instructors[0], emplid=emplid)
        school_class.instructors[0] = changed
        return changed


def build_school(chance: random.Random, students: int, sections: int, first: int = 0) -> School:
    """Invent a school: EMPLIDs from 9000001 on, class numbers from 26101 on, two sections to most courses.

    `first` is added to every number, so that several schools can live in one system.
    """
    given, family = _GIVEN.split(), _FAMILY.split()
    people = [
        Student(
            emplid=f"{9000001 + first + index}",
            career="GRAD" if chance.random() < 0.15 else "UGRD",
            name=f"{chance.choice(family)},{chance.choice(given)}",
        )
        for index in range(students)
    ]
    teachers = [f"{9900001 + first + index}" for index in range(max(3, sections // 2))]
    return School(people, teachers, [_school_class(chance, first, index, teachers) for index in range(sections)])


def teacher_name(emplid: str) -> str:
    """``Given Family``, always the same for one EMPLID."""
    given, family = _GIVEN.split(), _FAMILY.split()
    number = int(emplid)
    return f"{given[number % len(given)]} {family[number * 7 % len(family)]}"


def _school_class(chance: random.Random, first: int, index: int, teachers: list[str]) -> SchoolClass:
    course, section = divmod(index, 2)
    teacher = chance.choice(teachers)
    rows = [Instructor(1, 1, teacher, "PI")]
    if chance.random() < 0.3:
        rows.append(Instructor(2, 1, teacher, "PI"))  # one person repeats per meeting pattern
    if chance.random() < 0.2:
        rows.append(Instructor(1, 2, "", "SI"))  # "Staff": nobody named yet
    return SchoolClass(
        class_nbr=f"{26101 + first + index}",
        course_id=f"{9001 + first + course:06d}",
        section=f"{section + 1:03d}",
        subject=_SUBJECTS[course % len(_SUBJECTS)],
        catalog_nbr=f" {1000 + course}",
        instructors=rows,
    )
