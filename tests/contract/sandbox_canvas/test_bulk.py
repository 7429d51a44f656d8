"""Many at once: enrollments and course events behind a Progress."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.contract.sandbox_canvas.conftest import Api

BULK = "accounts/self/bulk_enrollment"


async def enroll(api: Api, **wanted: Any) -> httpx.Response:
    body = {"user_ids": ["sis_user_id:U1", "sis_user_id:U2"], "course_ids": ["sis_course_id:C1", "sis_course_id:C2"]}
    return await api.call("POST", BULK, json=body | wanted)


async def finished(api: Api, answer: httpx.Response) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["workflow_state"]) == (200, "queued")
    assert "results" not in answer.json(), "what is only queued has none"
    body: dict[str, Any] = (await api.get(f"progress/{answer.json()['id']}")).json()
    assert (body["workflow_state"], body["completion"]) == ("completed", 100.0)
    return body


async def test_everybody_gets_the_default_state_in_the_default_section(api: Api) -> None:
    """app/models/enrollment/bulk_update.rb"""
    done = await finished(api, await enroll(api, user_ids=["sis_user_id:U1", "sis_user_id:nobody", "sis_user_id:U2"]))
    assert (done["tag"], done["results"]) == ("bulk_enrollment", {"errors": {}})
    rows = api.canvas.world.enrollments.values()
    assert {(row.section.sis_section_id, row.user.name, row.state) for row in rows} == {
        (section, name, "invited") for section in ("S1", "S3") for name in ("Ada Lovelace", "Kurt Gödel")
    }


async def test_who_has_no_live_login_ends_as_text_in_the_results(api: Api) -> None:
    """app/models/enrollment/bulk_update.rb: can_be_enrolled_in_course?"""
    user = api.seed(users=[{"sis_user_id": "U1", "login_state": "deleted"}])["users"]["U1"]
    done = await finished(api, await enroll(api, user_ids=[user], course_ids=["sis_course_id:C1"]))
    course = api.canvas.world.courses_by_sis["C1"].id
    assert done["results"]["errors"] == {str(user): f"User {user} cannot be enrolled in course {course}"}


async def test_a_role_decides_the_type(api: Api) -> None:
    """app/controllers/enrollments_api_controller.rb#bulk_enrollment"""
    auditor = next(role for role in api.canvas.world.roles.values() if role.name == "Auditor")
    await finished(api, await enroll(api, enrollment_role_id=auditor.id))
    assert {(row.type, row.role.name) for row in api.canvas.world.enrollments.values()} == {("StudentEnrollment", "Auditor")}


@pytest.mark.parametrize(
    ("wanted", "text"),
    [
        ({"user_ids": [str(number) for number in range(501)], "course_ids": ["1"]}, "Too many users to enroll at once."),
        ({"enrollment_type": "Student"}, "Invalid enrollment type."),
        ({"enrollment_role_id": "1"}, "Invalid role"),
        (
            {"enrollment_role_id": "3", "enrollment_type": "TeacherEnrollment"},
            "The specified type must match the base type for the role",
        ),
    ],
)
async def test_what_makes_no_sense_is_refused_at_once(api: Api, wanted: dict[str, Any], text: str) -> None:
    """app/controllers/enrollments_api_controller.rb#bulk_enrollment"""
    refused = await enroll(api, **wanted)
    assert (refused.status_code, refused.json()) == (400, {"errors": text})


async def test_it_needs_the_right_and_courses_that_are_there(api: Api) -> None:
    """app/controllers/enrollments_api_controller.rb#bulk_enrollment"""
    assert (await enroll(api, course_ids=["sis_course_id:nowhere"])).status_code == 404
    api.forbid("add_student_to_course")
    assert (await enroll(api)).status_code == 403
    assert (await api.get("progress/1")).status_code == 404


async def test_an_event_for_many_courses(api: Api) -> None:
    """app/controllers/courses_controller.rb#batch_update; app/models/course.rb#do_complete"""
    body = {"course_ids": ["sis_course_id:C1", "sis_course_id:C2", "sis_course_id:nowhere"], "event": "conclude"}
    done = await finished(api, await api.call("PUT", "accounts/self/courses", json=body))
    assert done["tag"] == "course_batch_update"
    assert {course.state for course in api.canvas.world.courses.values()} == {"completed"}
    assert api.canvas.world.courses_by_sis["C1"].stuck_sis_fields == {"workflow_state", "conclude_at"}


async def test_a_batch_leaves_deleted_courses_alone_unless_it_undeletes(api: Api) -> None:
    """app/controllers/courses_controller.rb#batch_update"""
    api.seed(courses=[{"sis_course_id": "C1", "state": "deleted"}])
    for event, state in (("offer", "deleted"), ("undelete", "claimed")):
        await api.call("PUT", "accounts/self/courses", json={"course_ids": ["sis_course_id:C1"], "event": event})
        assert api.canvas.world.courses_by_sis["C1"].state == state


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        ({}, 400, "must specify course_ids[]"),
        ({"event": "offer"}, 400, "must specify course_ids[]"),
        ({"event": "offer", "course_ids": ["1"] * 501}, 403, "course batch size limit (500) exceeded"),
        ({"course_ids": ["1"]}, 400, "need to specify event"),
        ({"event": "explode", "course_ids": ["1"]}, 400, "invalid event"),
    ],
)
async def test_a_batch_must_say_what_and_where(api: Api, body: dict[str, Any], status: int, text: str) -> None:
    """app/controllers/courses_controller.rb#batch_update"""
    refused = await api.call("PUT", "accounts/self/courses", json=body)
    assert (refused.status_code, refused.json()) == (status, {"message": text})
