"""Cross-listing: a section moves to another course with everybody in it, and the SIS's path to it goes along."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.contract.sandbox_canvas.conftest import SECTION, Api

S1 = "sections/sis_section_id:S1"


async def cross_list(api: Api, course: str = "sis_course_id:C2", section: str = S1, **more: Any) -> httpx.Response:
    return await api.call("POST", f"{section}/crosslist/{course}", **more)


def course(api: Api, sis_id: str) -> int:
    return api.canvas.world.courses_by_sis[sis_id].id


async def test_the_section_moves_and_remembers_its_course(api: Api) -> None:
    """app/models/course_section.rb#crosslist_to_course"""
    body = (await cross_list(api)).json()
    assert (body["course_id"], body["nonxlist_course_id"]) == (course(api, "C2"), course(api, "C1"))
    assert [row["sis_section_id"] for row in (await api.get("courses/sis_course_id:C2/sections")).json()] == ["S1", "S3"]
    assert (await api.get("courses/sis_course_id:C1/sections/sis_section_id:S1")).status_code == 404


async def test_every_enrollment_moves_along_deleted_ones_too(api: Api) -> None:
    """app/models/course_section.rb#move_to_course: update_all on all_enrollments"""
    api.seed(enrollments=[{"section": "S1", "user": "U1"}, {"section": "S1", "user": "U2", "state": "deleted"}])
    await cross_list(api)
    everything = {"state[]": ["active", "deleted"]}
    assert (await api.get("courses/sis_course_id:C1/enrollments", **everything)).json() == []
    rows = (await api.get("courses/sis_course_id:C2/enrollments", **everything)).json()
    assert {(row["sis_user_id"], row["sis_course_id"], row["sis_section_id"]) for row in rows} == {
        ("U1", "C2", "S1"),
        ("U2", "C2", "S1"),
    }


async def test_the_columns_of_the_enrollments_stay_as_they_were(api: Api) -> None:
    """app/models/course_section.rb#move_to_course: nothing but course_id is written"""
    dates = {"start_at": "2026-09-01T00:00:00Z", "end_at": "2026-12-01T00:00:00Z"}
    api.seed(enrollments=[{"section": "S1", "user": "U1", "sis_import_id": 7, "limit_privileges": True} | dates])
    since = (await api.control("POST", "snapshots"))["id"]
    await cross_list(api)
    found = (await api.control("GET", f"snapshots/{since}/changes"))["changes"]
    assert [(change["kind"], sorted(change["changed"])) for change in found] == [
        ("sections", ["course", "nonxlist_course", "stuck_sis_fields"])
    ]


async def test_the_sections_path_leads_to_the_course_where_it_is_now(api: Api) -> None:
    """app/controllers/application_controller.rb: the context of a section is its current course"""
    await cross_list(api)
    row = await api.enroll()
    assert row["sis_course_id"] == "C2"
    gone = await api.create("courses/sis_course_id:C1/enrollments", course_section_id="sis_section_id:S1")
    assert gone.status_code == 404
    there = await api.create("courses/sis_course_id:C2/enrollments", course_section_id="sis_section_id:S1")
    assert there.json()["id"] == row["id"]


async def test_a_second_cross_listing_keeps_the_first_course_as_the_origin(api: Api) -> None:
    """app/models/course_section.rb: nonxlist_course_id ||= course_id"""
    api.seed(courses=[{"sis_course_id": "C3"}])
    await cross_list(api)
    body = (await cross_list(api, "sis_course_id:C3")).json()
    assert (body["course_id"], body["nonxlist_course_id"]) == (course(api, "C3"), course(api, "C1"))
    again = (await cross_list(api, "sis_course_id:C3")).json()
    assert again == body, "into the course where it is: nothing happens"


async def test_taking_it_back_leads_home(api: Api) -> None:
    """app/models/course_section.rb#uncrosslist"""
    await cross_list(api)
    back = await api.call("DELETE", f"{S1}/crosslist")
    assert (back.json()["course_id"], back.json()["nonxlist_course_id"]) == (course(api, "C1"), None)
    refused = await api.call("DELETE", f"{S1}/crosslist")
    assert (refused.status_code, refused.json()) == (400, {"message": "section is not cross-listed"})


async def test_a_deleted_home_comes_back_unpublished(api: Api) -> None:
    """app/models/course_section.rb#uncrosslist"""
    await cross_list(api)
    await api.call("DELETE", "courses/sis_course_id:C1", params={"event": "delete"})
    assert (await api.call("DELETE", f"{S1}/crosslist")).status_code == 200
    assert (await api.get("courses/sis_course_id:C1")).json()["workflow_state"] == "unpublished"


async def test_both_make_the_sections_course_sticky(api: Api) -> None:
    """app/models/course_section.rb: are_sis_sticky :course_id"""
    section = api.canvas.world.sections_by_sis["S1"]
    await cross_list(api)
    assert section.stuck_sis_fields == {"course_id"}
    section.stuck_sis_fields = frozenset()
    await api.call("DELETE", f"{S1}/crosslist")
    assert section.stuck_sis_fields == {"course_id"}


async def test_without_overriding_stickiness_nothing_moves(api: Api) -> None:
    """app/controllers/sections_controller.rb#crosslist: any explicit no leaves the section where it is"""
    kept = await cross_list(api, params={"override_sis_stickiness": "false"})
    assert (kept.status_code, kept.json()["course_id"]) == (200, course(api, "C1"))
    await cross_list(api)
    kept = await api.call("DELETE", f"{S1}/crosslist", params={"override_sis_stickiness": "false"})
    assert kept.json()["course_id"] == course(api, "C2")


@pytest.mark.parametrize("target", ["sis_course_id:nowhere", "sis_course_id:gone", "999999"])
async def test_a_course_that_is_not_there_takes_no_section(api: Api, target: str) -> None:
    """app/controllers/sections_controller.rb#crosslist: all_courses.not_deleted"""
    api.seed(courses=[{"sis_course_id": "gone", "state": "deleted"}])
    assert (await cross_list(api, target)).status_code == 404


@pytest.mark.parametrize("taken", ["manage_sections_edit", "manage_courses_admin"])
async def test_it_needs_rights_over_the_section_and_its_new_course(api: Api, taken: str) -> None:
    """app/controllers/sections_controller.rb#crosslist"""
    api.forbid(taken)
    assert (await cross_list(api)).status_code == 403
    assert (await api.get(SECTION)).status_code == 200


async def test_a_deleted_section_cannot_be_cross_listed(api: Api) -> None:
    """app/controllers/sections_controller.rb#require_section"""
    api.seed(sections=[{"sis_section_id": "S1", "course": "C1", "state": "deleted"}])
    assert (await cross_list(api)).status_code == 404
