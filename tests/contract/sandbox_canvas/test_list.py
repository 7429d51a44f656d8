"""Listing enrollments: defaults, filters, order, pages, and what a token may see."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.contract.sandbox_canvas.conftest import SECTION, Api

STATES = ("active", "invited", "creation_pending", "inactive", "completed", "rejected", "deleted")


def one_person_per_state(api: Api) -> None:
    api.seed(
        users=[{"sis_user_id": state} for state in STATES],
        enrollments=[{"section": "S1", "user": state, "state": state} for state in STATES],
    )


async def people(api: Api, path: Any = SECTION, **parameters: Any) -> set[str]:
    answer = await api.get(path, per_page=100, **parameters)
    assert answer.status_code == 200, answer.text
    return {row["sis_user_id"] for row in answer.json()}


@pytest.mark.parametrize("path", [SECTION, "courses/sis_course_id:C1/enrollments"])
async def test_a_roster_shows_who_is_active_or_pending_and_to_admins_who_is_inactive(api: Api, path: str) -> None:
    """app/controllers/enrollments_api_controller.rb#course_index_enrollments"""
    one_person_per_state(api)
    assert await people(api, path) == {"active", "invited", "creation_pending", "inactive"}
    api.forbid("read_as_admin")
    assert await people(api, path) == {"active", "invited", "creation_pending"}


async def test_states_are_compared_as_stored_and_not_validated(api: Api) -> None:
    """app/controllers/enrollments_api_controller.rb#enrollment_index_conditions"""
    one_person_per_state(api)
    assert await people(api, **{"state[]": ["deleted", "completed", "nonsense"]}) == {"deleted", "completed"}
    assert await people(api, **{"state[]": list(STATES)}) == set(STATES)


async def test_with_a_user_id_the_default_is_active_and_invited(api: Api) -> None:
    """app/controllers/enrollments_api_controller.rb#user_index_enrollments: a read-back must send ``state[]``"""
    one_person_per_state(api)
    for state in STATES:
        expected = {state} if state in ("active", "invited") else set()
        assert await people(api, user_id=f"sis_user_id:{state}") == expected
        assert await people(api, user_id=f"sis_user_id:{state}", **{"state[]": list(STATES)}) == {state}


async def test_an_unknown_user_is_404_where_a_user_without_rows_is_an_empty_list(api: Api) -> None:
    """lib/api.rb#api_find; app/controllers/enrollments_api_controller.rb#user_index_enrollments"""
    assert (await api.get(SECTION, user_id="sis_user_id:nobody")).status_code == 404
    assert (await api.get(SECTION, user_id="sis_user_id:U1")).json() == []
    assert (await api.get("users/sis_user_id:nobody/enrollments")).status_code == 404


async def test_a_grading_period_that_is_not_there_is_refused(api: Api) -> None:
    """app/controllers/enrollments_api_controller.rb#index"""
    refused = await api.get(SECTION, grading_period_id="1")
    assert (refused.status_code, refused.json()) == (400, {"error": "invalid grading_period_id"})


async def test_a_persons_list_spans_courses(api: Api) -> None:
    """app/controllers/enrollments_api_controller.rb#user_index_enrollments"""
    await api.enroll()
    await api.enroll(path="sections/sis_section_id:S3/enrollments", enrollment_state=None)
    found = (await api.get("users/sis_user_id:U1/enrollments")).json()
    assert {row["sis_section_id"] for row in found} == {"S1", "S3"}


async def test_ones_own_list_goes_by_effective_state_and_refuses_unknown_words(api: Api) -> None:
    """app/controllers/enrollments_api_controller.rb#user_index_enrollments"""
    await api.enroll(user_id="self", start_at="2190-01-01T00:00:00Z", end_at="2191-01-01T00:00:00Z")
    refused = await api.get("users/self/enrollments", **{"state[]": "deleted"})
    assert (refused.status_code, refused.json()) == (400, {"error": "Invalid state deleted"})
    assert (await api.get("users/self/enrollments")).json() == []
    assert len((await api.get("users/self/enrollments", **{"state[]": "current_and_future"})).json()) == 1


async def test_role_makes_type_void_and_an_unknown_role_is_refused(api: Api) -> None:
    """app/controllers/enrollments_api_controller.rb#enrollment_index_conditions"""
    await api.enroll()
    await api.enroll(user_id="sis_user_id:U2", type=None, role="Auditor")
    await api.enroll(user_id="sis_user_id:U3", type="TeacherEnrollment")
    assert await people(api, **{"type[]": "StudentEnrollment"}) == {"U1", "U2"}
    assert await people(api, **{"role[]": "Auditor", "type[]": "TeacherEnrollment"}) == {"U2"}
    assert await people(api, **{"role[]": ["StudentEnrollment", "TeacherEnrollment"]}) == {"U1", "U3"}
    assert (await api.get(SECTION, **{"role[]": "Nobody"})).status_code == 400


async def test_sis_filters_need_the_right_to_see_sis_ids(api: Api) -> None:
    """app/controllers/enrollments_api_controller.rb#check_sis_permissions"""
    await api.enroll()
    await api.enroll(user_id="sis_user_id:U2")
    await api.enroll(path="sections/sis_section_id:S2/enrollments", user_id="sis_user_id:U3")
    course = "courses/sis_course_id:C1/enrollments"
    assert await people(api, course, **{"sis_user_id[]": ["U1", "U3", "x"]}) == {"U1", "U3"}
    assert await people(api, course, **{"sis_section_id[]": "S2"}) == {"U3"}
    assert await people(api, course, sis_course_id="C2") == set()
    api.forbid("read_sis", "manage_sis")
    refused = await api.get(course, **{"sis_user_id[]": "U1"})
    assert (refused.status_code, refused.json()) == (400, {"message": "Insufficient permissions to filter by SIS fields"})


async def test_rows_written_by_an_import_can_be_found_by_its_login(api: Api) -> None:
    """app/controllers/enrollments_api_controller.rb#index: created_for_sis_id"""
    api.seed(enrollments=[{"section": "S1", "user": "U1", "sis_import_id": 7}])
    await api.enroll(user_id="sis_user_id:U2")
    assert await people(api, **{"sis_user_id[]": ["U1", "U2"], "created_for_sis_id": "true"}) == {"U1"}


async def test_rows_come_by_type_then_sortable_name_then_id(api: Api) -> None:
    """app/controllers/enrollments_api_controller.rb#index: the bookmarker"""
    for user, type_ in (("U1", "TeacherEnrollment"), ("U3", "StudentEnrollment"), ("U2", "StudentEnrollment")):
        await api.enroll(user_id=f"sis_user_id:{user}", type=type_)
    rows = (await api.get(SECTION)).json()
    assert [row["user"]["sortable_name"] for row in rows] == ["Gödel, Kurt", "Noether, Emmy", "Lovelace, Ada"]


async def test_bookmarks_lead_through_a_long_roster(api: Api) -> None:
    """lib/bookmarked_collection; lib/api.rb#paginate (MAX_PER_PAGE)"""
    names = {f"P{number:03}" for number in range(25)}
    api.seed(
        users=[{"sis_user_id": name} for name in names], enrollments=[{"section": "S1", "user": name} for name in sorted(names)]
    )
    seen, sizes, url = [], [], f"{SECTION}?state[]=active"
    while url:
        answer = await api.call("GET", url)
        sizes.append(len(answer.json()))
        seen += [row["sis_user_id"] for row in answer.json()]
        following = re.search(r'<([^>]*)>; rel="next"', answer.headers["link"])
        url = following[1] if following else ""
    assert sizes == [10, 10, 5]
    assert len(seen) == len(names)
    assert set(seen) == names
    assert (await api.get(SECTION, page="2")).status_code == 404
    assert len((await api.get(SECTION, per_page="1000")).json()) == 25


@pytest.mark.parametrize(
    ("taken", "hidden"),
    [
        (("manage_sis",), {"sis_import_id"}),
        (("manage_sis", "read_sis"), {"sis_import_id", "sis_user_id", "sis_section_id", "sis_course_id", "sis_account_id"}),
        (("read_reports",), {"last_activity_at", "last_attended_at", "total_activity_time"}),
    ],
)
async def test_fields_show_only_to_those_who_may_see_them(api: Api, taken: tuple[str, ...], hidden: set[str]) -> None:
    """lib/api/v1/user.rb#enrollment_json"""
    everything = set(await api.enroll())
    assert hidden <= everything
    api.forbid(*taken)
    fields = set((await api.get(SECTION)).json()[0]) - {"user"}
    assert everything - fields >= hidden


async def test_a_roster_needs_the_right_to_read_it(api: Api) -> None:
    """app/controllers/enrollments_api_controller.rb#course_index_enrollments"""
    await api.enroll()
    api.forbid("read_roster")
    assert (await api.get(SECTION)).status_code == 403
    assert (await api.get("users/sis_user_id:U1/enrollments")).status_code == 403


async def test_ids_are_numbers_unless_text_is_asked_for(api: Api) -> None:
    """app/middleware/stringify_ids.rb"""
    row = await api.enroll()
    assert isinstance(row["user_id"], int)
    answer = await api.call("GET", SECTION, headers={"Accept": "application/json+canvas-string-ids"})
    listed = answer.json()[0]
    assert (listed["id"], listed["user"]["id"], listed["associated_user_id"]) == (str(row["id"]), str(row["user_id"]), None)


async def test_reads_lag_while_answers_to_writes_do_not(api: Api) -> None:
    """Not of Canvas: reads from a replica that lags."""
    api.seed(enrollments=[{"section": "S1", "user": "U2", "state": "active"}])
    api.canvas.settings.visibility_lag_seconds = 60
    row = await api.enroll()
    assert await people(api) == {"U2"}
    assert (await api.get(f"accounts/self/enrollments/{row['id']}")).status_code == 404
    old = (await api.get("users/sis_user_id:U2/enrollments")).json()[0]
    assert (await api.remove(old, task="delete")).json()["enrollment_state"] == "deleted"
    assert (await api.get(SECTION)).json()[0]["enrollment_state"] == "active"
    api.canvas.settings.visibility_lag_seconds = 0
    assert await people(api) == {"U1"}


@pytest.mark.parametrize(
    ("owned", "account_right", "protected"), [(True, True, False), (True, False, True), (False, False, False)]
)
async def test_only_the_flags_for_a_user_interface_protect_what_the_sis_owns(
    api: Api, owned: bool, account_right: bool, protected: bool
) -> None:
    """lib/api/v1/user.rb: ``locked`` and ``can_be_removed``; the REST call itself asks for nothing of the kind"""
    api.seed(enrollments=[{"section": "S1", "user": "U1", "sis_import_id": 7 if owned else None}])
    if not account_right:
        api.forbid("manage_account_settings", "manage_sis")
    row = (await api.get(SECTION, **{"include[]": ["locked", "can_be_removed"]})).json()[0]
    assert (row["locked"], row["can_be_removed"]) == (protected, not protected)
    assert not {"locked", "can_be_removed", "observed_user"} & set((await api.get(SECTION)).json()[0])
    assert (await api.remove(row, task="delete")).status_code == 200


async def test_who_may_not_remove_a_type_is_told_so(api: Api) -> None:
    """lib/api/v1/user.rb"""
    await api.enroll()
    api.forbid("remove_student_from_course")
    assert (await api.get(SECTION, **{"include[]": "can_be_removed"})).json()[0]["can_be_removed"] is False


async def test_an_observers_row_may_name_the_observed_user(api: Api) -> None:
    """lib/api/v1/user.rb: ``observed_users``"""
    await api.enroll(type="ObserverEnrollment", user_id="sis_user_id:U2", associated_user_id=api.id_of("U1"))
    row = (await api.get(SECTION, **{"include[]": "observed_users"})).json()[0]
    assert row["observed_user"]["name"] == "Ada Lovelace"


async def test_links_leave_out_the_token_and_name_relations_in_a_fixed_order(api: Api) -> None:
    """lib/api.rb#build_links"""
    await api.enroll()
    await api.enroll(user_id="sis_user_id:U2")
    answer = await api.call("GET", f"{SECTION}?access_token=secret&per_page=1&state[]=active", headers={"Authorization": ""})
    link = answer.headers["link"]
    assert re.findall(r'rel="(\w+)"', link) == ["current", "next", "first"]
    assert "secret" not in link
    assert link.count("state%5B%5D=active") == 3
    assert "page=bookmark:" in link


async def test_a_link_header_does_not_grow_beyond_six_kilobytes(api: Api) -> None:
    """lib/api.rb: what has no room is left out, from the end"""
    await api.enroll()
    await api.enroll(user_id="sis_user_id:U2")
    answer = await api.get(SECTION, per_page=1, **{"sis_user_id[]": ["U1", "U2", "x" * 2_000]})
    assert re.findall(r'rel="(\w+)"', answer.headers["link"]) == ["current", "next"]
    assert len(answer.headers["link"]) < 6 * 1024


@pytest.mark.parametrize("page", ["bookmark:zzz", "bookmark:" + "WzEsMl0", "nonsense"])
async def test_a_bookmark_that_was_never_issued_is_404(api: Api, page: str) -> None:
    """lib/bookmarked_collection"""
    await api.enroll()
    assert (await api.get(SECTION, page=page)).status_code == 404
