"""The control side's rows: filling an account, what others do, and the proof of what was or was not touched."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.contract.sandbox_canvas.conftest import SECTION, Api

DATES = {"start_at": "2026-09-01T00:00:00Z", "end_at": "2026-12-01T00:00:00Z"}
ONE = {"section": "S1", "user": "U1"}


async def snapshot(api: Api) -> int:
    identity: int = (await api.control("POST", "snapshots"))["id"]
    return identity


async def changes(api: Api, since: int, *ignore: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await api.control("GET", f"snapshots/{since}/changes", params={"ignore": list(ignore)}))[
        "changes"
    ]
    return found


async def stored(api: Api) -> dict[str, Any]:
    """The one enrollment, in every column."""
    (row,) = (await api.control("GET", "dump", params={"kind": "enrollments"}))["enrollments"]
    return dict(row)


async def test_twenty_thousand_rows_are_filled_in_and_read_by_section(api: Api) -> None:
    api.canvas.settings.throttle.enabled = False
    amounts = {"prefix": "x-", "courses": 20, "sections": 80, "imported": 20_000, "manual": 500}
    sections = (await api.control("POST", "population", json=amounts))["sections"]
    assert (await api.control("POST", "population", json=amounts))["sections"] == sections, "twice makes nothing twice"
    seen: dict[int, dict[str, Any]] = {}
    for section in sections:
        rows, pages = await api.walk(f"sections/sis_section_id:{section}/enrollments?per_page=100")
        assert pages == -(-len(rows) // 100)
        seen |= {row["id"]: row for row in rows}
    assert len(seen) == 20_500
    assert sum(row["sis_import_id"] is not None for row in seen.values()) == 20_000
    assert sum(row["start_at"] is not None and row["end_at"] is not None for row in seen.values()) == 4_100
    assert sum(row["limit_privileges_to_course_section"] for row in seen.values()) == 2_929
    linked, _ = await api.walk(f"{SECTION.replace('S1', 'x-S1')}?per_page=100&sis_user_id[]=x-P1&created_for_sis_id=true")
    assert [row["sis_user_id"] for row in linked] == ["x-P1"]


async def test_more_rows_than_seats_are_refused(api: Api) -> None:
    with pytest.raises(AssertionError, match="more enrollments than people times sections"):
        await api.control("POST", "population", json={"people": 10, "sections": 2, "imported": 21, "manual": 0})


async def test_a_seeded_row_has_every_column_that_was_asked_for(api: Api) -> None:
    api.seed(
        users=[{"sis_user_id": "U1b", "also": "U1"}],
        enrollments=[ONE | DATES | {"sis_import_id": 7, "limit_privileges": True, "login": "U1b", "completed_at": "2026-11-01"}],
    )
    row = await stored(api)
    assert (row["sis_batch_id"], row["limit_privileges"], row["start_at"], row["end_at"]) == (7, True, *DATES.values())
    assert (row["sis"]["login"], row["completed_at"]) == ("U1b", "2026-11-01T00:00:00Z")


async def test_nothing_is_different_after_reading(api: Api) -> None:
    api.seed(enrollments=[ONE | DATES])
    since = await snapshot(api)
    await api.get(SECTION)
    await api.get("users/sis_user_id:U1/enrollments")
    assert await changes(api, since) == []


async def test_a_careless_create_is_shown_column_by_column(api: Api) -> None:
    """app/models/course.rb#enroll_user overwrites them; this is how a test proves that no sync did."""
    api.seed(enrollments=[ONE | DATES | {"sis_import_id": 7, "limit_privileges": True}])
    since = await snapshot(api)
    await api.enroll()
    assert "updated_at" in (await changes(api, since))[0]["changed"]
    (change,) = await changes(api, since, "updated_at")
    login = api.canvas.world.logins_by_sis["U1"].id
    assert change["changed"] == {
        "start_at": [DATES["start_at"], None],
        "end_at": [DATES["end_at"], None],
        "limit_privileges": [True, False],
        "sis_pseudonym": [login, None],
        "stuck_sis_fields": [[], ["end_at", "start_at"]],
    }
    assert (change["kind"], change["sis"]["section"], change["sis"]["user"]) == ("enrollments", "S1", "U1")


async def test_new_rows_and_changed_objects_are_shown_too(api: Api) -> None:
    since = await snapshot(api)
    row = await api.enroll()
    await api.call("PUT", "sections/sis_section_id:S2", json={"course_section": {"name": "Renamed"}})
    found = {(change["kind"], change["id"]): change for change in await changes(api, since)}
    assert found["enrollments", row["id"]]["added"]["state"] == "active"
    section = api.canvas.world.sections_by_sis["S2"].id
    assert found["sections", section]["changed"]["name"] == ["S2", "Renamed"]
    assert len(found) == 2


async def test_a_snapshot_can_be_dropped(api: Api) -> None:
    since = await snapshot(api)
    assert await api.control("DELETE", f"snapshots/{since}") == {"dropped": True}
    assert await api.control("DELETE", f"snapshots/{since}") == {"dropped": False}
    gone = await api.http.get(f"http://canvas.test/_sandbox/snapshots/{since}/changes")
    assert gone.status_code == 422


@pytest.mark.parametrize(
    ("act", "state"), [("delete", "deleted"), ("conclude", "completed"), ("deactivate", "inactive"), ("reactivate", "active")]
)
async def test_an_instructor_changes_the_state_and_leaves_the_siss_marks(api: Api, act: str, state: str) -> None:
    """app/models/enrollment.rb: destroy, conclude, deactivate, reactivate"""
    row = api.seed(enrollments=[ONE | DATES | {"sis_import_id": 7}])["enrollments"][0]
    assert await api.act(act, **ONE) == [row]
    now = await stored(api)
    assert (now["state"], now["sis_batch_id"], now["sis"]["login"], now["start_at"]) == (state, 7, "U1", DATES["start_at"])
    assert (now["completed_at"] is not None) is (act == "conclude")
    assert api.canvas.log.attempts == [], "others' acts are not in the log of the client's writes"


async def test_a_changed_role_is_another_row(api: Api) -> None:
    """app/controllers/courses_controller.rb: the old enrollment goes, another one is made"""
    row = await api.enroll()
    new, old = await api.act("role", id=row["id"], to_role="Auditor")
    world = api.canvas.world
    assert (old, world.enrollments[old].state) == (row["id"], "deleted")
    assert (world.enrollments[new].role.name, world.enrollments[new].state) == ("Auditor", "active")


async def test_an_import_claims_a_row_and_writes_the_dates_that_are_not_sticky(api: Api) -> None:
    """lib/sis/enrollment_importer.rb"""
    await api.enroll()
    await api.act("import", **ONE, **DATES, import_id=9, limit_privileges=True)
    row = await stored(api)
    assert (row["sis_batch_id"], row["sis"]["login"], row["start_at"]) == (9, "U1", DATES["start_at"])
    assert (row["limit_privileges"], row["stuck_sis_fields"]) == (True, [])
    await api.act("dates", **ONE, start_at="2026-10-01T00:00:00Z", end_at=DATES["end_at"])
    await api.act("import", **ONE, import_id=10, status="inactive")
    row = await stored(api)
    assert (row["start_at"], row["end_at"]) == ("2026-10-01T00:00:00Z", None), "only the date a person had changed was sticky"
    assert (row["state"], row["sis_batch_id"], row["limit_privileges"]) == ("inactive", 10, True)


async def test_an_import_that_says_nothing_new_only_stamps_the_row(api: Api) -> None:
    """lib/sis/enrollment_importer.rb"""
    api.seed(enrollments=[ONE | DATES | {"sis_import_id": 7}])
    since = await snapshot(api)
    await api.act("import", **ONE, **DATES, import_id=8)
    (change,) = await changes(api, since)
    assert change["changed"] == {"sis_batch_id": [7, 8]}


async def test_people_and_objects_of_an_import_say_so(api: Api) -> None:
    """lib/api/v1: sis_import_id of users, courses and sections"""
    await api.control("POST", "population", json={"people": 2, "sections": 1, "imported": 2, "manual": 0, "import_id": 5})
    for path in ("users/sis_user_id:P1", "courses/sis_course_id:C1", "sections/sis_section_id:S1"):
        assert (await api.get(path)).json()["sis_import_id"] == 5
    api.seed(users=[{"sis_user_id": "U1", "sis_batch_id": 6, "integration_id": "I1"}])
    shown = (await api.get("users/sis_integration_id:I1")).json()
    assert (shown["sis_user_id"], shown["sis_import_id"]) == ("U1", 6)


async def test_an_act_on_nothing_is_refused(api: Api) -> None:
    answer = await api.http.post("http://canvas.test/_sandbox/acts", json={"acts": [{"act": "delete", **ONE}]})
    assert answer.status_code == 422


async def test_only_this_machine_may_look(api: Api) -> None:
    elsewhere = httpx.AsyncClient(
        transport=httpx.ASGITransport(api.canvas, client=("192.0.2.1", 1)), base_url="http://canvas.test"
    )
    async with elsewhere:
        assert (await elsewhere.get("/_sandbox/dump")).status_code == 403
