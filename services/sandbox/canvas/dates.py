"""Effective state: what a stored state means at one moment, after the dates of enrollment, section, course and term.

Upstream: ``app/models/enrollment_state.rb`` and ``lib/canvas/builders/enrollment_date_builder.rb``.
"""

from __future__ import annotations

from datetime import datetime

from services.sandbox.canvas.state import STAFF_TYPES, TEST_STUDENT_TYPE, Course, Enrollment, Section

Window = tuple[datetime | None, datetime | None]
_DATE_ADJUSTED = ("invited", "active")
_RESTRICTABLE = ("StudentEnrollment", "ObserverEnrollment")


def windows(row: Enrollment) -> list[Window]:
    """The dates that count, from the first source that applies. An enrollment's own dates count only when both are set.

    Teachers, TAs and designers are let in by the term's dates as well as by their section's or course's.
    """
    if row.start_at and row.end_at:
        return [(row.start_at, row.end_at)]
    term = row.course.term
    of_term = term.overrides.get(_role_type(row), (term.start_at, term.end_at))
    for source in (row.section, row.course):
        if source.restrict_to_dates:
            own = (source.start_at, source.end_at)
            return [own, of_term] if row.type in STAFF_TYPES else [own]
    return [of_term]


def _role_type(row: Enrollment) -> str:
    return "StudentEnrollment" if row.type == TEST_STUDENT_TYPE else row.type


def dated_state(row: Enrollment, now: datetime) -> str:
    """The column ``enrollment_states.state``; ``pending_*`` stands for a start in the future."""
    if row.state not in _DATE_ADJUSTED:
        return row.state
    if row.course.state == "completed":
        return "completed"
    dates = windows(row)
    if any((start or now) <= now <= (end or now) for start, end in dates):
        return row.state
    earliest = min(moment for window in dates for moment in window if moment)
    if earliest < now:
        return "completed"
    if row.type == TEST_STUDENT_TYPE:
        return row.state
    return f"pending_{row.state}" if row.type in _RESTRICTABLE else "inactive"


def effective_state(row: Enrollment, now: datetime) -> str:
    """What the person feels: `dated_state`, or ``inactive`` where the course hides itself before its start or after its end."""
    state = dated_state(row, now)
    if row.type in _RESTRICTABLE and row.state in (*_DATE_ADJUSTED, "completed"):
        hidden_before = row.course.restrict_future_view and state.startswith("pending_")
        hidden_after = row.course.restrict_past_view and state == "completed"
        if hidden_before or hidden_after:
            return "inactive"
    return state


def course_concluded(course: Course, now: datetime) -> bool:
    """Stored as completed, or past its own end (if it restricts to its dates), or past the term's (``app/models/course.rb``)."""
    if course.state == "completed":
        return True
    if course.restrict_to_dates and course.end_at:
        return course.end_at < now
    return course.term.end_at is not None and course.term.end_at < now


def section_concluded(section: Section, now: datetime) -> bool:
    """The section's own end decides if it restricts to its dates, else the course (``app/models/course_section.rb``)."""
    if section.restrict_to_dates and section.end_at:
        return section.end_at < now
    return course_concluded(section.course, now)
