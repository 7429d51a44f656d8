"""Effective state: what a stored state means at one moment, after the dates of enrollment, section, course and term.

Upstream: ``app/models/enrollment_state.rb`` and ``lib/canvas/builders/enrollment_date_builder.rb``.
"""

from __future__ import annotations

from datetime import datetime

from services.sandbox.canvas.state import STAFF_TYPES, Course, Enrollment, Section

Window = tuple[datetime | None, datetime | None]
_DATE_ADJUSTED = ("invited", "active", "completed")


def window(row: Enrollment) -> Window:
    """The dates that count, from the first source that applies. An enrollment's own dates count only when both are set."""
    if row.start_at and row.end_at:
        return row.start_at, row.end_at
    for source in (row.section, row.course):
        if source.restrict_to_dates and (source.start_at or source.end_at):
            return source.start_at, source.end_at
    term = row.course.term
    return term.overrides.get(row.type, (term.start_at, term.end_at))


def effective_state(row: Enrollment, now: datetime) -> str:
    """The state that the person feels; ``pending_*`` stands for a start in the future."""
    if row.state not in _DATE_ADJUSTED or row.state == "completed":
        return row.state
    start, end = window(row)
    if row.course.state == "completed" or (end and end < now):
        return "completed"
    if start and start > now:
        return "inactive" if row.type in STAFF_TYPES else f"pending_{row.state}"
    return row.state


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
