"""Terms over REST."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.contract.sandbox_canvas.conftest import Api

TERMS = "accounts/self/terms"
F26 = f"{TERMS}/sis_term_id:F26"


async def make(api: Api, path: str = TERMS, **wanted: Any) -> httpx.Response:
    return await api.call("POST", path, json={"enrollment_term": {"name": "Fall", "sis_term_id": "F26"} | wanted})


async def change(api: Api, **wanted: Any) -> httpx.Response:
    return await api.call("PUT", F26, json={"enrollment_term": wanted})


async def test_a_term_has_dates_of_its_own_and_by_role_type(api: Api) -> None:
    """app/controllers/terms_controller.rb#save_and_render_response; lib/sticky_sis_fields.rb: before_save"""
    overrides = {"StudentEnrollment": {"start_at": "2026-09-08T00:00:00Z", "end_at": None}}
    made = (await make(api, start_at="2026-09-01T00:00:00Z", overrides=overrides)).json()
    assert (made["start_at"], made["end_at"], made["overrides"], made["sis_term_id"]) == (
        "2026-09-01T00:00:00Z",
        None,
        overrides,
        "F26",
    )
    assert api.canvas.world.terms_by_sis["F26"].stuck_sis_fields == {"name", "start_at"}


async def test_what_changes_becomes_sticky(api: Api) -> None:
    """app/models/enrollment_term.rb: are_sis_sticky"""
    api.seed(terms=[{"sis_term_id": "F26", "name": "Fall"}])
    term = api.canvas.world.terms_by_sis["F26"]
    await change(api, name="Fall", end_at="2026-12-18T00:00:00Z")
    assert term.stuck_sis_fields == {"end_at"}
    body = {"enrollment_term": {"name": "Autumn", "end_at": "2027-01-01"}, "override_sis_stickiness": "0"}
    shown = (await api.call("PUT", F26, json=body)).json()
    assert (shown["name"], shown["end_at"]) == ("Autumn", "2026-12-18T00:00:00Z")


async def test_a_changed_sis_id_is_found_and_the_old_one_is_not(api: Api) -> None:
    """app/controllers/terms_controller.rb#handle_sis_id_param"""
    await make(api)
    assert (await change(api, sis_term_id="F26-new")).json()["sis_term_id"] == "F26-new"
    assert (await api.get(F26)).status_code == 404
    assert (await api.get(f"{TERMS}/sis_term_id:F26-new")).status_code == 200
    again = await make(api, sis_term_id="F26-new")
    assert again.status_code == 400
    assert again.json()["errors"]["sis_source_id"][0]["message"] == 'SIS ID "F26-new" is already in use'


@pytest.mark.parametrize(
    ("wanted", "body"),
    [
        ({"overrides": {"ObserverEnrollment": {}}}, {"message": "Invalid enrollment type in overrides"}),
        ({"start_at": "2026-09-01", "end_at": "2026-08-01"}, None),
        ({"overrides": {"StudentEnrollment": {"start_at": "2026-09-01", "end_at": "2026-08-01"}}}, None),
    ],
)
async def test_what_makes_no_sense_is_refused_and_makes_no_term(
    api: Api, wanted: dict[str, Any], body: dict[str, str] | None
) -> None:
    """app/controllers/terms_controller.rb#validate_dates"""
    refused = await make(api, **wanted)
    assert refused.status_code == 400
    if body:
        assert refused.json() == body
    else:
        assert refused.json()["errors"]["base"][0]["message"] == "End dates cannot be before start dates"
    assert (await api.get(F26)).status_code == 404


async def test_a_term_with_courses_and_the_default_term_stay(api: Api) -> None:
    """app/models/enrollment_term.rb#check_if_deletable"""
    await make(api)
    api.seed(courses=[{"sis_course_id": "C1", "term": "F26"}])
    refused = await api.call("DELETE", F26)
    assert (refused.status_code, refused.json()["errors"]["workflow_state"][0]["message"]) == (
        400,
        "Cannot delete a term with active courses",
    )
    default = await api.call("DELETE", f"{TERMS}/default")
    assert default.json()["errors"]["workflow_state"][0]["message"] == "Cannot delete the default term"
    api.seed(courses=[{"sis_course_id": "C1", "state": "deleted"}])
    assert (await api.call("DELETE", F26)).json()["workflow_state"] == "deleted"


async def test_a_deleted_term_is_shown_as_such_and_not_changed(api: Api) -> None:
    """app/controllers/terms_api_controller.rb#index and #show; terms_controller.rb#update: enrollment_terms.active"""
    await make(api)
    await api.call("DELETE", F26)
    shown = await api.get(F26)
    assert (shown.status_code, shown.json()["workflow_state"]) == (200, "deleted")
    assert (await change(api, name="X")).status_code == 404
    assert (await make(api)).status_code == 400, "its SIS id stays taken"

    async def listed(**state: str) -> list[str]:
        return [term["name"] for term in (await api.get(TERMS, **state)).json()["enrollment_terms"]]

    assert await listed() == ["Default Term"]
    assert await listed(**{"workflow_state[]": "deleted"}) == ["Fall"]
    assert await listed(**{"workflow_state[]": "all"}) == ["Default Term", "Fall"]


async def test_terms_belong_to_the_root_account_and_need_the_right(api: Api) -> None:
    """app/controllers/terms_controller.rb: require_root_account_management; terms_api_controller.rb: require_root_account"""
    api.seed(accounts=[{"sis_account_id": "LAW"}])
    assert (await make(api, "accounts/sis_account_id:LAW/terms")).status_code == 404
    refused = await api.get("accounts/sis_account_id:LAW/terms")
    assert (refused.status_code, refused.json()) == (400, {"message": "Terms only belong to root_accounts."})
    api.forbid("manage_account_settings")
    assert (await make(api)).status_code == 403


async def test_without_manage_sis_a_sis_id_is_ignored_in_silence(api: Api) -> None:
    """app/controllers/terms_controller.rb#handle_sis_id_param"""
    await make(api)
    api.forbid("manage_sis")
    assert (await change(api, sis_term_id="X")).json()["sis_term_id"] == "F26"
    assert (await make(api, sis_term_id="F27")).json()["sis_term_id"] is None
