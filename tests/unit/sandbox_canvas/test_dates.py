"""Effective states: stored state × dates × role type."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from services.sandbox.canvas.clock import Clock
from services.sandbox.canvas.dates import course_concluded, dated_state, effective_state, section_concluded
from services.sandbox.canvas.state import Enrollment
from services.sandbox.canvas.world import World

NOW = datetime(2026, 9, 1, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def row() -> Enrollment:
    clock = Clock()
    clock.set(NOW, frozen=True)
    world = World(clock)
    section = world.add_section(world.add_course("C"), "S")
    return world.add_enrollment(section, world.add_user("Ada Lovelace"), world.roles[3], "active")


@pytest.mark.parametrize(
    ("stored", "start", "end", "student", "teacher"),
    [
        ("active", None, None, "active", "active"),
        ("active", -1, 1, "active", "active"),
        ("active", 1, 2, "pending_active", "inactive"),
        ("active", -2, -1, "completed", "completed"),
        ("invited", -1, 1, "invited", "invited"),
        ("invited", 1, 2, "pending_invited", "inactive"),
        ("invited", -2, -1, "completed", "completed"),
        ("completed", 1, 2, "completed", "completed"),
        ("inactive", 1, 2, "inactive", "inactive"),
        ("deleted", -2, -1, "deleted", "deleted"),
        ("creation_pending", 1, 2, "creation_pending", "creation_pending"),
    ],
)
def test_term_dates_decide_what_a_stored_state_means(
    row: Enrollment, stored: str, start: int | None, end: int | None, student: str, teacher: str
) -> None:
    term = row.course.term
    term.start_at, term.end_at = (NOW + DAY * start if start else None), (NOW + DAY * end if end else None)
    row.state = stored
    assert effective_state(row, NOW) == student
    row.type = "TeacherEnrollment"
    assert effective_state(row, NOW) == teacher


def test_the_nearest_source_of_dates_wins(row: Enrollment) -> None:
    row.course.term.end_at = NOW - DAY
    assert effective_state(row, NOW) == "completed"
    row.course.restrict_to_dates, row.course.start_at = True, NOW + DAY
    assert effective_state(row, NOW) == "pending_active"
    row.section.restrict_to_dates, row.section.end_at = True, NOW + DAY
    assert effective_state(row, NOW) == "active"
    row.start_at = NOW + DAY
    assert effective_state(row, NOW) == "active", "an enrollment's own dates need both ends"
    row.end_at = NOW + 2 * DAY
    assert effective_state(row, NOW) == "pending_active"


def test_a_section_that_restricts_without_dates_leaves_everything_open(row: Enrollment) -> None:
    """lib/canvas/builders/enrollment_date_builder.rb#section_is_restricted?"""
    row.course.term.end_at = NOW - DAY
    row.section.restrict_to_dates = True
    assert effective_state(row, NOW) == "active"


@pytest.mark.parametrize(("kind", "state"), [("TeacherEnrollment", "active"), ("StudentEnrollment", "completed")])
def test_staff_are_let_in_by_the_terms_dates_as_well(row: Enrollment, kind: str, state: str) -> None:
    """lib/canvas/builders/enrollment_date_builder.rb#build: add_term_dates if admin"""
    row.type = kind
    row.section.restrict_to_dates, row.section.start_at, row.section.end_at = True, NOW - 2 * DAY, NOW - DAY
    row.course.term.start_at, row.course.term.end_at = NOW - DAY, NOW + DAY
    assert effective_state(row, NOW) == state


def test_staff_of_a_section_and_a_term_that_are_both_over_are_completed(row: Enrollment) -> None:
    """app/models/enrollment_state.rb#calculate_state_based_on_dates"""
    row.type = "TaEnrollment"
    row.section.restrict_to_dates, row.section.end_at = True, NOW - 2 * DAY
    row.course.term.end_at = NOW - DAY
    assert effective_state(row, NOW) == "completed"
    row.course.term.end_at, row.section.end_at = None, None
    row.section.start_at, row.course.term.start_at = NOW + DAY, NOW + 2 * DAY
    assert effective_state(row, NOW) == "inactive"


@pytest.mark.parametrize("column", ["start_at", "end_at"])
def test_both_ends_of_a_window_are_inside_it(row: Enrollment, column: str) -> None:
    """app/models/enrollment_state.rb: start_at <= now && now <= end_at"""
    setattr(row.course.term, column, NOW)
    assert effective_state(row, NOW) == "active"


def test_a_course_may_hide_itself_before_its_start_and_after_its_end(row: Enrollment) -> None:
    """app/models/enrollment_state.rb#recalculate_access and #get_effective_state"""
    row.course.restrict_future_view = row.course.restrict_past_view = True
    row.course.term.start_at = NOW + DAY
    assert (dated_state(row, NOW), effective_state(row, NOW)) == ("pending_active", "inactive")
    row.course.term.start_at, row.course.term.end_at = None, NOW - DAY
    assert (dated_state(row, NOW), effective_state(row, NOW)) == ("completed", "inactive")
    row.state = "creation_pending"
    assert effective_state(row, NOW) == "creation_pending", "only what dates apply to can be hidden"
    row.state, row.type = "active", "TeacherEnrollment"
    assert effective_state(row, NOW) == "completed", "staff see everything"


def test_a_test_student_may_use_a_course_before_it_starts(row: Enrollment) -> None:
    """app/models/enrollment_state.rb#calculate_state_based_on_dates: fake_student?"""
    row.type = "StudentViewEnrollment"
    row.course.term.start_at = NOW + DAY
    assert effective_state(row, NOW) == "active"
    row.course.term.start_at, row.course.term.end_at = None, NOW - DAY
    assert effective_state(row, NOW) == "completed"


def test_term_dates_may_differ_by_role_type(row: Enrollment) -> None:
    row.course.term.overrides["StudentEnrollment"] = (NOW + DAY, None)
    assert effective_state(row, NOW) == "pending_active"


def test_a_course_is_concluded_by_state_by_its_own_end_or_by_the_terms(row: Enrollment) -> None:
    course, section = row.course, row.section
    assert not course_concluded(course, NOW)
    course.term.end_at = NOW - DAY
    assert course_concluded(course, NOW)
    course.end_at = NOW + DAY
    assert course_concluded(course, NOW), "its own end counts only when it restricts to it"
    course.restrict_to_dates = True
    assert not course_concluded(course, NOW)
    course.state = "completed"
    assert course_concluded(course, NOW)
    assert section_concluded(section, NOW)
    section.restrict_to_dates, section.end_at = True, NOW + DAY
    assert not section_concluded(section, NOW)
