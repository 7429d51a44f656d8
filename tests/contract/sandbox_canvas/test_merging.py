"""Merging users: logins with their SIS ids move, enrollments of both meet, and whoever went away is found no more."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.contract.sandbox_canvas.conftest import Api

ALL = {"state[]": ["active", "invited", "creation_pending", "inactive", "completed", "rejected", "deleted"]}


async def merge(api: Api, source: str = "U1", target: str = "U2") -> httpx.Response:
    return await api.call("PUT", f"users/sis_user_id:{source}/merge_into/sis_user_id:{target}")


def rows_of(api: Api, sis_user_id: str) -> list[tuple[str, str, int | None]]:
    """Section, stored state and import of each row of the person who has this SIS id now."""
    user = api.canvas.world.logins_by_sis[sis_user_id].user
    return sorted((str(row.section.sis_section_id), row.state, row.sis_batch_id) for row in user.enrollments)


async def test_the_one_who_stays_answers_to_both_sis_ids(api: Api) -> None:
    """lib/user_merge.rb: pseudonyms_to_move"""
    source = (await api.get("users/sis_user_id:U1")).json()["id"]
    merged = await merge(api)
    assert (merged.status_code, merged.json()["name"]) == (200, "Kurt Gödel")
    stays = merged.json()["id"]
    assert (await api.get("users/sis_user_id:U1")).json()["id"] == stays
    assert (await api.get("users/sis_user_id:U2")).json()["id"] == stays
    assert (await api.get(f"users/{source}")).status_code == 404
    logins = (await api.get(f"users/{stays}/logins")).json()
    assert [login["sis_user_id"] for login in logins] == ["U2", "U1"]


async def test_enrollments_move_with_every_column(api: Api) -> None:
    """lib/user_merge.rb#move_enrollments: update_all(user_id, updated_at)"""
    dates = {"start_at": "2026-09-01T00:00:00Z", "end_at": "2026-12-01T00:00:00Z"}
    row = api.seed(enrollments=[{"section": "S1", "user": "U1", "sis_import_id": 7, "limit_privileges": True} | dates])[
        "enrollments"
    ][0]
    since = (await api.control("POST", "snapshots"))["id"]
    await merge(api)
    changes = (await api.control("GET", f"snapshots/{since}/changes", params={"ignore": "updated_at"}))["changes"]
    (moved,) = [change for change in changes if change["kind"] == "enrollments"]
    assert (moved["id"], list(moved["changed"])) == (row, ["user"])
    assert (await api.enroll(user_id="sis_user_id:U1"))["id"] == row, "the key has moved along"


async def test_deleted_enrollments_stay_with_who_went_away(api: Api) -> None:
    """lib/user_merge.rb#move_enrollments: Enrollment.active only"""
    api.seed(enrollments=[{"section": "S1", "user": "U1", "state": "deleted"}])
    await merge(api)
    assert rows_of(api, "U2") == []
    assert (await api.enroll(user_id="sis_user_id:U1"))["enrollment_state"] == "active"
    assert len(api.canvas.world.enrollments) == 2


@pytest.mark.parametrize(
    ("source", "target", "after"),
    [
        ("active", "invited", "active"),
        ("active", "deleted", "active"),
        ("active", "inactive", "active"),
        ("completed", "rejected", "completed"),
        ("invited", "active", "active"),
        ("inactive", "completed", "completed"),
        ("deleted", "inactive", "inactive"),
        ("active", "active", "active"),
    ],
)
async def test_where_both_were_the_better_state_wins_on_the_row_of_who_stays(
    api: Api, source: str, target: str, after: str
) -> None:
    """lib/user_merge.rb#enrollment_keeper and #update_enrollment_state"""
    theirs, mine = api.seed(
        enrollments=[
            {"section": "S1", "user": "U1", "state": source, "sis_import_id": 7},
            {"section": "S1", "user": "U2", "state": target},
        ]
    )["enrollments"]
    await merge(api)
    rows = api.canvas.world.enrollments
    assert (rows[mine].state, rows[theirs].state) == (after, "deleted")
    assert rows[mine].sis_batch_id is None, "the import's mark does not come along"
    assert rows_of(api, "U2") == [("S1", after, None)]


async def test_other_roles_and_sections_do_not_meet(api: Api) -> None:
    """lib/user_merge.rb#conflict_scope: type, role, section, observed user"""
    api.seed(
        enrollments=[
            {"section": "S1", "user": "U1"},
            {"section": "S1", "user": "U2", "role": "Auditor"},
            {"section": "S2", "user": "U2"},
        ]
    )
    await merge(api)
    assert rows_of(api, "U2") == [("S1", "active", None), ("S1", "active", None), ("S2", "active", None)]


async def test_nobody_observes_themselves_afterwards(api: Api) -> None:
    """lib/user_merge.rb#remove_self_observers"""
    row = await api.enroll(type="ObserverEnrollment", user_id="sis_user_id:U1", associated_user_id=api.id_of("U2"))
    reverse = await api.enroll(
        path="sections/sis_section_id:S3/enrollments",
        type="ObserverEnrollment",
        user_id="sis_user_id:U2",
        associated_user_id=api.id_of("U1"),
    )
    other = await api.enroll(type="ObserverEnrollment", user_id="sis_user_id:U3", associated_user_id=api.id_of("U1"))
    await merge(api)
    assert (api.stored(row).state, api.stored(reverse).state) == ("deleted", "deleted")
    observed = api.stored(other)
    assert (observed.state, observed.associated_user) == ("active", api.canvas.world.logins_by_sis["U2"].user)


async def test_observers_of_either_observe_the_one_who_stays(api: Api) -> None:
    """lib/user_merge.rb#move_observees"""
    api.seed(users=[{"sis_user_id": "U3", "observes": ["U1"]}])
    await merge(api)
    await api.enroll(user_id="sis_user_id:U2")
    assert rows_of(api, "U3") == [("S1", "active", None)]


async def test_into_oneself_nothing_happens(api: Api) -> None:
    """lib/user_merge.rb#into"""
    api.seed(users=[{"sis_user_id": "U1b", "also": "U1"}], enrollments=[{"section": "S1", "user": "U1"}])
    assert (await merge(api, "U1b", "U1")).status_code == 200
    assert rows_of(api, "U1") == [("S1", "active", None)]


async def test_a_test_student_cannot_be_merged(api: Api) -> None:
    """lib/user_merge.rb#into raises, which nobody catches"""
    student = api.seed(test_students=[{"course": "C1"}])["test_students"]["C1"]
    answer = await api.call("PUT", f"users/{student}/merge_into/sis_user_id:U2")
    assert answer.status_code == 500
    assert answer.json()["errors"][0]["error_code"] == "internal_server_error"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("users/sis_user_id:U1/merge_into/accounts/self/users/sis_user_id:U2", 200),
        ("users/sis_user_id:nobody/merge_into/sis_user_id:U2", 404),
        ("users/sis_user_id:U1/merge_into/sis_user_id:nobody", 404),
    ],
)
async def test_both_must_be_there(api: Api, path: str, status: int) -> None:
    """app/controllers/users_controller.rb#merge_into"""
    assert (await api.call("PUT", path)).status_code == status


async def test_it_needs_the_right(api: Api) -> None:
    """app/controllers/users_controller.rb#merge_into"""
    api.forbid("manage_user_logins")
    assert (await merge(api)).status_code == 403


async def test_rows_of_imports_are_found_by_the_login_that_moved(api: Api) -> None:
    """app/controllers/enrollments_api_controller.rb, created_for_sis_id: the login link goes with the row"""
    api.seed(enrollments=[{"section": "S1", "user": "U1", "sis_import_id": 7}])
    await merge(api)
    found: Any = await api.get("sections/sis_section_id:S1/enrollments", **{"sis_user_id[]": "U1", "created_for_sis_id": "true"})
    assert [row["sis_user_id"] for row in found.json()] == ["U1"]
