"""Which columns an edit outside SIS imports makes sticky (``lib/sticky_sis_fields.rb`` and ``are_sis_sticky`` of each model).

Only a change counts, and what a row is made with. Nothing in here ever takes a column off the list.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from services.sandbox.canvas.state import Account, Course, Enrollment, Pseudonym, Section, Term, User
from services.sandbox.canvas.world import World

Sticky = Course | Section | Enrollment | Term | User | Pseudonym
Column = str | bool | datetime | Account | Course | Term | None

_UPSTREAM_NAMES: dict[type, dict[str, str]] = {
    Enrollment: {"start_at": "start_at", "end_at": "end_at"},
    Section: {
        "name": "name",
        "course": "course_id",
        "start_at": "start_at",
        "end_at": "end_at",
        "restrict_to_dates": "restrict_enrollments_to_section_dates",
    },
    Course: {
        "name": "name",
        "course_code": "course_code",
        "term": "enrollment_term_id",
        "account": "account_id",
        "start_at": "start_at",
        "end_at": "conclude_at",
        "restrict_to_dates": "restrict_enrollments_to_course_dates",
        "state": "workflow_state",
    },
    Term: {"name": "name", "start_at": "start_at", "end_at": "end_at"},
    User: {"name": "name", "sortable_name": "sortable_name", "short_name": "short_name", "pronouns": "pronouns"},
    Pseudonym: {"unique_id": "unique_id", "state": "workflow_state"},
}
"""Our names of the sticky columns, and the names under which upstream lists them."""


def write(target: Sticky, *, override: bool = True, **columns: Column) -> None:
    """Set columns as a person or an API client does; without `override`, columns that are sticky already stay as they are."""
    names = _UPSTREAM_NAMES[type(target)]
    for name, value in columns.items():
        sticky = names.get(name)
        if not override and sticky in target.stuck_sis_fields:
            continue
        if sticky and _value(target, name) != value:
            target.stuck_sis_fields |= {sticky}
        setattr(target, name, value)


def made(world: World, target: Sticky) -> None:
    """A person or an API client has just made the row: what it was given counts as changed."""
    if world.assumptions.sticky_when_made:
        given = (sticky for name, sticky in _UPSTREAM_NAMES[type(target)].items() if _value(target, name))
        target.stuck_sis_fields |= frozenset(given)


def _value(target: Sticky, name: str) -> Any:
    return getattr(target, name)
