"""What the SIS sends: rows with an action, gathered into messages. `rowset` turns them into XML."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Literal

from services.sandbox.sis.school import INSTITUTION, SESSION, TERM, Enrollment, EnrollmentKey, Instructor, SchoolClass, Student

Action = Literal["A", "C", "D", "K", "N", ""]
"""PSCAMA's AUDIT_ACTN; blank for a row that did not change (typically the parent of a changed child)."""

Note = Literal["", "duplicate", "late", "no_op"]
"""Why a message is special: sent a second time, sent after a newer one, or carrying no change of membership."""


@dataclass(frozen=True, slots=True)
class RowChange:
    """One row of a rowset message."""

    record: str
    action: Action
    fields: dict[str, str]
    children: tuple[RowChange, ...] = ()

    @property
    def changes(self) -> int:
        """How many rows changed, itself included."""
        return (self.action != "") + sum(child.changes for child in self.children)


@dataclass(frozen=True, slots=True)
class Message:
    """One post of the Integration Broker. Times are seconds after the morning's start."""

    number: int
    operation: str
    rows: tuple[RowChange, ...]
    at: float
    """When the SIS committed it: becomes OrigTimeStamp."""
    post_at: float
    """When it leaves; later than `at` where the network or a queue held it back."""
    envelope: bool = False
    """Wrapped in an IBRequest document, as a site that re-posts logged messages does."""
    note: Note = ""

    @property
    def changes(self) -> int:
        """Changed rows in it."""
        return sum(row.changes for row in self.rows)

    @property
    def enrollment_changes(self) -> int:
        """Changed enrolment and instructor rows in it: what a chain without memory would make a call for."""
        return sum(each.action not in ("", "K") for each in _flat(self.rows) if each.record in ("STDNT_ENRL", "CLASS_INSTR"))


def _flat(rows: Iterable[RowChange]) -> Iterable[RowChange]:
    for row in rows:
        yield row
        yield from _flat(row.children)


def business_date(day: date) -> str:
    """A DATE field."""
    return day.isoformat()


def enrollment_row(row: Enrollment, action: Action) -> RowChange:
    """STDNT_ENRL with all its columns, as PeopleSoft sends it."""
    fields = _enrollment_key_fields(row.key) | {
        "SESSION_CODE": SESSION,
        "STDNT_ENRL_STATUS": row.status,
        "ENRL_STATUS_REASON": row.reason,
        "ENRL_ADD_DT": row.added,
        "ENRL_DROP_DT": row.dropped,
        "UNT_TAKEN": row.units,
        "GRADING_BASIS_ENRL": row.grading_basis,
        "CRSE_GRADE_OFF": "",
    }
    return RowChange("STDNT_ENRL", action, fields)


def enrollment_deletion(key: EnrollmentKey) -> RowChange:
    """STDNT_ENRL physically deleted by staff: the message carries the key only."""
    return RowChange("STDNT_ENRL", "D", _enrollment_key_fields(key))


def _enrollment_key_fields(key: EnrollmentKey) -> dict[str, str]:
    return {
        "EMPLID": key.emplid,
        "ACAD_CAREER": key.career,
        "INSTITUTION": INSTITUTION,
        "STRM": TERM,
        "CLASS_NBR": key.class_nbr,
    }


def class_row(school_class: SchoolClass, action: Action, instructor_actions: dict[int, Action] | None = None) -> RowChange:
    """CLASS_TBL with its instructors nested; `instructor_actions` by position, blank where absent."""
    actions = instructor_actions or {}
    fields = {
        "CRSE_ID": school_class.course_id,
        "CRSE_OFFER_NBR": "1",
        "STRM": TERM,
        "SESSION_CODE": SESSION,
        "CLASS_SECTION": school_class.section,
        "INSTITUTION": INSTITUTION,
        "CLASS_NBR": school_class.class_nbr,
        "SUBJECT": school_class.subject,
        "CATALOG_NBR": school_class.catalog_nbr,
        "SSR_COMPONENT": "LEC",
        "CLASS_STAT": school_class.status,
    }
    children = tuple(_instructor_row(each, actions.get(position, "")) for position, each in enumerate(school_class.instructors))
    return RowChange("CLASS_TBL", action, fields, children)


def _instructor_row(row: Instructor, action: Action) -> RowChange:
    fields = {
        "CLASS_MTG_NBR": str(row.meeting),
        "INSTR_ASSIGN_SEQ": str(row.sequence),
        "EMPLID": row.emplid,
        "INSTR_ROLE": row.role,
    }
    return RowChange("CLASS_INSTR", action, fields)


def person_row(student: Student) -> RowChange:
    """PERSON with one primary name. Birth dates and addresses stay blank: we never need them."""
    family, _, given = student.name.partition(",")
    names = {
        "EMPLID": student.emplid,
        "NAME_TYPE": "PRI",
        "EFFDT": "2023-08-01",
        "EFF_STATUS": "A",
        "NAME": student.name,
        "LAST_NAME": family,
        "FIRST_NAME": given,
    }
    return RowChange("PERSON", "A", {"EMPLID": student.emplid, "BIRTHDATE": ""}, (RowChange("NAMES", "", names),))


def term_row() -> RowChange:
    """TERM_TBL: the term that the morning registers for."""
    fields = {"INSTITUTION": INSTITUTION, "ACAD_CAREER": "UGRD", "STRM": TERM, "DESCR": "Spring term"}
    return RowChange("TERM_TBL", "A", fields | {"TERM_BEGIN_DT": "2027-01-19", "TERM_END_DT": "2027-05-12"})
