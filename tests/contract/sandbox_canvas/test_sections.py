"""Sections over REST: made, changed, given other SIS ids, deleted, revived."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
import pytest

from services.sandbox.canvas.state import Section
from tests.contract.sandbox_canvas.conftest import SECTION, Api

S1 = "sections/sis_section_id:S1"
HERE = "courses/sis_course_id:C1/sections"
ORDER = "End date cannot be before start date"


def stored(api: Api, sis_id: str = "S1") -> Section:
    return api.canvas.world.sections_by_sis[sis_id]


async def make(api: Api, *, revive: bool = False, **wanted: Any) -> httpx.Response:
    return await api.call("POST", HERE, json={"course_section": wanted, "enable_sis_reactivation": revive})


async def change(api: Api, **wanted: Any) -> httpx.Response:
    return await api.call("PUT", S1, json={"course_section": wanted})


async def test_a_new_section_has_what_was_sent_and_keeps_it_from_the_sis(api: Api) -> None:
    """app/controllers/sections_controller.rb#create; lib/sticky_sis_fields.rb: before_save"""
    dates: dict[str, Any] = {"start_at": "2026-09-01T00:00:00Z", "end_at": "2026-12-01T00:00:00Z"}
    made = await make(
        api, name="Nine", sis_section_id="S9", integration_id="I9", restrict_enrollments_to_section_dates=True, **dates
    )
    expected = dates | {
        "name": "Nine",
        "sis_section_id": "S9",
        "integration_id": "I9",
        "restrict_enrollments_to_section_dates": True,
        "nonxlist_course_id": None,
        "sis_import_id": None,
    }
    assert made.status_code == 200
    assert expected.items() <= made.json().items()
    assert stored(api, "S9").stuck_sis_fields == {
        "name",
        "course_id",
        "start_at",
        "end_at",
        "restrict_enrollments_to_section_dates",
    }
    assert (await api.get("sections/sis_integration_id:I9")).json()["sis_section_id"] == "S9"


async def test_without_a_name_a_section_is_called_by_its_course_and_the_day(api: Api) -> None:
    """app/models/course_section.rb#infer_defaults"""
    api.canvas.clock.set(datetime(2026, 8, 24, tzinfo=UTC), frozen=True)
    assert (await make(api, sis_section_id="S9")).json()["name"] == "C1 2026-08-24"


@pytest.mark.parametrize("method", ["POST", "PUT"])
async def test_a_sis_id_that_is_taken_is_refused_also_by_a_deleted_section(api: Api, method: str) -> None:
    """app/models/course_section.rb#verify_unique_sis_source_id"""
    api.seed(sections=[{"sis_section_id": "S2", "course": "C1", "state": "deleted"}])
    refused = await api.call(method, HERE if method == "POST" else S1, json={"course_section": {"sis_section_id": "S2"}})
    assert refused.status_code == 400
    assert refused.json()["errors"]["sis_source_id"][0]["message"] == 'SIS ID "S2" is already in use'


async def test_without_manage_sis_a_create_drops_sis_ids_and_an_update_refuses_them(api: Api) -> None:
    """app/controllers/sections_controller.rb: the one is silent, the other is a 401 of its own"""
    api.forbid("manage_sis")
    assert (await make(api, name="Nine", sis_section_id="S9")).json()["sis_section_id"] is None
    refused = await change(api, sis_section_id="S9")
    assert (refused.status_code, refused.json()) == (
        401,
        {"message": "You must have manage_sis permission to update sis attributes"},
    )
    assert (await change(api, name="Other")).status_code == 200


async def test_a_changed_sis_id_is_found_and_the_old_one_is_not(api: Api) -> None:
    """app/controllers/sections_controller.rb#update"""
    row = await api.enroll()
    assert (await change(api, sis_section_id="S1-new")).json()["sis_section_id"] == "S1-new"
    assert (await api.create()).status_code == 404
    assert (await api.enroll("sections/sis_section_id:S1-new/enrollments"))["id"] == row["id"]
    cleared = await api.call("PUT", "sections/sis_section_id:S1-new", json={"course_section": {"sis_section_id": ""}})
    assert cleared.json()["sis_section_id"] is None
    assert (await api.get("sections/sis_section_id:S1-new")).status_code == 404


@pytest.mark.parametrize(
    ("wanted", "stuck"),
    [
        ({"name": "Other"}, {"name"}),
        ({"name": "S1"}, set()),
        ({"start_at": "2026-09-01T00:00:00Z"}, {"start_at"}),
        ({"restrict_enrollments_to_section_dates": True}, {"restrict_enrollments_to_section_dates"}),
        ({"sis_section_id": "S1-new", "integration_id": "I"}, set()),
    ],
)
async def test_what_changes_becomes_sticky(api: Api, wanted: dict[str, Any], stuck: set[str]) -> None:
    """app/models/course_section.rb: are_sis_sticky"""
    section = stored(api)
    await change(api, **wanted)
    assert section.stuck_sis_fields == stuck


async def test_with_stickiness_respected_name_and_dates_stay_whoever_set_them(api: Api) -> None:
    """app/controllers/sections_controller.rb#course_section_params; spec/apis/v1/sections_api_spec.rb: override_sis_stickiness"""
    wanted = {"name": "Other", "start_at": "2026-09-01T00:00:00Z", "restrict_enrollments_to_section_dates": True}
    shown = (await api.call("PUT", S1, json={"course_section": wanted, "override_sis_stickiness": "false"})).json()
    assert (shown["name"], shown["start_at"], shown["restrict_enrollments_to_section_dates"]) == ("S1", None, True)


async def test_dates_must_be_in_order(api: Api) -> None:
    """app/models/course_section.rb#validate_section_dates"""
    await change(api, start_at="2026-09-01T00:00:00Z")
    refused = await change(api, end_at="2026-08-01T00:00:00Z")
    assert (refused.status_code, refused.json()["errors"]["end_at"][0]["message"]) == (400, ORDER)
    assert stored(api).end_at is None
    assert (await make(api, start_at="2026-09-01", end_at="2026-08-01")).status_code == 400
    assert (await change(api, start_at="")).json()["start_at"] is None, "a blank date clears"


@pytest.mark.parametrize(("state", "status"), [("active", 400), ("completed", 400), ("rejected", 200), ("deleted", 200)])
async def test_only_a_section_without_people_can_be_deleted(api: Api, state: str, status: int) -> None:
    """app/models/course_section.rb#deletable?"""
    row = api.seed(enrollments=[{"section": "S1", "user": "U1", "state": state}], test_students=[{"course": "C1"}])
    answer = await api.call("DELETE", S1)
    assert answer.status_code == status
    if status == 400:
        assert answer.json() == {"message": "You can't delete a section that has enrollments"}
        return
    assert {found.state for found in stored(api).enrollments} == {"deleted"}, "whoever was left goes with it"
    assert (await api.get(f"accounts/self/enrollments/{row['enrollments'][0]}")).json()["enrollment_state"] == "deleted"


async def test_a_deleted_section_takes_nobody_until_it_is_revived_in_its_course(api: Api) -> None:
    """app/controllers/sections_controller.rb#create: enable_sis_reactivation"""
    await api.call("DELETE", S1)
    assert (await api.create()).status_code == 404
    elsewhere = await api.call(
        "POST",
        "courses/sis_course_id:C2/sections",
        json={"course_section": {"sis_section_id": "S1"}, "enable_sis_reactivation": True},
    )
    assert elsewhere.status_code == 400
    assert (await make(api, sis_section_id="S1", name="Again", revive=True)).json()["name"] == "S1", "it stays as it was"
    assert (await api.create()).status_code == 200


async def test_a_list_shows_live_sections_by_name_and_page(api: Api) -> None:
    """app/controllers/sections_controller.rb#index"""
    await make(api, name="alpha", sis_section_id="S9")
    await api.call("DELETE", "sections/sis_section_id:S2")
    answer = await api.get(HERE, per_page=1)
    assert [row["name"] for row in answer.json()] == ["alpha"]
    assert 'rel="last"' in answer.headers["link"], "numbered pages, unlike rosters"
    assert [row["name"] for row in (await api.get(HERE, per_page=1, page=2)).json()] == ["S1"]
    assert (await api.get(HERE, page=9)).json() == [], "beyond the end a page is empty"


async def test_changes_need_the_right_and_reads_do_not(api: Api) -> None:
    """app/models/course_section.rb set_policy"""
    api.forbid("manage_sections_add", "manage_sections_edit", "manage_sections_delete")
    refused = [await make(api, name="X"), await change(api, name="X"), await api.call("DELETE", S1)]
    assert [answer.status_code for answer in refused] == [403, 403, 403]
    assert (await api.get(S1)).status_code == 200
    assert (await api.get(SECTION)).status_code == 200
