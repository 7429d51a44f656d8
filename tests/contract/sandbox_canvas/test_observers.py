"""Linked observers and test students: rows that nobody asked for, and that rosters show all the same."""

from __future__ import annotations

import pytest

from tests.contract.sandbox_canvas.conftest import SECTION, Api


def observer_rows(api: Api) -> dict[str, str]:
    """Section → stored state of U2's rows as an observer of U1."""
    rows = api.canvas.world.enrollments.values()
    return {
        str(row.section.sis_section_id): row.state
        for row in rows
        if row.type == "ObserverEnrollment" and row.associated_user and row.associated_user.name == "Ada Lovelace"
    }


def observed(api: Api) -> None:
    api.seed(users=[{"sis_user_id": "U2", "observes": ["U1"]}])


async def test_a_linked_observer_is_enrolled_with_the_student_and_shown_in_the_roster(api: Api) -> None:
    """app/models/enrollment.rb#create_linked_enrollments"""
    observed(api)
    row = await api.enroll(
        start_at="2026-09-01T00:00:00Z", end_at="2026-12-01T00:00:00Z", limit_privileges_to_course_section=True
    )
    observers = [found for found in (await api.get(SECTION)).json() if found["type"] == "ObserverEnrollment"]
    assert [(found["sis_user_id"], found["associated_user_id"], found["start_at"]) for found in observers] == [
        ("U2", row["user_id"], row["start_at"])
    ]
    assert observers[0]["limit_privileges_to_course_section"] is False, "the limit is not copied"
    assert api.canvas.log.attempts[-1].followers == [observers[0]["id"]]


async def test_a_new_link_enrolls_where_the_student_is_already(api: Api) -> None:
    """app/models/user_observation_link.rb#create_linked_enrollments"""
    await api.enroll()
    gone = await api.enroll(path="sections/sis_section_id:S2/enrollments")
    await api.remove(gone, task="delete")
    observed(api)
    observed(api)
    assert observer_rows(api) == {"S1": "active"}


@pytest.mark.parametrize(
    ("task", "state"), [("delete", "deleted"), ("conclude", "completed"), ("inactivate", "inactive")], ids=lambda word: word
)
async def test_a_linked_observer_follows_the_student_out_and_back(api: Api, task: str, state: str) -> None:
    """app/models/enrollment.rb#update_linked_enrollments"""
    observed(api)
    row = await api.enroll()
    await api.remove(row, task=task)
    assert observer_rows(api) == {"S1": state}
    await api.enroll()
    assert observer_rows(api) == {"S1": "active"}


async def test_a_linked_observer_takes_the_students_dates(api: Api) -> None:
    """app/models/enrollment.rb#update_from"""
    observed(api)
    await api.enroll()
    await api.enroll(start_at="2026-09-01T00:00:00Z", end_at="2126-12-01T00:00:00Z")
    rows = (await api.get(SECTION)).json()
    assert {row["start_at"] for row in rows} == {"2026-09-01T00:00:00Z"}


async def test_an_invited_students_observer_is_active(api: Api) -> None:
    """app/models/enrollment.rb#update_from"""
    observed(api)
    await api.enroll(enrollment_state="invited")
    assert observer_rows(api) == {"S1": "active"}


async def test_an_observer_removed_by_hand_stays_away_until_the_student_returns_from_inactive(api: Api) -> None:
    """app/models/enrollment.rb#active_linked_enrollment_for"""
    observed(api)
    row = await api.enroll()
    mine = next(found for found in (await api.get(SECTION)).json() if found["type"] == "ObserverEnrollment")
    await api.remove(mine, task="delete")
    await api.remove(row, task="inactivate")
    assert observer_rows(api) == {"S1": "deleted"}
    await api.enroll()
    assert observer_rows(api) == {"S1": "active"}


async def test_somebody_enrolled_as_an_observer_by_hand_follows_nobody(api: Api) -> None:
    """app/models/enrollment.rb#observers: the links of the student, not the associated user of a row"""
    student = await api.enroll()
    observer = await api.enroll(type="ObserverEnrollment", user_id="sis_user_id:U2", associated_user_id=api.id_of("U1"))
    await api.remove(student, task="delete")
    assert api.stored(observer).state == "active"


async def test_a_pretended_write_leaves_no_observer_behind(api: Api) -> None:
    """Not of Canvas: a fault that pretends."""
    observed(api)
    await api.control("POST", "faults", json={"kind": "pretend", "count": 1})
    await api.create()
    assert api.canvas.world.enrollments == {}


async def test_the_test_student_is_in_every_section_with_a_type_of_its_own(api: Api) -> None:
    """app/models/course.rb#student_view_student"""
    user = api.seed(test_students=[{"course": "C1"}])["test_students"]["C1"]
    assert api.seed(test_students=[{"course": "C1"}])["test_students"]["C1"] == user
    rows, _ = await api.walk("courses/sis_course_id:C1/enrollments")
    assert {(row["type"], row["role"], row["user"]["name"], row["sis_user_id"]) for row in rows} == {
        ("StudentViewEnrollment", "StudentEnrollment", "Test Student", None)
    }
    assert len(rows) == 2
    assert (await api.get(SECTION, **{"type[]": "StudentEnrollment"})).json() == []
    assert len((await api.get(SECTION, **{"type[]": "StudentViewEnrollment"})).json()) == 1


async def test_the_test_student_takes_no_regular_role(api: Api) -> None:
    """app/models/enrollment.rb, validation of user_id"""
    user = api.seed(test_students=[{"course": "C1"}])["test_students"]["C1"]
    refused = await api.create(user_id=str(user))
    assert refused.status_code == 400
    assert refused.json()["errors"]["user_id"][0]["message"] == "cannot add a student view student in a regular role"


async def test_only_who_may_use_the_student_view_removes_the_test_student(api: Api) -> None:
    """app/models/enrollment.rb#can_be_deleted_by"""
    api.seed(test_students=[{"course": "C1"}])
    row = (await api.get(SECTION)).json()[0]
    api.forbid("use_student_view")
    assert (await api.remove(row, task="delete")).status_code == 403


LINK = "users/sis_user_id:U2/observees/sis_user_id:U1"


async def test_links_are_made_shown_and_ended_over_rest(api: Api) -> None:
    """app/controllers/user_observees_controller.rb"""
    await api.enroll()
    linked = await api.call("PUT", LINK)
    assert (linked.status_code, linked.json()["sis_user_id"]) == (200, "U1")
    assert [user["sis_user_id"] for user in (await api.get("users/sis_user_id:U2/observees")).json()] == ["U1"]
    assert [user["sis_user_id"] for user in (await api.get("users/sis_user_id:U1/observers")).json()] == ["U2"]
    assert (await api.get(LINK)).json()["sis_user_id"] == "U1"
    assert observer_rows(api) == {"S1": "active"}
    assert (await api.call("DELETE", LINK)).status_code == 200
    assert (await api.get(LINK)).status_code == 404
    assert (await api.call("DELETE", LINK)).status_code == 404


async def test_the_end_of_a_link_deletes_every_row_of_the_two(api: Api) -> None:
    """app/models/user_observation_link.rb#remove_linked_enrollments: also those made by hand"""
    observed(api)
    await api.enroll()
    byhand = {"type": "ObserverEnrollment", "user_id": "sis_user_id:U2", "associated_user_id": api.id_of("U1")}
    await api.enroll("sections/sis_section_id:S3/enrollments", **byhand)
    await api.call("DELETE", LINK)
    assert observer_rows(api) == {"S1": "deleted", "S3": "deleted"}
    await api.enroll("sections/sis_section_id:S2/enrollments")
    assert observer_rows(api) == {"S1": "deleted", "S3": "deleted"}, "nothing follows any more"


async def test_nobody_is_linked_to_themselves_or_without_the_right(api: Api) -> None:
    """app/models/user_observation_link.rb#not_same_user"""
    refused = await api.call("PUT", "users/sis_user_id:U1/observees/sis_user_id:U1")
    assert refused.json()["errors"]["observer_id"][0]["message"] == "Cannot observe yourself"
    api.forbid("manage_user_observers")
    assert (await api.call("PUT", LINK)).status_code == 403


async def test_a_new_link_leaves_concluded_enrollments_alone(api: Api) -> None:
    """app/models/user_observation_link.rb#create_linked_enrollments: all_active_or_pending"""
    await api.remove(await api.enroll(), task="conclude")
    await api.remove(await api.enroll("sections/sis_section_id:S2/enrollments"), task="inactivate")
    observed(api)
    assert observer_rows(api) == {"S2": "inactive"}
