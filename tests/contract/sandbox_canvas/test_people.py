"""Who is in a course or a section, read as users."""

from __future__ import annotations

from typing import Any

from tests.contract.sandbox_canvas.conftest import Api

COURSE = "courses/sis_course_id:C1/users"


async def names(api: Api, path: str = COURSE, **parameters: Any) -> list[str]:
    answer = await api.get(path, **parameters)
    assert answer.status_code == 200, answer.text
    return [user["name"] for user in answer.json()]


async def test_a_person_is_listed_once_by_name_with_the_rows_that_fit(api: Api) -> None:
    """app/controllers/courses_controller.rb#users, lib/user_search.rb"""
    await api.enroll(user_id="sis_user_id:U2")
    await api.enroll(user_id="sis_user_id:U1")
    await api.enroll("sections/sis_section_id:S2/enrollments", user_id="sis_user_id:U1", type="TeacherEnrollment")
    assert await names(api) == ["Kurt Gödel", "Ada Lovelace"]
    assert await names(api, "sections/sis_section_id:S2/users") == ["Ada Lovelace"]
    ada = (await api.get(COURSE, **{"include[]": "enrollments"})).json()[1]
    assert sorted(row["type"] for row in ada["enrollments"]) == ["StudentEnrollment", "TeacherEnrollment"]
    assert "enrollments" not in (await api.get(COURSE)).json()[0]


async def test_types_and_states_narrow_the_list(api: Api) -> None:
    """app/controllers/courses_controller.rb#users: enrollment_type, enrollment_state, user_ids"""
    teacher = await api.enroll(type="TeacherEnrollment")
    await api.remove(await api.enroll(user_id="sis_user_id:U2"), task="conclude")
    assert await names(api) == ["Ada Lovelace"]
    assert await names(api, **{"enrollment_type[]": "student"}) == []
    both: dict[str, Any] = {"enrollment_state[]": ["completed", "active"]}
    assert await names(api, **both) == ["Kurt Gödel", "Ada Lovelace"]
    assert await names(api, **both, **{"user_ids[]": teacher["user_id"]}) == ["Ada Lovelace"]


async def test_the_test_student_shows_only_when_asked_for(api: Api) -> None:
    """app/controllers/courses_controller.rb#users: student_view"""
    api.seed(test_students=[{"course": "C1"}])
    assert await names(api) == []
    assert await names(api, **{"enrollment_type[]": "student_view"}) == ["Test Student"]


async def test_one_person_of_a_course(api: Api) -> None:
    """app/controllers/courses_controller.rb#user"""
    row = await api.enroll()
    assert (await api.get(f"{COURSE}/sis_user_id:U1")).json()["id"] == row["user_id"]
    assert (await api.get(f"{COURSE}/sis_user_id:U2")).status_code == 404
    await api.remove(row, task="delete")
    assert (await api.get(f"{COURSE}/sis_user_id:U1")).status_code == 404


async def test_it_needs_the_right_to_read_rosters(api: Api) -> None:
    """app/controllers/courses_controller.rb#users"""
    await api.enroll()
    api.forbid("read_roster")
    assert (await api.get(COURSE)).status_code == 403
    assert (await api.get(f"{COURSE}/sis_user_id:U1")).status_code == 403


async def test_a_section_may_be_shown_with_its_students(api: Api) -> None:
    """lib/api/v1/section.rb"""
    await api.enroll()
    await api.remove(await api.enroll(user_id="sis_user_id:U2"), task="conclude")
    await api.remove(await api.enroll(user_id="sis_user_id:U3"), task="delete")
    asked = {"include[]": ["students", "enrollments", "total_students"]}
    shown = (await api.get("sections/sis_section_id:S1", **asked)).json()
    assert [student["name"] for student in shown["students"]] == ["Ada Lovelace", "Kurt Gödel"]
    assert [row["enrollment_state"] for student in shown["students"] for row in student["enrollments"]] == ["active", "completed"]
    assert shown["total_students"] == 1
