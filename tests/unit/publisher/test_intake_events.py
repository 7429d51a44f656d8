"""``POST /intake/events``: canonical JSON, taken whole or not at all."""

from __future__ import annotations

from typing import Any

import httpx
import orjson
import pytest

from services.publisher.changes import Unavailable
from tests.unit.publisher.intake_support import LIMIT, Intake

PATH = "/intake/events"


def event(**members: Any) -> dict[str, Any]:
    base = {"kind": "enrollment", "institution": "NORTH", "term": "2267", "section": "26191", "person": "0090001"}
    return base | {"status": "enrolled", "role": "student"} | members


async def post(intake: Intake, body: Any) -> httpx.Response:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    async with intake.client() as client:
        return await client.post(PATH, content=content)


async def pointers(body: Any, status: int = 422) -> list[str]:
    """Where the problems are; nothing may have been taken."""
    intake = Intake()
    response = await post(intake, body)
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.status_code, intake.mirror.accepted) == (status, [])
    assert response.json()["status"] == status
    return [error["pointer"] for error in response.json()["errors"]]


@pytest.mark.parametrize("body", [event(), [event()], {"events": [event()]}], ids=["one", "array", "batch"])
async def test_one_event_or_many_are_taken_with_a_receipt(body: Any) -> None:
    intake = Intake()
    response = await post(intake, body)
    assert response.status_code == 200
    receipt = response.json()
    assert receipt.pop("receipt")
    assert receipt == {"changed": 1, "unchanged": 0, "ambiguous": 0, "events": 1}
    (change,) = intake.mirror.accepted
    assert (change.record, change.row_key) == ("canonical.enrollment", "NORTH/0090001/learner/26191/2267")
    assert change.order.channel == "events:campus"
    assert intake.requests("events", "accepted") == 1


async def test_repeating_a_request_changes_nothing() -> None:
    intake = Intake()
    body = event(sequence=7, occurred_at="2026-11-23T08:15:30-06:00")
    await post(intake, body)
    assert (await post(intake, body)).json()["unchanged"] == 1
    (change,) = intake.mirror.accepted
    assert change.order.position == 7
    assert change.order.as_of_from is not None


@pytest.mark.parametrize(
    ("members", "pointer"),
    [
        ({"kind": "student"}, "/kind"),
        ({"kind": None}, "/kind"),
        ({"person": 90001}, "/person"),
        ({"person": ""}, "/person"),
        ({"person": "a\u0000b"}, "/person"),
        ({"person": "x" * 256}, "/person"),
        ({"status": "active"}, "/status"),
        ({"status": None}, ""),
        ({"role": "teacher"}, "/role"),
        ({"role": "other"}, ""),
        ({"role": "student", "role_family": "staff"}, ""),
        ({"effective_date": 20261123}, "/effective_date"),
        ({"effective_date": "23.11.2026"}, "/effective_date"),
        ({"occurred_at": "2026-11-23T08:15:30"}, "/occurred_at"),
        ({"occurred_at": 1795443330}, "/occurred_at"),
        ({"occurred_at": "2999-01-01T00:00:00Z"}, "/occurred_at"),
        ({"occurred_at": "0001-01-01T00:00:00+01:00"}, "/occurred_at"),
        ({"sequence": "7"}, "/sequence"),
        ({"sequence": -1}, "/sequence"),
        ({"sequence": 2**63}, "/sequence"),
        ({"deleted": "yes"}, "/deleted"),
        ({"effectve_date": "2026-11-23"}, "/effectve_date"),
        ({"display_name": "June"}, "/display_name"),
        ({"a/b~c": 1}, "/a~1b~0c"),
        ({"person": "😀" * 90}, ""),
    ],
)
async def test_a_bad_member_is_named_by_its_pointer(members: dict[str, Any], pointer: str) -> None:
    assert await pointers(event(**members)) == [pointer]
    assert await pointers([event(), event(**members)]) == [f"/1{pointer}"]
    assert await pointers({"events": [event(**members)]}) == [f"/events/0{pointer}"]


async def test_every_bad_item_is_named_and_nothing_is_taken() -> None:
    assert await pointers([event(), event(role="x"), 5, event(), event(status="x")]) == ["/1/role", "/2", "/4/status"]


@pytest.mark.parametrize("value", ["Erika Mustermann", "0090001x"])
async def test_problems_never_quote_a_value(value: str) -> None:
    intake = Intake()
    bad = {"status": value, "role": value, "kind": value, "effective_date": value, "occurred_at": value, "sequence": value}
    for name, text in bad.items():
        response = await post(intake, event(**{name: text}))
        assert response.status_code == 422
        assert value not in response.text


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b'{"kind": NaN}',
        b'{"sequence": Infinity}',
        b'{"kind": "person", "kind": "term"}',
        b'[{"a": {"b": 1, "b": 1}}]',
        b"[" * 100_000,
        b'{"sequence": ' + b"9" * 5000 + b"}",
    ],
)
async def test_what_is_not_json_is_a_bad_request(body: bytes) -> None:
    assert await pointers(body, status=400) == [""]


@pytest.mark.parametrize(("body", "pointer"), [([], ""), ({"events": []}, "/events"), ({"events": {}}, "/events"), (5, "")])
async def test_what_holds_no_event_is_refused(body: Any, pointer: str) -> None:
    assert await pointers(body) == [pointer]


async def test_a_batch_says_nothing_beside_its_events() -> None:
    assert await pointers({"events": [event()], "dry_run": True}) == [""]


async def test_too_many_events_are_too_large() -> None:
    assert await pointers([event()] * 501, status=413) == [""]
    intake = Intake()
    assert (await post(intake, [event(person=str(number)) for number in range(500)])).status_code == 200
    assert len(intake.mirror.accepted) == 500


async def test_the_number_of_problems_in_an_answer_is_bounded() -> None:
    assert len(await pointers([event(role="x")] * 500)) == 100


async def test_too_large_a_body_is_refused() -> None:
    intake = Intake()
    response = await post(intake, b"x" * (LIMIT + 1))
    assert (response.status_code, intake.requests("events", "too_large")) == (413, 1)


async def test_wrong_credentials_are_refused() -> None:
    intake = Intake()
    async with intake.client() as client:
        response = await client.post(PATH, json=event(), headers={"authorization": "Basic wrong"})
    assert (response.status_code, intake.requests("events", "rejected_auth")) == (401, 1)
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("error", [Unavailable("database"), RuntimeError("a defect")])
async def test_what_could_not_be_made_durable_is_asked_for_again(error: Exception) -> None:
    intake = Intake()
    intake.mirror.fails_with = error
    response = await post(intake, event())
    assert (response.status_code, intake.requests("events", "unavailable")) == (503, 1)
    assert int(response.headers["retry-after"]) > 0


async def test_schema_errors_are_counted() -> None:
    intake = Intake()
    await post(intake, event(role="x"))
    assert intake.requests("events", "rejected_schema") == 1


async def test_null_clears_and_an_absent_member_says_nothing() -> None:
    intake = Intake()
    await post(intake, [event(effective_date=None), event(person="2")])
    cleared, silent = intake.mirror.accepted
    assert cleared.columns["effective_date"] == ""
    assert "effective_date" not in silent.columns


async def test_a_deletion_needs_the_ids_and_the_family_only() -> None:
    intake = Intake()
    ids = {"kind": "enrollment", "institution": "NORTH", "term": "2267", "section": "26191", "person": "1", "deleted": True}
    assert (await post(intake, ids)).status_code == 422
    assert (await post(intake, ids | {"role_family": "staff"})).status_code == 200
    (change,) = intake.mirror.accepted
    assert (change.deleted, change.columns, change.row_key) == (True, {}, "NORTH/1/staff/26191/2267")


@pytest.mark.parametrize(
    "body",
    [
        {"kind": "person", "person": "1", "display_name": "June Quist"},
        {"kind": "section", "institution": "N", "term": "1", "section": "2"},
        {"kind": "course", "institution": "N", "course": "c", "subject": None},
        {"kind": "term", "institution": "N", "term": "1", "start_date": "2026-09-01", "end_date": "2026-12-18"},
        event(role="other", role_family="staff"),
    ],
)
async def test_every_kind_is_understood(body: dict[str, Any]) -> None:
    intake = Intake()
    assert (await post(intake, body)).status_code == 200
    assert intake.mirror.accepted[0].record == f"canonical.{body['kind']}"
