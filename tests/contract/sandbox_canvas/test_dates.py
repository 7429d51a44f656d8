"""Dates over HTTP: what is effective now decides what a create does, and one's own list shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from tests.contract.sandbox_canvas.conftest import Api

START, END = "2026-09-01T00:00:00Z", "2026-12-18T00:00:00Z"
BEFORE, DURING, AFTER = "2026-08-01T00:00:00Z", "2026-10-01T00:00:00Z", "2027-01-01T00:00:00Z"
DATES = {"start_at": START, "end_at": END}
LISTS = ("current_and_invited", "current_and_future", "current_future_and_restricted", "current_and_concluded")
"""The words that stand for several states."""
SOURCES: dict[str, dict[str, Any]] = {
    "term": {"terms": [{"sis_term_id": "F26"} | DATES], "courses": [{"sis_course_id": "C1", "term": "F26"}]},
    "course": {"courses": [{"sis_course_id": "C1", "restrict_to_dates": True} | DATES]},
    "section": {"sections": [{"sis_section_id": "S1", "course": "C1", "restrict_to_dates": True} | DATES]},
}


def at(api: Api, moment: str) -> None:
    api.canvas.clock.set(datetime.fromisoformat(moment), frozen=True)


@pytest.mark.parametrize("source", SOURCES)
async def test_before_the_start_a_create_without_a_state_takes_an_active_student_back_to_invited(api: Api, source: str) -> None:
    """app/models/course.rb#enroll_user: active? is the effective state"""
    api.seed(**SOURCES[source])
    at(api, BEFORE)
    row = await api.enroll()
    assert row["enrollment_state"] == "active", "the stored state is shown, not the effective one"
    assert (await api.enroll(enrollment_state=None))["enrollment_state"] == "invited"
    at(api, DURING)
    await api.enroll()
    assert (await api.enroll(enrollment_state=None))["enrollment_state"] == "active"


@pytest.mark.parametrize("source", ["term", "course"])
async def test_after_the_end_of_term_or_course_nobody_can_be_added(api: Api, source: str) -> None:
    """app/controllers/enrollments_api_controller.rb#create: concluded_course"""
    api.seed(**SOURCES[source])
    at(api, AFTER)
    refused = await api.create()
    assert (refused.status_code, refused.json()) == (400, {"message": "Can't add an enrollment to a concluded course."})


async def test_a_section_that_is_over_takes_people_while_its_course_runs(api: Api) -> None:
    """app/models/course.rb#concluded? does not look at sections; the row is effectively completed at once"""
    api.seed(**SOURCES["section"])
    at(api, AFTER)
    await api.enroll()
    (row,) = (await api.control("GET", "rosters"))["enrollments"]
    assert (row["state"], row["effective_state"]) == ("active", "completed")
    assert (await api.enroll(enrollment_state="inactive"))["enrollment_state"] == "inactive"


@pytest.mark.parametrize(
    ("moment", "shown_in"),
    [
        (BEFORE, {"pending_active", "current_and_future", "current_future_and_restricted"}),
        (
            DURING,
            {"active", "current_and_invited", "current_and_future", "current_future_and_restricted", "current_and_concluded"},
        ),
        (AFTER, {"completed", "current_and_concluded"}),
    ],
)
async def test_ones_own_list_goes_by_the_effective_state(api: Api, moment: str, shown_in: set[str]) -> None:
    """app/controllers/enrollments_api_controller.rb#user_index_enrollments"""
    at(api, DURING)
    await api.enroll(user_id="self", **DATES)
    at(api, moment)
    words = ("active", "inactive", "invited", "creation_pending", "pending_active", "pending_invited", "completed", *LISTS)
    found = {word for word in words if (await api.get("users/self/enrollments", **{"state[]": word})).json()}
    assert found == shown_in


async def test_an_enrollment_with_one_date_goes_by_the_other_sources(api: Api) -> None:
    """lib/canvas/builders/enrollment_date_builder.rb#enrollment_is_restricted?"""
    api.seed(**SOURCES["term"])
    at(api, DURING)
    await api.enroll(start_at="2026-11-01T00:00:00Z")
    assert (await api.control("GET", "rosters"))["enrollments"][0]["effective_state"] == "active"
    await api.enroll(start_at="2026-11-01T00:00:00Z", end_at=END)
    assert (await api.control("GET", "rosters"))["enrollments"][0]["effective_state"] == "pending_active"


async def test_a_hidden_course_makes_its_students_inactive_and_an_invitation_unanswerable(api: Api) -> None:
    """app/controllers/enrollments_api_controller.rb#accept: membership not activated"""
    api.seed(courses=[{"sis_course_id": "C1", "restrict_to_dates": True, "restrict_future_view": True} | DATES])
    at(api, BEFORE)
    row = await api.enroll(user_id="self", enrollment_state="invited")
    path = f"courses/{row['course_id']}/enrollments/{row['id']}/accept"
    refused = await api.call("POST", path)
    assert (refused.status_code, refused.json()) == (400, {"error": "membership not activated"})
    api.seed(courses=[{"sis_course_id": "C1", "restrict_future_view": False}])
    assert (await api.call("POST", path)).json() == {"success": True}
