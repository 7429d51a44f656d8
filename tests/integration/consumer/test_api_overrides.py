"""The API of overrides: made, listed, found, withdrawn; refused with what to do; audited without the registrar's words."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog

from schemas.keys import section_key
from services.consumer.ledger import database, reopening
from services.consumer.nouns import WORK_CHANNEL
from tests.integration.consumer.api_support import Api
from tests.integration.consumer.ledger_support import TENANT, Ledger, enrollment, seat, section_event

SECTION = {"institution": "PSUNV", "term": "1259", "section": "1001"}
REASON = "appeal of Mr Miller was granted"
UNTIL = (datetime.now(UTC) + timedelta(days=30)).replace(microsecond=0)


@pytest.fixture
def api(database_url: str, tmp_path: Path) -> Iterator[Api]:
    ledger = Ledger(database_url)
    yield Api(ledger, tmp_path)
    ledger.check()
    ledger.close()


def order(**changes: Any) -> dict[str, Any]:
    return {
        "person": "9000001",
        "section": SECTION,
        "role": "student",
        "gives": "active",
        "until": UNTIL.isoformat(),
        "reason": REASON,
    } | changes


async def make(api: Api, **changes: Any) -> int:
    answer = await api.call("POST", "/overrides", json=order(**changes))
    assert answer.status_code == 201, answer.text
    return int(answer.json()["override"])


async def test_an_override_is_made_decided_told_and_audited(api: Api) -> None:
    with database.connect(api.ledger.url) as driver, structlog.testing.capture_logs() as logged:
        driver.execute(f"listen {WORK_CHANNEL}")
        answer = await api.call("POST", "/overrides", json=order())
        assert [told.payload for told in driver.notifies(timeout=5, stop_after=1)] == ["canvas"]

    assert answer.status_code == 201
    number = answer.json()["override"]
    assert answer.headers["location"] == f"/overrides/{number}"
    assert answer.json() | {"made_at": ""} == {
        "override": number,
        "person": "9000001",
        "section": SECTION,
        "role": "student",
        "gives": "active",
        "until": UNTIL.isoformat(),
        "reason": REASON,
        "actor": "ops",
        "made_at": "",
        "state": "in_force",
    }
    assert api.ledger.desired() == {seat(): "active"}
    asked = {key: value for key, value in order().items() if key != "reason"}
    [(actor, action, outcome, detail)] = api.audit()
    assert (actor, action, outcome) == ("ops", "overrides.make", "done")
    assert detail | {"until": ""} == asked | {"until": "", "override": number}
    assert "Miller" not in str(detail) + str(logged)
    assert "9000001" not in str(logged)
    assert (await api.call("GET", f"/overrides/{number}")).json() == answer.json()


async def test_the_same_again_is_a_conflict_that_names_the_first(api: Api) -> None:
    number = await make(api)

    again = await api.call("POST", "/overrides", json=order(gives="deleted"))

    assert again.status_code == 409
    assert again.headers["content-type"] == "application/problem+json"
    assert (again.json()["reason"], again.json()["override"]) == ("in_force", number)
    assert "withdraw it first" in again.json()["title"]
    assert "9000001" not in again.text
    assert [row[2] for row in api.audit()] == ["done", "refused"]


async def test_it_is_withdrawn_with_a_reason_and_only_once(api: Api) -> None:
    api.ledger.take(enrollment("dropped"))
    number = await make(api)

    done = await api.call("POST", f"/overrides/{number}/withdraw", "desk-secret", json={"reason": "was a mistake"})

    assert (done.status_code, done.json()["state"]) == (200, "withdrawn")
    assert done.json()["withdrawn"] | {"at": ""} == {"at": "", "actor": "desk", "reason": "was a mistake"}
    assert api.ledger.desired() == {seat(): "deleted"}
    again = await api.call("POST", f"/overrides/{number}/withdraw", json={"reason": "was a mistake"})
    assert (again.status_code, again.json()["reason"]) == (409, "withdrawn")
    assert (await api.call("POST", "/overrides/99/withdraw", json={"reason": "was a mistake"})).status_code == 404
    assert (await api.call("GET", "/overrides/nine")).status_code == 404
    assert [(row[0], row[2]) for row in api.audit() if row[1] == "overrides.withdraw"] == [
        ("desk", "done"),
        ("ops", "refused"),
        ("ops", "not_found"),
    ]
    assert "mistake" not in str(api.audit())


async def test_they_are_listed_in_pages_and_found_by_person_section_and_state(api: Api) -> None:
    numbers = [await make(api, person=person) for person in ("9000001", "9000002", "9000003")]
    other = await make(api, section=SECTION | {"section": "2002"})
    await api.call("POST", f"/overrides/{numbers[0]}/withdraw", json={"reason": "was a mistake"})
    api.ledger.connection.execute(
        "update override set made_at = made_at - interval '9 days', ends_at = clock_timestamp() where override = %s", [numbers[1]]
    )

    async def listed(query: str) -> list[int]:
        answer = await api.call("GET", f"/overrides{query}")
        assert answer.status_code == 200
        return [one["override"] for one in answer.json()["overrides"]]

    async def found(**asked: Any) -> list[int]:
        answer = await api.call("POST", "/overrides/search", json=asked)
        assert answer.status_code == 200
        return [one["override"] for one in answer.json()["overrides"]]

    assert await listed("") == [other, *reversed(numbers)]
    assert await listed("?state=in_force") == [other, numbers[2]]
    assert await listed("?state=ended") == [numbers[1]]
    assert await listed("?state=withdrawn") == [numbers[0]]
    page = (await api.call("GET", "/overrides?limit=3")).json()
    assert page["next_after"] == numbers[1]
    assert await listed(f"?limit=3&after={page['next_after']}") == [numbers[0]]
    assert await found(person="9000001") == [other, numbers[0]]
    assert await found(section=SECTION) == list(reversed(numbers))
    assert await found(person="9000001", section=SECTION, state="in_force") == []


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"person": ""}, "/person"),
        ({"section": "1001"}, "/section"),
        ({"role": "Student"}, "/role"),
        ({"role": "other"}, "/role"),
        ({"gives": "enrolled"}, "/gives"),
        ({"until": "2031-01-01T00:00:00"}, "/until"),
        ({"until": "2020-01-01T00:00:00Z"}, "/until"),
        ({"until": (UNTIL + timedelta(days=800)).isoformat()}, "/until"),
        ({"until": "9999-12-31T23:59:59-01:00"}, "/until"),
        ({"until": "0001-01-01T00:00:00+14:00"}, "/until"),
        ({"reason": "no"}, "/reason"),
        ({"tenant": "other"}, ""),
    ],
)
async def test_what_is_not_valid_is_named_refused_and_audited(api: Api, changes: dict[str, Any], pointer: str) -> None:
    answer = await api.call("POST", "/overrides", json=order(**changes))

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert "9000001" not in answer.text
    assert [row[1:3] for row in api.audit()] == [("overrides.make", "refused")]
    assert api.ledger.rows("select from override") == []


@pytest.mark.parametrize("query", ["?state=over", "?limit=0", "?after=x"])
async def test_a_list_that_is_not_valid_is_refused(api: Api, query: str) -> None:
    assert (await api.call("GET", f"/overrides{query}")).status_code == 422


async def test_nobody_without_a_secret_overrides_anything(api: Api) -> None:
    assert (await api.call("POST", "/overrides", None, json=order())).status_code == 401
    assert (await api.call("GET", "/overrides", None)).status_code == 401


async def test_a_trace_says_what_decides_until_when_and_why(api: Api) -> None:
    api.ledger.take(section_event())
    api.ledger.take(enrollment("dropped", version=2))
    number = await make(api)
    api.ledger.settle()

    found = (await api.call("POST", "/trace", json={"person": "9000001", "section": SECTION})).json()

    assert [one["code"] for one in found["findings"]] == ["sis_not_enrolled", "override", "applied"]
    told = found["findings"][1]["text"]
    assert f"active by override {number} until {UNTIL:%Y-%m-%d %H:%M}" in told
    assert [(one["override"], one["reason"], one["gives"]) for one in found["overrides"]] == [(number, REASON, "active")]
    assert [(row["what"], row.get("override")) for row in found["timeline"]][-2:] == [
        ("override_made", number),
        ("decided", number),
    ]

    await api.call("POST", f"/overrides/{number}/withdraw", json={"reason": "was a mistake"})
    found = (await api.call("POST", "/trace", json={"person": "9000001", "section": SECTION})).json()
    assert "override" not in [one["code"] for one in found["findings"]]
    assert found["overrides"][0]["withdrawn_reason"] == "was a mistake"
    assert api.ledger.rows("select count(*) from history where tenant = %s and detail::text like '%%Miller%%'", TENANT) == [(0,)]


async def test_a_replay_of_the_section_opens_the_seats_of_overrides(api: Api) -> None:
    """Its members are those with an enrollment, and those whom only an override brought in."""
    await make(api)

    key = section_key(TENANT, "PSUNV", "1259", "1001")
    assert reopening.seats_of(api.ledger.connection, [key]) == {seat()}
    assert {one.person for one in reopening.persons_of(api.ledger.connection, [key])} == {"9000001"}
