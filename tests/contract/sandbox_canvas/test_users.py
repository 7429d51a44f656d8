"""Users over REST: made, renamed, suspended, revived, removed."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from services.sandbox.canvas.state import User
from tests.contract.sandbox_canvas.conftest import SECTION, Api

USERS = "accounts/self/users"


def stored(api: Api, sis_user_id: str = "U1") -> User:
    return api.canvas.world.logins_by_sis[sis_user_id].user


async def make(api: Api, **more: Any) -> httpx.Response:
    body: dict[str, Any] = {"user": {"name": "Sofja Kowalewskaja"}, "pseudonym": {"unique_id": "sofja@x", "sis_user_id": "U9"}}
    return await api.call("POST", USERS, json=body | more)


async def change(api: Api, user: str = "sis_user_id:U1", /, **wanted: Any) -> httpx.Response:
    return await api.call("PUT", f"users/{user}", json={"user": wanted})


async def test_a_new_user_has_names_and_one_login(api: Api) -> None:
    """app/controllers/users_controller.rb#create_user"""
    made = await make(api, user={"name": "Sofja Kowalewskaja", "short_name": "Sofja", "skip_registration": True})
    assert made.status_code == 200
    shown = {name: made.json()[name] for name in ("name", "short_name", "sortable_name", "sis_user_id", "login_id")}
    assert shown == {
        "name": "Sofja Kowalewskaja",
        "short_name": "Sofja",
        "sortable_name": "Kowalewskaja, Sofja",
        "sis_user_id": "U9",
        "login_id": "sofja@x",
    }
    assert stored(api, "U9").state == "registered"


async def test_what_a_user_is_made_with_is_kept_from_the_sis(api: Api) -> None:
    """lib/sticky_sis_fields.rb: before_save; spec/controllers/pseudonyms_controller_spec.rb: override_sis_stickiness"""
    await make(api)
    made = stored(api, "U9")
    assert made.stuck_sis_fields == {"name", "short_name", "sortable_name"}
    assert made.pseudonyms[0].stuck_sis_fields == {"unique_id", "workflow_state"}
    spared = {"user": {"name": "Sonja"}, "override_sis_stickiness": "false"}
    assert (await api.call("PUT", "users/sis_user_id:U9", json=spared)).json()["name"] == "Sofja Kowalewskaja"


async def test_without_a_name_the_login_is_the_name(api: Api) -> None:
    """app/controllers/users_controller.rb#create_user"""
    assert (await make(api, user={})).json()["name"] == "sofja@x"
    assert stored(api, "U9").state == "pre_registered"


@pytest.mark.parametrize(
    ("pseudonym", "attribute", "message"),
    [
        ({"unique_id": "u1@example.invalid"}, "unique_id", "ID already in use for this account and authentication provider"),
        ({"unique_id": "x@y", "sis_user_id": "U1"}, "sis_user_id", 'SIS ID "U1" is already in use'),
    ],
)
async def test_what_is_taken_is_named_below_the_pseudonym(
    api: Api, pseudonym: dict[str, str], attribute: str, message: str
) -> None:
    """app/controllers/users_controller.rb#create_user: the errors of each object"""
    refused = await make(api, pseudonym=pseudonym)
    problem = {"attribute": attribute, "type": "taken", "message": message}
    assert (refused.status_code, refused.json()) == (
        400,
        {"errors": {"user": {}, "pseudonym": {attribute: [problem]}, "observee": {}, "pairing_code": {}, "recaptcha": None}},
    )


async def test_without_manage_sis_the_sis_ids_are_dropped_in_silence(api: Api) -> None:
    """app/controllers/users_controller.rb#create_user"""
    api.forbid("manage_sis")
    made = await make(api, pseudonym={"unique_id": "x@y", "sis_user_id": "U1", "integration_id": "I"})
    assert (made.status_code, made.json()["sis_user_id"], made.json()["integration_id"]) == (200, None, None)


async def test_who_may_not_manage_logins_makes_no_users(api: Api) -> None:
    """app/controllers/users_controller.rb#create"""
    api.forbid("manage_user_logins")
    assert (await make(api)).status_code == 403


async def test_a_deleted_login_holds_its_sis_id_until_it_is_revived(api: Api) -> None:
    """app/controllers/users_controller.rb#create_user: enable_sis_reactivation"""
    row = await api.enroll()
    await api.call("DELETE", f"{USERS}/sis_user_id:U1")
    body = {"unique_id": "ada@x", "sis_user_id": "U1"}
    assert (await make(api, pseudonym=body)).status_code == 400
    revived = await make(api, pseudonym=body, enable_sis_reactivation="true")
    assert (revived.json()["id"], revived.json()["name"]) == (row["user_id"], "Sofja Kowalewskaja")
    assert (await api.get("users/sis_login_id:ada@x")).json()["id"] == row["user_id"]
    assert stored(api).stuck_sis_fields == {"name"}
    assert api.stored(row).state == "deleted", "the enrollments do not come back"


async def test_changed_names_become_sticky_and_derive_from_each_other(api: Api) -> None:
    """app/models/user.rb: are_sis_sticky, assign_sortable_name"""
    changed = await change(api, name="Ada King")
    assert (changed.json()["sortable_name"], changed.json()["short_name"]) == ("King, Ada", "Ada Lovelace")
    assert stored(api).stuck_sis_fields == {"name", "sortable_name"}
    await change(api, sortable_name="Countess")
    assert (await change(api, name="Ada Byron")).json()["sortable_name"] == "Countess", "one that was set by hand stays"


async def test_the_same_name_again_makes_nothing_sticky(api: Api) -> None:
    """lib/sticky_sis_fields.rb: what has changed"""
    await change(api, name="Ada Lovelace")
    assert stored(api).stuck_sis_fields == frozenset()


async def test_what_is_sticky_may_be_spared(api: Api) -> None:
    """app/controllers/users_controller.rb#update: override_sis_stickiness"""
    await change(api, name="Ada King")
    spared = {"user": {"name": "Ada Byron", "short_name": "Ada"}, "override_sis_stickiness": "false"}
    shown = (await api.call("PUT", "users/sis_user_id:U1", json=spared)).json()
    assert (shown["name"], shown["short_name"]) == ("Ada King", "Ada")


async def test_a_suspension_reaches_every_login_and_no_enrollment(api: Api) -> None:
    """app/controllers/users_controller.rb#update: event"""
    api.seed(users=[{"sis_user_id": "U1b", "also": "U1"}])
    row = await api.enroll()
    await change(api, event="suspend")
    logins = (await api.get("users/sis_user_id:U1/logins")).json()
    assert [login["workflow_state"] for login in logins] == ["suspended", "suspended"]
    assert (await api.get(SECTION)).json()[0]["id"] == row["id"]
    await change(api, event="unsuspend")
    assert {login.state for login in stored(api).pseudonyms} == {"active"}


async def test_nobody_suspends_themselves(api: Api) -> None:
    """app/controllers/users_controller.rb#update"""
    await change(api, "self", event="suspend")
    assert (await api.get("users/self/logins")).json()[0]["workflow_state"] == "active"


async def test_a_suspension_spares_logins_that_the_caller_may_not_delete(api: Api) -> None:
    """app/models/pseudonym.rb set_policy: a SIS login takes manage_sis"""
    api.forbid("manage_sis")
    assert (await change(api, event="suspend")).status_code == 200
    assert stored(api).pseudonyms[0].state == "active"


@pytest.mark.parametrize(("taken", "wanted"), [("manage_user_logins", {"name": "X"}), ("read_reports", {"nonsense": "x"})])
async def test_unknown_fields_are_a_lack_of_rights(api: Api, taken: str, wanted: dict[str, str]) -> None:
    """app/controllers/users_controller.rb#update"""
    api.forbid(taken)
    assert (await change(api, **wanted)).status_code == 403


async def test_an_address_is_a_channel_of_a_new_user_and_shown_of_one_user_only(api: Api) -> None:
    """app/controllers/users_controller.rb#create_user, #api_show, #update"""
    body = {
        "user": {"name": "Maria Winkelmann"},
        "pseudonym": {"unique_id": "maria", "sis_user_id": "U9"},
        "communication_channel": {"type": "email", "address": "maria@example.edu", "skip_confirmation": True},
    }
    made = await api.call("POST", USERS, json=body)
    assert (made.status_code, "email" in made.json()) == (200, False)
    assert (await api.get("users/sis_user_id:U9")).json()["email"] == "maria@example.edu"
    changed = await api.call("PUT", "users/sis_user_id:U9", json={"user": {"email": "m.kirch@example.edu"}})
    assert changed.json()["email"] == "m.kirch@example.edu"
    assert (await api.get("users/sis_user_id:U9/profile")).json()["primary_email"] == "m.kirch@example.edu"


@pytest.mark.parametrize(
    ("taken", "path", "hidden"),
    [
        ("read_email_addresses", "users/sis_user_id:U1", "email"),
        ("read_email_addresses", "users/sis_user_id:U1/profile", "primary_email"),
        ("view_user_logins", "users/sis_user_id:U1", "login_id"),
    ],
)
async def test_addresses_and_logins_are_shown_to_who_may_see_them(api: Api, taken: str, path: str, hidden: str) -> None:
    """lib/api/v1/user.rb#user_json; lib/api/v1/user_profile.rb"""
    assert hidden in (await api.get(path)).json()
    api.forbid(taken)
    assert hidden not in (await api.get(path)).json()


async def test_an_address_that_is_changed_is_answered_to_who_may_see_it(api: Api) -> None:
    """app/controllers/users_controller.rb#update: includes email"""
    api.forbid("read_email_addresses")
    assert "email" not in (await change(api, email="ada@example.edu")).json()
    assert stored(api).email == "ada@example.edu"


async def mails(api: Api) -> list[str]:
    return [mail["kind"] for mail in (await api.control("GET", "mails"))["mails"]]


@pytest.mark.parametrize(
    ("channel", "expected"),
    [
        (None, [("sofja@example.edu", False)]),
        ({"address": ""}, []),
        ({"skip_confirmation": True}, [("sofja@example.edu", True)]),
        ({"address": "s@example.edu", "skip_confirmation": True}, [("s@example.edu", True)]),
        ({"address": "no address", "skip_confirmation": True}, []),
    ],
)
async def test_a_login_that_is_an_address_is_one_unless_another_is_sent(
    api: Api, channel: dict[str, Any] | None, expected: list[tuple[str, bool]]
) -> None:
    """app/controllers/users_controller.rb#create_user: cc_addr"""
    more = {} if channel is None else {"communication_channel": channel}
    await make(api, pseudonym={"unique_id": "sofja@example.edu", "sis_user_id": "U9"}, **more)
    assert stored(api, "U9").channels == expected


@pytest.mark.parametrize(
    ("asked", "shared", "may", "kinds"),
    [
        (False, False, True, []),
        (True, False, True, []),
        (False, True, True, []),
        (False, False, False, []),
        (False, True, False, ["merge_email_communication_channel"]),
        (True, True, False, ["pseudonym_registration_done"]),
    ],
)
async def test_who_may_not_manage_students_cannot_keep_canvas_from_writing(
    api: Api, asked: bool, shared: bool, may: bool, kinds: list[str]
) -> None:
    """app/controllers/users_controller.rb#create_user: skip_confirmation; app/models/users/creation_notify_policy.rb"""
    if not may:
        api.forbid("manage_students")
    if shared:
        api.seed(users=[{"sis_user_id": "U1", "email": "Maria@example.edu"}])
    body: dict[str, Any] = {
        "user": {"name": "Maria Winkelmann", "skip_registration": True},
        "pseudonym": {"unique_id": "maria", "send_confirmation": asked},
        "communication_channel": {"address": "maria@example.edu", "skip_confirmation": True},
    }
    await api.call("POST", USERS, json=body)
    assert await mails(api) == kinds


async def test_a_changed_address_comes_first_and_is_not_confirmed(api: Api) -> None:
    """app/models/user.rb#email="""
    api.seed(users=[{"sis_user_id": "U1", "email": "ada@example.edu"}])
    await change(api, email="countess@example.edu")
    assert stored(api).channels == [("countess@example.edu", False), ("ada@example.edu", True)]
    await change(api, email="Ada@example.edu")
    assert stored(api).channels == [("Ada@example.edu", True), ("countess@example.edu", False)]
    assert await mails(api) == []


async def test_removing_a_user_takes_every_enrollment_those_made_by_hand_too(api: Api) -> None:
    """app/models/user.rb#remove_from_root_account"""
    api.seed(enrollments=[{"section": "S1", "user": "U1", "sis_import_id": 7}, {"section": "S3", "user": "U1"}])
    gone = await api.call("DELETE", f"{USERS}/sis_user_id:U1")
    assert (gone.status_code, gone.json()["name"]) == (200, "Ada Lovelace")
    assert {row.state for row in stored(api).enrollments} == {"deleted"}
    assert (await api.get("users/sis_user_id:U1")).status_code == 404
    assert (await api.create()).status_code == 404


@pytest.mark.parametrize("taken", ["manage_user_logins", "manage_sis"])
async def test_removing_a_user_of_the_sis_takes_both_rights(api: Api, taken: str) -> None:
    """app/models/pseudonym.rb set_policy"""
    api.forbid(taken)
    assert (await api.call("DELETE", f"{USERS}/sis_user_id:U1")).status_code == 403


async def test_who_may_not_see_people_finds_none(api: Api) -> None:
    """app/controllers/users_controller.rb#api_show; app/models/user.rb set_policy: api_show_user"""
    api.forbid("manage_user_logins")
    assert (await api.get("users/sis_user_id:U1")).status_code == 200
    assert (await api.get("users/sis_user_id:U1/logins")).status_code == 403
    api.forbid("read_roster")
    assert (await api.get("users/sis_user_id:U1")).status_code == 404
    assert (await api.get("users/self")).status_code == 200


async def test_a_user_is_found_by_uuid(api: Api) -> None:
    """lib/api.rb#api_find"""
    uuid = (await api.get("users/sis_user_id:U1", **{"include[]": "uuid"})).json()["uuid"]
    assert (await api.get(f"users/uuid:{uuid}")).json()["name"] == "Ada Lovelace"
    assert (await api.get(f"users/uuid:{'0' * 40}")).status_code == 404
