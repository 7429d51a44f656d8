"""Delete, conclude, deactivate, reactivate, accept, reject."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.contract.sandbox_canvas.conftest import Api


@pytest.mark.parametrize(
    ("task", "stored"),
    [
        ("delete", "deleted"),
        ("conclude", "completed"),
        ("deactivate", "inactive"),
        ("inactivate", "inactive"),
        ("remove", "completed"),
        (None, "completed"),
    ],
)
@pytest.mark.parametrize("before", ["active", "invited", "inactive", "completed"])
async def test_the_task_decides_and_anything_else_concludes(api: Api, before: str, task: str | None, stored: str) -> None:
    """app/controllers/enrollments_api_controller.rb#destroy"""
    row = await api.enroll()
    api.stored(row).state = before
    answer = await api.remove(row, **({"task": task} if task else {}))
    assert (answer.status_code, answer.json()["enrollment_state"]) == (200, stored)
    assert (api.stored(row).completed_at is not None) is (stored == "completed")


async def test_the_task_may_come_in_the_body(api: Api) -> None:
    """app/controllers/enrollments_api_controller.rb#destroy"""
    row = await api.enroll()
    answer = await api.call("DELETE", f"courses/{row['course_id']}/enrollments/{row['id']}", data={"task": "delete"})
    assert answer.json()["enrollment_state"] == "deleted"


@pytest.mark.parametrize(("task", "second"), [("delete", 404), ("conclude", 200), ("inactivate", 200)])
async def test_only_a_second_delete_finds_nothing(api: Api, task: str, second: int) -> None:
    """app/controllers/enrollments_api_controller.rb#destroy: course.enrollments leaves deleted ones out"""
    row = await api.enroll()
    assert (await api.remove(row, task=task)).status_code == 200
    assert (await api.remove(row, task=task)).status_code == second


async def test_a_second_conclusion_has_a_moment_of_its_own(api: Api) -> None:
    """app/models/enrollment.rb#conclude"""
    row = await api.enroll()
    api.canvas.clock.set(api.canvas.clock.now(), frozen=True)
    await api.remove(row, task="conclude")
    first = api.stored(row).completed_at
    api.canvas.clock.advance(60)
    await api.remove(row, task="conclude")
    assert first is not None
    assert api.stored(row).completed_at == first + timedelta(seconds=60)


async def test_a_delete_through_another_course_finds_nothing(api: Api) -> None:
    """app/controllers/enrollments_api_controller.rb#destroy"""
    row = await api.enroll()
    assert (await api.remove(row | {"course_id": "sis_course_id:C2"}, task="delete")).status_code == 404
    assert (await api.remove(row | {"id": "sis_user_id:U1"}, task="delete")).status_code == 404
    assert (await api.remove(row | {"course_id": "sis_course_id:C1"}, task="delete")).status_code == 200


async def test_after_a_cross_list_the_old_course_no_longer_finds_the_row(api: Api) -> None:
    """app/models/course_section.rb#move_to_course"""
    row = await api.enroll()
    await api.call("POST", "sections/sis_section_id:S1/crosslist/sis_course_id:C2")
    assert (await api.remove(row, task="delete")).status_code == 404
    found = (await api.get(f"accounts/self/enrollments/{row['id']}")).json()
    assert (await api.remove(found, task="delete")).status_code == 200


async def test_a_deleted_enrollment_can_still_be_shown_by_its_id(api: Api) -> None:
    """app/controllers/enrollments_api_controller.rb#show"""
    row = await api.enroll()
    await api.remove(row, task="delete")
    shown = await api.get(f"accounts/self/enrollments/{row['id']}")
    assert (shown.status_code, shown.json()["enrollment_state"]) == (200, "deleted")
    assert (await api.get("accounts/self/enrollments/1")).status_code == 404
    api.seed(accounts=[{"sis_account_id": "LAW"}])
    below = await api.get(f"accounts/sis_account_id:LAW/enrollments/{row['id']}")
    assert below.status_code == 404, "rows belong to the root account (app/models/account.rb: all_enrollments)"


async def test_a_deleted_course_or_section_makes_its_enrollments_read_as_deleted(api: Api) -> None:
    """lib/api/v1/user.rb#enrollment_json"""
    row = await api.enroll()
    api.seed(courses=[{"sis_course_id": "C1", "state": "deleted"}])
    assert (await api.get(f"accounts/self/enrollments/{row['id']}")).json()["enrollment_state"] == "deleted"
    assert api.stored(row).state == "active"


async def test_removal_leaves_the_siss_ownership_and_a_revival_takes_it(api: Api) -> None:
    """app/models/course.rb#enroll_user; app/models/enrollment.rb#destroy"""
    row = api.seed(enrollments=[{"section": "S1", "user": "U1", "sis_import_id": 7}])["enrollments"][0]
    stored = api.canvas.world.enrollments[row]
    removed = await api.remove({"course_id": stored.course.id, "id": row}, task="delete")
    assert removed.json()["sis_import_id"] == 7
    assert (await api.enroll())["sis_import_id"] is None


async def test_removal_needs_the_right_for_the_role_type(api: Api) -> None:
    """app/models/enrollment.rb#can_be_deleted_by"""
    row, teacher = await api.enroll(), await api.enroll(type="TeacherEnrollment")
    api.forbid("remove_student_from_course")
    assert (await api.remove(row, task="delete")).status_code == 403
    assert (await api.remove(teacher, task="delete")).status_code == 200


async def test_removing_oneself_needs_an_account_right_too(api: Api) -> None:
    """app/models/enrollment.rb#can_be_deleted_by"""
    row = await api.enroll(user_id="self", type="TeacherEnrollment")
    api.forbid("allow_course_admin_actions")
    assert (await api.remove(row, task="delete")).status_code == 403


async def test_reactivate_works_from_inactive_only(api: Api) -> None:
    """app/controllers/enrollments_api_controller.rb#reactivate"""
    row = await api.enroll()
    path = f"courses/{row['course_id']}/enrollments/{row['id']}/reactivate"
    refused = await api.call("PUT", path)
    assert (refused.status_code, refused.json()) == (400, {"error": "enrollment not inactive"})
    await api.remove(row, task="inactivate")
    assert (await api.call("PUT", path)).json()["enrollment_state"] == "active"
    await api.remove(row, task="delete")
    assert (await api.call("PUT", path)).status_code == 404


async def test_an_invitation_is_answered_by_the_invited_person_only(api: Api) -> None:
    """app/controllers/enrollments_api_controller.rb#accept and #reject"""
    mine = await api.enroll(user_id="self", enrollment_state="invited")
    path = f"courses/{mine['course_id']}/enrollments/{mine['id']}"
    assert (await api.call("POST", f"{path}/reject")).json() == {"success": True}
    assert api.stored(mine).state == "rejected"
    assert (await api.call("POST", f"{path}/accept")).json() == {"success": True}
    assert api.stored(mine).state == "active"
    assert (await api.call("POST", f"{path}/reject")).json() == {"error": "no current invitation"}
    theirs = await api.enroll(enrollment_state="invited")
    assert (await api.call("POST", f"courses/{theirs['course_id']}/enrollments/{theirs['id']}/accept")).status_code == 403
