"""Users, sections, courses, terms, accounts, roles, and authentication."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.sandbox_canvas.conftest import Api

NOT_FOUND = {"errors": [{"message": "The specified resource does not exist."}]}
CHALLENGE = 'Bearer realm="canvas-lms"'


@pytest.mark.parametrize(
    "path",
    [
        "users/sis_user_id:nobody",
        "sections/sis_section_id:nowhere",
        "courses/sis_course_id:nowhere",
        "accounts/7",
        "accounts/self/terms/sis_term_id:never",
        "no/such/route",
    ],
)
async def test_what_does_not_exist_is_404_with_the_general_body(api: Api, path: str) -> None:
    """lib/api.rb#api_find; app/controllers/application_controller.rb#rescue_action_in_api"""
    answer = await api.get(path)
    assert (answer.status_code, answer.json()) == (404, NOT_FOUND)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("users/sis_user_id:U1", {"name": "Ada Lovelace", "sortable_name": "Lovelace, Ada", "sis_user_id": "U1"}),
        ("sections/sis_section_id:S1", {"sis_section_id": "S1", "sis_course_id": "C1", "nonxlist_course_id": None}),
        ("courses/sis_course_id:C1", {"sis_course_id": "C1", "workflow_state": "available"}),
        ("accounts/self", {"id": 1, "parent_account_id": None}),
        ("accounts/1/terms/default", {"name": "Default Term"}),
        ("users/self", {"name": "enrollstream service"}),
    ],
)
async def test_objects_are_shown_by_sis_id_or_word(api: Api, path: str, expected: dict[str, Any]) -> None:
    """lib/api.rb#api_find"""
    answer = await api.get(path)
    assert answer.status_code == 200
    assert expected.items() <= answer.json().items()


async def test_a_caller_asks_what_it_may_do(api: Api) -> None:
    """app/controllers/accounts_controller.rb#permissions"""
    api.forbid("manage_sis")
    answer = await api.get("accounts/self/permissions", **{"permissions[]": ["manage_sis", "read_sis", "fly"]})
    assert answer.json() == {"manage_sis": False, "read_sis": True, "fly": False}


async def test_who_has_no_role_in_the_account_may_not_even_ask(api: Api) -> None:
    """app/controllers/accounts_controller.rb#permissions; app/models/account.rb set_policy"""
    await api.control("POST", "tokens", json={"alias": "enrollstream", "permissions": []})
    assert (await api.get("accounts/self/permissions", **{"permissions[]": "manage_sis"})).status_code == 403


async def test_a_user_may_have_two_logins(api: Api) -> None:
    """lib/api.rb; app/models/pseudonym.rb"""
    api.seed(users=[{"sis_user_id": "U1b", "also": "U1"}])
    first, second = await api.enroll(user_id="sis_user_id:U1"), await api.enroll(user_id="sis_user_id:U1b")
    assert first["id"] == second["id"]


async def test_terms_are_listed_inside_an_object(api: Api) -> None:
    """app/controllers/terms_api_controller.rb#index"""
    body = {
        "enrollment_term": {"name": "Fall", "sis_term_id": "F26", "overrides": {"StudentEnrollment": {"start_at": "2026-09-01"}}}
    }
    made = (await api.call("POST", "accounts/self/terms", json=body)).json()
    assert made["overrides"]["StudentEnrollment"]["start_at"] == "2026-09-01T00:00:00Z"
    assert [term["name"] for term in (await api.get("accounts/self/terms")).json()["enrollment_terms"]] == [
        "Default Term",
        "Fall",
    ]


async def test_roles_can_be_listed_by_state(api: Api) -> None:
    """app/controllers/role_overrides_controller.rb#api_index"""
    api.seed(roles=[{"name": "Retired", "state": "inactive"}])
    active = {role["role"] for role in (await api.get("accounts/self/roles")).json()}
    assert {"StudentEnrollment", "Auditor"} <= active
    assert "Retired" not in active
    assert [role["role"] for role in (await api.get("accounts/self/roles", **{"state[]": "inactive"})).json()] == ["Retired"]


async def test_roles_are_shown_to_who_may_manage_permissions(api: Api) -> None:
    """app/controllers/role_overrides_controller.rb#api_index and #show"""
    api.forbid("manage_role_overrides")
    assert (await api.get("accounts/self/roles")).status_code == 403
    assert (await api.get("accounts/self/roles/3")).status_code == 403


# Authentication


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Authorization": ""}, {"status": "unauthenticated", "errors": [{"message": "user authorization required"}]}),
        ({"Authorization": "Bearer wrong"}, {"errors": [{"message": "Invalid access token."}]}),
    ],
)
async def test_without_a_good_token_nothing_is_answered(api: Api, headers: dict[str, str], body: dict[str, Any]) -> None:
    """lib/authentication_methods.rb#load_pseudonym_from_access_token"""
    for path in ("users/self", "no/such/route"):
        answer = await api.call("GET", path, headers=headers)
        assert (answer.status_code, answer.json()) == (401, body)
        assert answer.headers["www-authenticate"] == CHALLENGE


@pytest.mark.parametrize(("state", "text"), [("expired", "Expired access token."), ("revoked", "Revoked access token.")])
async def test_a_token_may_end(api: Api, state: Any, text: str) -> None:
    """lib/authentication_methods.rb"""
    token = api.canvas.tokens.by_alias("enrollstream")
    assert token
    token.state = state
    answer = await api.create()
    assert (answer.status_code, answer.json()) == (401, {"errors": [{"message": text}]})
    assert not api.canvas.world.enrollments


async def test_a_scoped_token_may_call_its_endpoints_only(api: Api) -> None:
    """app/controllers/application_controller.rb: AccessTokenScopeError; app/models/developer_key.rb"""
    await api.control("POST", "tokens", json={"alias": "enrollstream", "endpoints": ["users.get"]})
    assert (await api.get("users/self")).status_code == 200
    refused = await api.create()
    assert (refused.status_code, refused.json()) == (401, {"errors": [{"message": "Insufficient scopes on access token."}]})
    assert "www-authenticate" not in refused.headers, "the token itself is good"
    await api.control("POST", "tokens", json={"alias": "enrollstream", "endpoints": None})
    assert (await api.create()).status_code == 200


async def test_a_token_may_come_as_a_parameter(api: Api) -> None:
    """lib/authentication_methods.rb; app/models/access_token.rb"""
    answer = await api.call("GET", "users/self?access_token=secret", headers={"Authorization": ""})
    assert answer.status_code == 200
