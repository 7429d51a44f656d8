"""What well-known client libraries send, kept as plain HTTP: canvasapi (forms) and UW's REST clients (JSON, quoted colons)."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from tests.contract.sandbox_canvas.conftest import Api

QUOTED = (
    "users/sis_user_id%3AU1",
    "courses/sis_course_id%3AC1?include[]=term",
    "sections/sis_section_id%3AS1",
    "users/sis_user_id:U1.json",
)
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


async def form(api: Api, method: str, path: str, *pairs: tuple[str, str]) -> httpx.Response:
    """As requests encodes a list of pairs, the body of a DELETE too."""
    return await api.call(method, path, content=urlencode(pairs), headers=FORM)


async def test_canvasapi_enrolls_by_numbers_in_a_form(api: Api) -> None:
    """canvasapi: Course.enroll_user"""
    world = api.canvas.world
    course, section, user = world.courses_by_sis["C1"], world.sections_by_sis["S2"], world.logins_by_sis["U1"].user
    answer = await form(
        api,
        "POST",
        f"courses/{course.id}/enrollments",
        ("enrollment[user_id]", str(user.id)),
        ("enrollment[type]", "StudentEnrollment"),
        ("enrollment[enrollment_state]", "active"),
        ("enrollment[course_section_id]", str(section.id)),
        ("enrollment[notify]", "False"),
    )
    assert (answer.status_code, answer.json()["sis_section_id"]) == (200, "S2")
    assert api.canvas.violations == [], "False is a no"


async def test_canvasapi_removes_with_the_task_in_the_body_of_a_delete(api: Api) -> None:
    """canvasapi: Enrollment.deactivate"""
    row = await api.enroll()
    answer = await form(api, "DELETE", f"courses/{row['course_id']}/enrollments/{row['id']}", ("task", "inactivate"))
    assert answer.json()["enrollment_state"] == "inactive"


@pytest.mark.parametrize("count", [1, 2])
async def test_canvasapi_sends_lists_as_repeated_brackets_and_follows_links(api: Api, count: int) -> None:
    """canvasapi: PaginatedList"""
    for number in range(1, count + 1):
        await api.enroll(user_id=f"sis_user_id:U{number}")
    path = "courses/sis_course_id:C1/enrollments?" + urlencode(
        [("state[]", "active"), ("state[]", "completed"), ("type[]", "StudentEnrollment"), ("per_page", "1")]
    )
    rows, pages = await api.walk(path)
    assert (len(rows), pages) == (count, count)


@pytest.mark.parametrize(
    "path",
    [
        "users/sis_user_id%3AU1",
        "courses/sis_course_id%3AC1?include[]=term",
        "sections/sis_section_id%3AS1",
        "users/sis_user_id:U1.json",
    ],
)
async def test_a_quoted_colon_and_a_format_are_understood(api: Api, path: str) -> None:
    """uw-restclients-canvas: quote() of the whole SIS form"""
    assert (await api.call("GET", path)).status_code == 200


async def test_a_course_has_the_fields_that_models_insist_on(api: Api) -> None:
    """uw-restclients-canvas: CanvasCourse reads them without a default (lib/api/v1/course_json.rb)"""
    shown = (await api.get("courses/sis_course_id:C1", **{"include[]": "term"})).json()
    assert (shown["is_public"], shown["is_public_to_auth_users"], shown["public_syllabus"]) == (False, False, False)
    assert shown["calendar"]["ics"].startswith("http://canvas.test/feeds/calendars/course_")
    assert shown["term"]["name"] == "Default Term"


async def test_published_courses_of_an_account(api: Api) -> None:
    """uw-restclients-canvas: Courses.get_published_courses_in_account; canvasapi: Account.get_courses;
    app/controllers/accounts_controller.rb#courses_api: what is concluded counts as unpublished"""
    over = {"sis_course_id": "C3", "state": "completed"}
    api.seed(courses=[{"sis_course_id": "C2", "state": "claimed"}, over], accounts=[{"sis_account_id": "LAW"}])

    async def found(account: str = "self", **filters: str) -> list[str]:
        return [course["sis_course_id"] for course in (await api.get(f"accounts/{account}/courses", **filters)).json()]

    assert await found(published="true") == ["C1"]
    assert await found(published="false") == ["C2", "C3"]
    assert await found(**{"state[]": "claimed"}) == ["C2"]
    assert await found(search_term="c1") == ["C1"]
    assert await found(enrollment_term_id="default") == ["C1", "C2", "C3"]
    assert await found("sis_account_id:LAW") == []


async def test_the_logins_and_the_profile_of_a_user(api: Api) -> None:
    """canvasapi: Account.get_user_logins, User.get_profile"""
    user = api.canvas.world.logins_by_sis["U1"].user.id
    assert [login["sis_user_id"] for login in (await api.get("accounts/self/logins", user_id=user)).json()] == ["U1"]
    profile = (await api.get("users/sis_user_id:U1/profile")).json()
    assert (profile["id"], profile["sis_user_id"], profile["name"]) == (user, "U1", "Ada Lovelace")


async def test_sub_accounts_are_made_and_listed(api: Api) -> None:
    """canvasapi: Account.create_subaccount, get_subaccounts (app/controllers/sub_accounts_controller.rb)"""
    law = await form(api, "POST", "accounts/1/sub_accounts", ("account[name]", "Law"), ("account[sis_account_id]", "LAW"))
    await form(api, "POST", f"accounts/{law.json()['id']}/sub_accounts", ("account[name]", "Civil"))
    assert [item["name"] for item in (await api.get("accounts/self/sub_accounts")).json()] == ["Law"]
    assert [item["name"] for item in (await api.get("accounts/self/sub_accounts", recursive="True")).json()] == ["Law", "Civil"]
    again = await form(api, "POST", "accounts/1/sub_accounts", ("account[name]", "X"), ("account[sis_account_id]", "LAW"))
    assert again.status_code == 400


async def test_one_role(api: Api) -> None:
    """uw-restclients-canvas: Roles.get_role (app/controllers/role_overrides_controller.rb#show)"""
    assert (await api.get("accounts/1/roles/3")).json()["label"] == "Student"
    assert (await api.get("accounts/1/roles/999")).status_code == 404


async def test_a_whole_url_may_be_asked_for(api: Api) -> None:
    """uw-restclients-canvas hands the URL of ``Link`` to a pool of connections, which sends it whole (RFC 9112, 3.2.2)"""
    sent: list[int] = []

    async def send(event: MutableMapping[str, Any]) -> None:
        if event["type"] == "http.response.start":
            sent.append(int(str(event["status"])))

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b""}

    url = "http://canvas.test/api/v1/sections/sis_section_id:S1/enrollments"
    scope = {
        "type": "http",
        "method": "GET",
        "path": url,
        "raw_path": url.encode(),
        "query_string": b"per_page=5",
        "headers": [(b"authorization", b"Bearer secret"), (b"host", b"canvas.test")],
    }
    await api.canvas(scope, receive, send)
    assert sent == [200]
