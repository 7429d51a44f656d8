"""Logins: several per user, and the SIS ids are theirs."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.contract.sandbox_canvas.conftest import SECTION, Api

TAKEN = "ID already in use for this account and authentication provider"


def user_id(api: Api, sis_user_id: str) -> int:
    return api.canvas.world.logins_by_sis[sis_user_id].user.id


async def add(api: Api, user: str = "U1", /, **login: Any) -> httpx.Response:
    return await api.call("POST", "accounts/self/logins", json={"user": {"id": f"sis_user_id:{user}"}, "login": login})


async def change(api: Api, sis_user_id: str, /, **login: Any) -> httpx.Response:
    identity = api.canvas.world.logins_by_sis[sis_user_id].id
    return await api.call("PUT", f"accounts/self/logins/{identity}", json={"login": login})


async def remove(api: Api, user: str, sis_user_id: str) -> httpx.Response:
    identity = api.canvas.world.logins_by_sis[sis_user_id].id
    return await api.call("DELETE", f"users/sis_user_id:{user}/logins/{identity}")


async def test_a_user_answers_to_every_login(api: Api) -> None:
    """app/controllers/pseudonyms_controller.rb#create"""
    made = await add(api, unique_id="ada2@x", sis_user_id="U1b")
    assert made.status_code == 200
    shown = {name: made.json()[name] for name in ("unique_id", "sis_user_id", "workflow_state", "user_id", "account_id")}
    assert shown == {
        "unique_id": "ada2@x",
        "sis_user_id": "U1b",
        "workflow_state": "active",
        "user_id": user_id(api, "U1"),
        "account_id": 1,
    }
    for name in ("sis_user_id:U1", "sis_user_id:U1b", "sis_login_id:ADA2@X"):
        assert (await api.get(f"users/{name}")).json()["id"] == user_id(api, "U1")
    listed = (await api.get("users/sis_user_id:U1/logins")).json()
    assert [login["sis_user_id"] for login in listed] == ["U1", "U1b"]


@pytest.mark.parametrize(
    ("login", "attribute", "kind", "message"),
    [
        (
            {"unique_id": "u2@EXAMPLE.invalid"},
            "unique_id",
            "taken",
            TAKEN,
        ),
        ({"unique_id": "new@x", "sis_user_id": "U2"}, "sis_user_id", "taken", 'SIS ID "U2" is already in use'),
        ({"sis_user_id": "new"}, "unique_id", "too_short", "too_short"),
    ],
)
async def test_what_is_taken_is_refused(api: Api, login: dict[str, Any], attribute: str, kind: str, message: str) -> None:
    """app/models/pseudonym.rb: verify_unique_sis_user_id and validate_unique_id"""
    refused = await add(api, **login)
    assert refused.status_code == 400
    assert refused.json()["errors"] == {attribute: [{"attribute": attribute, "type": kind, "message": message}]}


async def test_a_deleted_login_still_holds_its_sis_id_but_not_its_unique_id(api: Api) -> None:
    """app/models/pseudonym.rb: the SIS id is looked for in every state, the unique id among those that live"""
    api.seed(users=[{"sis_user_id": "U2", "login_state": "deleted"}])
    assert (await add(api, unique_id="new@x", sis_user_id="U2")).status_code == 400
    assert (await add(api, unique_id="U2@example.invalid")).status_code == 200


async def test_a_changed_sis_id_is_found_and_the_old_one_is_not(api: Api) -> None:
    """app/controllers/pseudonyms_controller.rb#update"""
    row = await api.enroll()
    changed = await change(api, "U1", sis_user_id="U1-new")
    assert (changed.status_code, changed.json()["sis_user_id"]) == (200, "U1-new")
    assert (await api.get("users/sis_user_id:U1")).status_code == 404
    assert (await api.create()).status_code == 404
    assert (await api.enroll(user_id="sis_user_id:U1-new"))["id"] == row["id"]
    assert (await change(api, "U1-new", sis_user_id="")).json()["sis_user_id"] is None
    assert (await api.get("users/sis_user_id:U1-new")).status_code == 404
    assert (await api.get(SECTION)).json()[0]["sis_user_id"] is None


async def test_a_changed_unique_id_is_found_and_becomes_sticky(api: Api) -> None:
    """app/models/pseudonym.rb: are_sis_sticky :unique_id, :workflow_state"""
    await change(api, "U1", unique_id="lovelace@x")
    assert (await api.get("users/sis_login_id:lovelace@x")).status_code == 200
    assert (await api.get("users/sis_login_id:U1@example.invalid")).status_code == 404
    assert api.canvas.world.logins_by_sis["U1"].stuck_sis_fields == {"unique_id"}
    await api.call(
        "PUT",
        f"accounts/self/logins/{api.canvas.world.logins_by_sis['U1'].id}",
        json={"login": {"unique_id": "other@x"}, "override_sis_stickiness": False},
    )
    assert (await api.get("users/sis_login_id:lovelace@x")).status_code == 200, "what is sticky stays when asked to"


async def test_a_suspended_login_still_finds_its_user(api: Api) -> None:
    """lib/api.rb and app/models/pseudonym.rb: not deleted is enough"""
    assert (await change(api, "U1", workflow_state="suspended")).json()["workflow_state"] == "suspended"
    assert (await api.enroll())["enrollment_state"] == "active"
    assert api.canvas.world.logins_by_sis["U1"].stuck_sis_fields == {"workflow_state"}
    refused = await change(api, "U1", workflow_state="deleted")
    assert refused.status_code == 400
    assert refused.json()["errors"]["workflow_state"][0]["message"] == "invalid workflow_state"


async def test_the_last_login_cannot_be_deleted(api: Api) -> None:
    """app/controllers/pseudonyms_controller.rb#destroy"""
    refused = await remove(api, "U1", "U1")
    assert refused.status_code == 400
    assert refused.json()["errors"]["base"][0]["message"] == "Users must have at least one login"


async def test_a_deleted_login_finds_nobody_and_leaves_the_enrollments(api: Api) -> None:
    """app/models/pseudonym.rb#destroy"""
    api.seed(users=[{"sis_user_id": "U1b", "also": "U1"}], enrollments=[{"section": "S1", "user": "U1", "sis_import_id": 7}])
    assert (await remove(api, "U1", "U1")).status_code == 200
    assert (await api.get("users/sis_user_id:U1")).status_code == 404
    assert (await api.create()).status_code == 404
    rows = (await api.get(SECTION)).json()
    assert [(row["enrollment_state"], row["sis_import_id"], row["sis_user_id"]) for row in rows] == [("active", 7, "U1")]
    assert [login["sis_user_id"] for login in (await api.get("users/sis_user_id:U1b/logins")).json()] == ["U1b"]


async def test_logins_belong_to_the_root_account(api: Api) -> None:
    """app/controllers/pseudonyms_controller.rb: context_is_root_account?"""
    api.seed(accounts=[{"sis_account_id": "LAW"}])
    here = "accounts/sis_account_id:LAW/logins"
    for refused in (await api.get(here), await api.call("POST", here, json={"login": {"unique_id": "x@y"}})):
        assert (refused.status_code, refused.json()) == (400, {"message": "Action must be called on a root account."})


async def test_another_persons_login_is_not_there(api: Api) -> None:
    """app/controllers/pseudonyms_controller.rb#destroy"""
    assert (await remove(api, "U2", "U1")).status_code == 404
    assert (await api.call("PUT", "accounts/self/logins/1", json={"login": {"unique_id": "x"}})).status_code == 404


@pytest.mark.parametrize(
    ("taken", "login", "status"),
    [
        ("manage_user_logins", {"unique_id": "x@y"}, 403),
        ("manage_sis", {"unique_id": "x@y"}, 200),
        ("manage_sis", {"sis_user_id": "X"}, 403),
        ("manage_sis", {"workflow_state": "suspended"}, 403),
        ("read_reports", {"nonsense": "x"}, 400),
    ],
)
async def test_rights_go_by_what_is_changed(api: Api, taken: str, login: dict[str, str], status: int) -> None:
    """app/controllers/pseudonyms_controller.rb#update_pseudonym_from_params, app/models/pseudonym.rb set_policy"""
    api.forbid(taken)
    assert (await change(api, "U1", **login)).status_code == status
