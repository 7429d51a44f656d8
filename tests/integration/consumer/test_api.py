"""The operations API: who may call, what is refused, and one audit row for every call."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.keys import enrollment_key
from services.consumer.api.desk import Answer, json_answer
from services.consumer.ledger import replays
from services.consumer.ledger.replay_scopes import Scope
from services.consumer.ledger.replays import Judged, Order, Range
from services.kit.postgres import Connection
from tests.integration.consumer.api_support import MAX_RECORDS, Api
from tests.integration.consumer.ledger_support import Ledger, enrollment

TOPIC = "test.enrollment.v1"


@pytest.fixture
def api(database_url: str, tmp_path: Path) -> Iterator[Api]:
    ledger = Ledger(database_url)
    yield Api(ledger, tmp_path)
    ledger.close()


def order(**changes: Any) -> dict[str, Any]:
    return {"scope": {"offsets": {"topic": TOPIC, "partition": 0, "from": 12, "to": 20} | changes}}


async def test_a_plan_is_accepted_stored_audited_and_announced(api: Api) -> None:
    answer = await api.call("POST", "/replays", json=order() | {"verify": True})

    assert answer.status_code == 202
    replay = answer.json()["replay"]
    assert answer.headers["location"] == f"/replays/{replay}"
    assert answer.json() | {"created_at": ""} == {
        "replay": replay,
        "scope": order()["scope"],
        "verify": True,
        "dry_run": True,
        "plan": None,
        "applied_by": None,
        "state": "running",
        "reason": None,
        "done": 0,
        "total": 9,
        "ranges": [{"topic": TOPIC, "partition": 0, "from": 12, "to": 20, "next": 12}],
        "digest": None,
        "changes": None,
        "actor": "ops",
        "created_at": "",
        "finished_at": None,
    }
    assert api.audit() == [("ops", "replay.plan", "done", order() | {"verify": True, "replay": replay})]
    assert api.wakes == 1
    assert api.count("replay.plan", "done") == 1


async def test_a_range_is_cut_at_the_end_of_the_log(api: Api) -> None:
    answer = await api.call("POST", "/replays", json=order(to=500))

    assert (answer.json()["ranges"][0]["to"], answer.json()["total"]) == (49, 38)


def times(since: str, until: str) -> dict[str, Any]:
    return {"scope": {"times": {"topic": TOPIC, "since": since, "until": until}}}


async def test_times_become_the_offsets_of_all_partitions(api: Api) -> None:
    answer = await api.call("POST", "/replays", json=times("2026-09-01T10:00:30+02:00", "2026-09-02T00:00:00Z"))

    assert answer.status_code == 202
    assert answer.json()["ranges"] == [{"topic": TOPIC, "partition": 0, "from": 10, "to": 49, "next": 10}]


@pytest.mark.parametrize(
    ("body", "pointer", "reason"),
    [
        (order(topic="test.marker.v1"), "/scope/offsets/topic", "unknown_topic"),
        (order(topic="somebody.else"), "/scope/offsets/topic", "unknown_topic"),
        (order(partition=7), "/scope/offsets/partition", "unknown_partition"),
        (order(partition=-1), "/scope/offsets/partition", "invalid"),
        (order(partition=True), "/scope/offsets/partition", "invalid"),
        (order(**{"from": -1}), "/scope/offsets/from", "invalid"),
        (order(**{"from": "12"}), "/scope/offsets/from", "invalid"),
        (order(to=2**63), "/scope/offsets/to", "invalid"),
        (order(**{"from": 30}), "/scope/offsets", "invalid"),
        (order(**{"from": 50}, to=60), "/scope/offsets/from", "after_the_end"),
        (order(student=9000001), "/scope/offsets", "invalid"),
        ({"scope": {"offsets": {"topic": TOPIC, "partition": 0, "to": 3}}}, "/scope/offsets/from", "invalid"),
        (times("2026-09-01T08:00:00", "2026-09-02T08:00:00Z"), "/scope/times/since", "invalid"),
        (times("2026-09-02T08:00:00Z", "2026-09-01T08:00:00Z"), "/scope/times", "invalid"),
        (times("2026-08-01T08:00:00Z", "2026-09-01T08:00:00Z"), "/scope/times", "no_records"),
        ({"scope": {"person": {"person": ""}}}, "/scope/person/person", "invalid"),
        ({"scope": {"person": {"person": "9000001", "student": "9000001"}}}, "/scope/person", "invalid"),
        ({"scope": {"key": {"kind": "student", "key": "9000001"}}}, "/scope/key/kind", "invalid"),
        ({"scope": {"term": {"institution": "PSUNV"}}}, "/scope/term/term", "invalid"),
        ({"scope": {}}, "/scope", "invalid"),
        ({"scope": {"person": None}}, "/scope", "invalid"),
        ({"scope": {"person": {"person": "9000001"}, "dead_letters": {"class": "refused"}}}, "/scope", "invalid"),
        ({"verify": True}, "/scope", "invalid"),
        ([], "", "invalid"),
    ],
)
async def test_what_is_not_valid_is_named_refused_and_audited(api: Api, body: Any, pointer: str, reason: str) -> None:
    answer = await api.call("POST", "/replays", json=body)

    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert "9000001" not in answer.text
    assert "student" not in answer.text
    assert api.audit() == [("ops", "replay.plan", "refused", {"reason": reason})]
    assert api.ledger.rows("select from replay") == []
    assert api.wakes == 0


async def test_a_scope_of_more_than_one_replay_may_have_is_refused_and_audited(api: Api) -> None:
    api.ledger.take(*(enrollment(version=n + 1, person=f"9{n:06}") for n in range(MAX_RECORDS + 1)))
    asked = {"scope": {"term": {"tenant": "main", "institution": "PSUNV", "term": "1259"}}, "verify": False}

    answer = await api.call("POST", "/replays", json=asked)

    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"pointer": "/scope/term", "detail": "1001 offsets or seats are more than 1000; plan parts of it"}
    ]
    assert api.audit() == [("ops", "replay.plan", "refused", asked | {"reason": "scope_too_large"})]
    assert api.ledger.rows("select from replay") == []


async def test_a_body_that_is_no_json_or_too_long_is_refused(api: Api) -> None:
    assert (await api.call("POST", "/replays", content=b"{9000001")).status_code == 422
    assert (await api.call("POST", "/replays", content=b" " * 20_000)).status_code == 413
    assert [row[:3] for row in api.audit()] == [("ops", "replay.plan", "refused")] * 2


async def test_without_kafka_nothing_is_stored(api: Api) -> None:
    api.log.away = True

    answer = await api.call("POST", "/replays", json=order())

    assert answer.status_code == 503
    assert api.audit() == [("ops", "replay.plan", "refused", {"reason": "log_unavailable"})]
    assert api.ledger.rows("select from replay") == []


CALLS = [
    ("POST", "/replays", {"json": order()}),
    ("POST", "/replays", {"json": {"scope": {"person": {"person": "9000001"}}}}),
    ("GET", "/replays", {}),
    ("GET", f"/replays/{uuid.UUID(int=1)}", {}),
    ("GET", f"/replays/{uuid.UUID(int=1)}/changes", {}),
    ("POST", f"/replays/{uuid.UUID(int=1)}/apply", {"json": {"digest": "0" * 64}}),
    ("POST", f"/replays/{uuid.UUID(int=1)}/cancel", {}),
    ("GET", "/intake/stops", {}),
    ("GET", "/intake/parked", {}),
    ("POST", "/intake/resume", {"json": {}}),
    ("POST", "/trace", {"json": {"person": "9000001", "section": {"institution": "I", "term": "T", "section": "S"}}}),
]


@pytest.mark.parametrize(("method", "path", "request_"), CALLS)
@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Bearer ", "Basic b3BzOm9wcy1zZWNyZXQ=", "ops-secret"])
async def test_who_proves_nothing_gets_nothing(
    api: Api, method: str, path: str, request_: Any, authorization: str | None
) -> None:
    headers = {"Authorization": authorization} if authorization else {}

    answer = await api.call(method, path, None, headers=headers, **request_)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {"type": "about:blank", "title": "Unauthorized", "status": 401}
    assert api.audit() == []
    assert api.ledger.rows("select from replay") == []


async def test_a_stranger_is_refused_before_the_body_is_looked_at(api: Api) -> None:
    assert (await api.call("POST", "/replays", "wrong", content=b" " * 20_000)).status_code == 401


@pytest.mark.parametrize(("method", "path", "request_"), CALLS)
async def test_unreadable_credentials_let_nobody_in(api: Api, method: str, path: str, request_: Any) -> None:
    api.credentials.unlink()

    assert (await api.call(method, path, **request_)).status_code == 503


@pytest.mark.parametrize(("method", "path", "request_"), CALLS)
async def test_every_call_leaves_exactly_one_audit_row_with_its_actor(api: Api, method: str, path: str, request_: Any) -> None:
    await api.call(method, path, "desk-secret", **request_)

    assert [row[0] for row in api.audit()] == ["desk"]


SHOWS_NOBODY = [
    "/holds",
    "/removals",
    "/intake/stops",
    "/comparisons",
    "/agreement",
    "/seats/summary",
    "/dead-letters",
    "/writing",
]


@pytest.mark.parametrize(("method", "path", "request_"), [call for call in CALLS if call[1] not in SHOWS_NOBODY])
async def test_a_call_that_cannot_be_audited_is_refused_and_does_nothing(api: Api, method: str, path: str, request_: Any) -> None:
    api.ledger.connection.execute("alter table audit add constraint broken check (actor is null) not valid")

    answer = await api.call(method, path, **request_)

    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert api.ledger.rows("select from replay") == []
    assert "9000001" not in answer.text


@pytest.mark.parametrize("path", SHOWS_NOBODY)
async def test_how_things_stand_is_told_without_an_audit(api: Api, path: str) -> None:
    told = await api.call("GET", path)
    api.ledger.connection.execute("alter table audit add constraint broken check (actor is null) not valid")

    answer = await api.call("GET", path)

    assert (answer.status_code, answer.json()) == (200, told.json())
    assert len(api.audit()) == 1


async def test_a_read_writes_nothing(api: Api) -> None:
    def work(connection: Connection) -> Answer:
        connection.execute("insert into guard (target) values ('canvas')")
        return json_answer({}, {})

    answer = await api.desk.look("ops", "removals.read", work)

    assert answer.status_code == 503
    assert api.ledger.rows("select from guard") == []


@pytest.mark.parametrize(("method", "path", "request_"), CALLS)
async def test_no_answer_may_be_stored_on_the_way(api: Api, method: str, path: str, request_: Any) -> None:
    for secret in ("ops-secret", "wrong"):
        assert (await api.call(method, path, secret, **request_)).headers["cache-control"] == "no-store"


def stored(api: Api) -> str:
    """A replay of the offsets 0 to 9 with a verdict for each."""
    scope = Scope.model_validate({"offsets": {"topic": TOPIC, "partition": 0, "from": 0, "to": 9}})
    place = Range(TOPIC, "id", 0, 0, 9, 0)
    replay = replays.create(api.ledger.connection, Order(scope, [place], dry_run=False, verify=False), "ops")
    key = enrollment_key("main", "PSUNV", "1259", "1001", "9000001", "learner")
    judged = [Judged(n, "superseded", None, key, 100 + n, 200, 77) for n in range(9)]
    replays.add_lines(api.ledger.connection, replay, 1, [*judged, Judged(9, "undecodable", "not_json")], 0)
    return str(replay)


async def test_a_report_counts_the_verdicts_and_pages_the_offsets(api: Api) -> None:
    replay = stored(api)

    first = (await api.call("GET", f"/replays/{replay}?limit=6")).json()
    rest = (await api.call("GET", f"/replays/{replay}?limit=6&after={first['next_after']}")).json()

    assert first["verdicts"] == rest["verdicts"] == {"superseded": 9, "undecodable": 1}
    assert [line["offset"] for line in first["lines"] + rest["lines"]] == list(range(10))
    assert rest["next_after"] is None
    assert first["lines"][0] == {
        "line": 1,
        "partition": 0,
        "offset": 0,
        "verdict": "superseded",
        "reason": None,
        "kind": "enrollment",
        "version": 100,
        "superseded_by": {"version": 200, "offset": 77},
    }
    assert rest["lines"][-1]["reason"] == "not_json"


async def test_a_report_names_nobody(api: Api) -> None:
    assert "9000001" not in (await api.call("GET", f"/replays/{stored(api)}")).text


@pytest.mark.parametrize("query", ["limit=0", "limit=1001", "limit=x", "limit=", "after=-1", "after=1.5", "after=" + "9" * 30])
async def test_a_page_outside_its_bounds_is_refused(api: Api, query: str) -> None:
    answer = await api.call("GET", f"/replays/{stored(api)}?{query}")

    assert answer.status_code == 422
    assert answer.json()["errors"][0]["parameter"] == query.partition("=")[0]
    assert [row[1:3] for row in api.audit()] == [("replay.read", "refused")]


@pytest.mark.parametrize("name", [str(uuid.UUID(int=7)), "9000001", "%00"])
async def test_an_unknown_replay_is_not_found(api: Api, name: str) -> None:
    answer = await api.call("GET", f"/replays/{name}")

    assert answer.status_code == 404
    assert "9000001" not in answer.text
    assert api.audit() == [("ops", "replay.read", "not_found", {})]


async def test_the_list_shows_the_newest_first(api: Api) -> None:
    old = stored(api)
    api.ledger.connection.execute("update replay set state = 'done', finished_at = now()")
    new = (await api.call("POST", "/replays", json=order())).json()["replay"]

    listed = (await api.call("GET", "/replays")).json()["replays"]

    assert [one["replay"] for one in listed] == [new, old]
    assert [one["state"] for one in listed] == ["running", "done"]
