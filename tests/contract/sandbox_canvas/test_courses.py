"""Courses over REST: made, published, concluded, deleted, revived, moved to another term."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from services.sandbox.canvas.state import Course
from tests.contract.sandbox_canvas.conftest import Api

C1 = "courses/sis_course_id:C1"
COURSES = "accounts/self/courses"


def stored(api: Api, sis_id: str = "C1") -> Course:
    return api.canvas.world.courses_by_sis[sis_id]


async def make(api: Api, account: str = "self", **wanted: Any) -> httpx.Response:
    body = {name: wanted.pop(name) for name in ("offer", "enroll_me", "enable_sis_reactivation") if name in wanted}
    return await api.call("POST", f"accounts/{account}/courses", json={"course": wanted} | body)


async def change(api: Api, path: str = C1, **wanted: Any) -> httpx.Response:
    return await api.call("PUT", path, json={"course": wanted})


async def test_a_new_course_has_what_was_sent(api: Api) -> None:
    """app/controllers/courses_controller.rb#create; app/models/course.rb: are_sis_sticky"""
    api.seed(terms=[{"sis_term_id": "F26"}], accounts=[{"sis_account_id": "LAW"}])
    made = await make(
        api,
        "sis_account_id:LAW",
        name="Logic",
        course_code="LOG 1",
        sis_course_id="C9",
        term_id="sis_term_id:F26",
        start_at="2026-09-01T00:00:00Z",
        restrict_enrollments_to_course_dates=True,
    )
    world = api.canvas.world
    expected = {
        "name": "Logic",
        "course_code": "LOG 1",
        "sis_course_id": "C9",
        "workflow_state": "unpublished",
        "enrollment_term_id": world.terms_by_sis["F26"].id,
        "start_at": "2026-09-01T00:00:00Z",
        "restrict_enrollments_to_course_dates": True,
        "sis_import_id": None,
    }
    assert made.status_code == 200
    assert expected.items() <= made.json().items()
    assert stored(api, "C9").account.sis_account_id == "LAW"
    assert stored(api, "C9").stuck_sis_fields == {
        "name",
        "course_code",
        "enrollment_term_id",
        "account_id",
        "start_at",
        "restrict_enrollments_to_course_dates",
        "workflow_state",
    }


@pytest.mark.parametrize(("offer", "state"), [(True, "available"), (False, "unpublished")])
async def test_offer_publishes_at_once(api: Api, offer: bool, state: str) -> None:
    """app/controllers/courses_controller.rb#create"""
    assert (await make(api, name="X", offer=offer)).json()["workflow_state"] == state


@pytest.mark.parametrize(
    ("event", "stored_state", "shown", "stuck"),
    [
        ("claim", "claimed", "unpublished", {"workflow_state"}),
        ("offer", "available", "available", set()),
        ("conclude", "completed", "completed", {"workflow_state", "conclude_at"}),
    ],
)
async def test_an_event_changes_the_state_and_makes_it_sticky(
    api: Api, event: str, stored_state: str, shown: str, stuck: set[str]
) -> None:
    """app/controllers/courses_controller.rb#update, app/models/course.rb: are_sis_sticky, do_complete"""
    changed = await change(api, event=event)
    assert (changed.json()["workflow_state"], stored(api).state) == (shown, stored_state)
    assert stored(api).stuck_sis_fields == stuck, "it was available before"
    assert (stored(api).end_at is not None) is (event == "conclude")


async def test_a_new_course_waits_to_be_claimed_by_its_first_teacher(api: Api) -> None:
    """app/models/course.rb: workflow, enroll_user; app/controllers/courses_controller.rb#create: enroll_me"""
    await make(api, name="Logic", sis_course_id="C9")
    assert stored(api, "C9").state == "created"
    await api.enroll("courses/sis_course_id:C9/enrollments")
    assert stored(api, "C9").state == "created"
    await api.enroll("courses/sis_course_id:C9/enrollments", type="TeacherEnrollment")
    assert stored(api, "C9").state == "claimed"
    await make(api, name="Sets", sis_course_id="C8", enroll_me=True)
    teachers = (await api.get("courses/sis_course_id:C8/enrollments")).json()
    assert [(row["type"], row["enrollment_state"], row["user"]["name"]) for row in teachers] == [
        ("TeacherEnrollment", "active", "enrollstream service")
    ]


DATES = {"start_at": "2026-09-01T00:00:00Z", "end_at": "2026-12-18T00:00:00Z"}


@pytest.mark.parametrize("restricts", [True, False])
async def test_a_course_has_dates_only_if_it_restricts_itself_to_them(api: Api, restricts: bool) -> None:
    """app/controllers/courses_controller.rb#create and #update"""
    made = (await make(api, name="X", restrict_enrollments_to_course_dates=restricts, **DATES)).json()
    assert {name: made[name] for name in DATES} == (DATES if restricts else dict.fromkeys(DATES))
    changed = (await change(api, restrict_enrollments_to_course_dates=restricts, **DATES)).json()
    assert changed["start_at"] == DATES["start_at"], "of a published course the start stays"
    assert changed["end_at"] == (DATES["end_at"] if restricts else None)


@pytest.mark.parametrize("many", [False, True])
async def test_publishing_invites_whoever_was_waiting_for_it(api: Api, many: bool) -> None:
    """app/models/course.rb#invite_uninvited_students"""
    api.seed(courses=[{"sis_course_id": "C1", "state": "claimed"}])
    row = await api.enroll(enrollment_state=None)
    active = await api.enroll(user_id="sis_user_id:U2")
    assert row["enrollment_state"] == "creation_pending"
    if many:
        await api.call("PUT", COURSES, json={"course_ids": ["sis_course_id:C1"], "event": "offer"})
    else:
        await change(api, event="offer")
    assert (api.stored(row).state, api.stored(active).state) == ("invited", "active")


async def test_a_deleted_course_can_be_brought_back_unpublished(api: Api) -> None:
    """app/controllers/courses_controller.rb#update: undelete"""
    assert (await api.call("DELETE", C1, params={"event": "delete"})).json() == {"delete": True}
    assert (await change(api, name="X")).status_code == 404
    assert (await change(api, event="undelete")).json()["workflow_state"] == "unpublished"


async def test_a_delete_must_say_which(api: Api) -> None:
    """app/controllers/courses_controller.rb#destroy"""
    refused = await api.call("DELETE", C1)
    assert (refused.status_code, refused.json()) == (400, {"message": "Only 'delete' and 'conclude' events are allowed"})


async def test_a_deleted_course_is_revived_by_its_sis_id_and_stays_as_it_was(api: Api) -> None:
    """app/controllers/courses_controller.rb#create: enable_sis_reactivation"""
    before = stored(api).id
    await api.call("DELETE", C1, params={"event": "delete"})
    refused = await make(api, name="Again", sis_course_id="C1")
    assert refused.json()["errors"]["sis_source_id"][0]["message"] == 'SIS ID "C1" is already in use'
    revived = await make(api, name="Again", sis_course_id="C1", enable_sis_reactivation=True)
    assert (revived.json()["id"], revived.json()["name"], revived.json()["workflow_state"]) == (before, "C1", "unpublished")


async def test_a_changed_sis_id_is_found_and_the_old_one_is_not(api: Api) -> None:
    """app/controllers/courses_controller.rb#update"""
    assert (await change(api, sis_course_id="C1-new")).json()["sis_course_id"] == "C1-new"
    assert (await api.get(C1)).status_code == 404
    assert (await api.enroll())["sis_course_id"] == "C1-new"
    refused = await change(api, "courses/sis_course_id:C1-new", sis_course_id="C2")
    assert refused.status_code == 400


async def test_without_manage_sis_a_sis_id_is_ignored_in_silence(api: Api) -> None:
    """app/controllers/courses_controller.rb#update: unlike sections"""
    api.forbid("manage_sis")
    assert (await change(api, sis_course_id="C1-new", name="X")).status_code == 200
    assert (stored(api).sis_course_id, stored(api).name) == ("C1", "X")
    assert (await make(api, name="X", sis_course_id="C9")).json()["sis_course_id"] is None


@pytest.mark.parametrize(
    ("wanted", "stuck"),
    [
        ({"name": "Other"}, {"name"}),
        ({"course_code": "X 1"}, {"course_code"}),
        ({"term_id": "sis_term_id:F26"}, {"enrollment_term_id"}),
        ({"account_id": "sis_account_id:LAW"}, {"account_id"}),
        ({"end_at": "2026-12-01T00:00:00Z"}, set()),
        ({"start_at": "2026-09-01T00:00:00Z", "end_at": "2026-12-01T00:00:00Z", "restrict_enrollments_to_course_dates": True},
         {"start_at", "conclude_at", "restrict_enrollments_to_course_dates"}),
        ({"name": "C1"}, set()),
    ],
)  # fmt: skip
async def test_what_changes_becomes_sticky(api: Api, wanted: dict[str, Any], stuck: set[str]) -> None:
    """app/models/course.rb: are_sis_sticky"""
    api.seed(terms=[{"sis_term_id": "F26"}], accounts=[{"sis_account_id": "LAW"}])
    assert (await change(api, **wanted)).status_code == 200
    assert stored(api).stuck_sis_fields == stuck


async def test_what_is_sticky_may_be_spared(api: Api) -> None:
    """app/controllers/courses_controller.rb#update: override_sis_stickiness"""
    await change(api, name="Mine")
    body = {"course": {"name": "Theirs", "course_code": "T 1"}, "override_sis_stickiness": "false"}
    shown = (await api.call("PUT", C1, json=body)).json()
    assert (shown["name"], shown["course_code"]) == ("Mine", "T 1")


@pytest.mark.parametrize("wanted", [{"term_id": "sis_term_id:never"}, {"account_id": "7"}])
async def test_an_unknown_term_or_account_is_404(api: Api, wanted: dict[str, str]) -> None:
    """lib/api.rb#api_find"""
    assert (await change(api, **wanted)).status_code == 404


async def test_dates_must_be_in_order(api: Api) -> None:
    """app/models/course.rb#validate_course_dates"""
    refused = await change(api, start_at="2026-09-01", end_at="2026-08-01", restrict_enrollments_to_course_dates=True)
    assert refused.status_code == 400
    assert stored(api).start_at is None


async def test_changes_need_the_right(api: Api) -> None:
    """app/models/course.rb set_policy"""
    api.forbid("manage_courses_add", "manage_course_content_edit", "manage_courses_delete")
    answers = [await make(api, name="X"), await change(api, name="X"), await api.call("DELETE", C1, params={"event": "delete"})]
    assert [answer.status_code for answer in answers] == [403, 403, 403]


@pytest.mark.parametrize(
    ("event", "taken"),
    [("offer", "manage_courses_publish"), ("claim", "manage_courses_publish"), ("conclude", "manage_courses_conclude")],
)
async def test_an_event_needs_a_right_of_its_own_and_no_other(api: Api, event: str, taken: str) -> None:
    """app/controllers/courses_controller.rb#update: permission_for_event"""
    api.forbid("manage_course_content_edit")
    assert (await change(api, event=event)).status_code == 200
    assert (await change(api, event=event, name="X")).status_code == 403
    api.forbid(taken)
    assert (await change(api, event=event)).status_code == 403


async def test_who_may_edit_content_but_not_manage_courses_changes_nothing_and_is_not_told(api: Api) -> None:
    """app/controllers/courses_controller.rb#update: manage_course_content_edit, then grants_right? update"""
    api.forbid("manage_courses_admin")
    kept = await change(api, name="X", course_code="X 1")
    assert (kept.status_code, kept.json()["name"], kept.json()["course_code"]) == (200, "C1", "C1")


async def test_a_list_leaves_out_deleted_courses_and_hides_sis_ids(api: Api) -> None:
    """app/controllers/accounts_controller.rb#courses_api"""
    await api.call("DELETE", C1, params={"event": "delete"})
    assert [course["sis_course_id"] for course in (await api.get(COURSES)).json()] == ["C2"]
    api.forbid("read_sis", "manage_sis")
    assert "sis_course_id" not in (await api.get(COURSES)).json()[0]


async def test_a_course_is_found_by_uuid_and_integration_id(api: Api) -> None:
    """lib/api.rb#api_find"""
    await change(api, integration_id="I1")
    assert (await api.get("courses/sis_integration_id:I1")).json()["sis_course_id"] == "C1"
    assert (await api.get(f"courses/uuid:{'f' * 40}")).status_code == 404
