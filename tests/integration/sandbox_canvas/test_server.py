"""The sandbox over the wire: throttle, write log, violations, control side."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from services.sandbox.canvas.server import CanvasServer
from tests.integration.sandbox_canvas.conftest import SECTION, Client


@pytest.mark.parametrize(("status", "mark", "fitting"), [(403, 600, 11), (429, 700, 13)])
def test_too_many_calls_at_once_are_refused_with_text(client: Client, status: int, mark: int, fitting: int) -> None:
    """With the leak switched off the wire shows the pure arithmetic: 50 held by each call in flight."""
    client.control.settings(
        latency_ms=1500, throttle={"refusal_status": status, "high_water_mark": mark, "outflow": 0, "cost": 0}
    )
    with ThreadPoolExecutor(fitting + 3) as pool:
        answers = list(pool.map(lambda _: client.http.get("users/self"), range(fitting + 3)))
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(refused) == 3
    for answer in refused:
        assert answer.status_code == status
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.text.endswith("(Rate Limit Exceeded)\n")
        assert "x-request-cost" not in answer.headers
    assert {float(answer.headers["x-request-cost"]) for answer in answers if answer not in refused} == {0}
    counted = {(item["endpoint"], item["status"]): item["count"] for item in client.control.calls()["calls"]}
    assert counted == {("users.get", "200"): fitting, ("users.get", str(status)): 3}
    assert client.control.calls()["max_in_flight"] == fitting + 1, "the refused ones were answered at once"


def test_even_a_bad_token_has_a_bucket_of_its_own(client: Client) -> None:
    client.control.settings(throttle={"cost": 590, "outflow": 0})
    assert client.http.get("users/self").status_code == 200
    assert client.http.get("users/self").status_code == 403
    assert client.http.get("users/self", headers={"Authorization": "Bearer other"}).status_code == 401


def test_a_blocked_token_is_refused_with_nothing_remaining_even_where_throttling_is_off(client: Client) -> None:
    """app/middleware/request_throttle.rb#allowed?: the one refusal that reads zero"""
    client.control.settings(throttle={"enabled": False, "blocked": ["enrollstream"]})
    refused = client.create()
    assert (refused.status_code, refused.text) == (403, "403 Forbidden (Rate Limit Exceeded)\n")
    assert (refused.headers["x-rate-limit-remaining"], "x-request-cost" in refused.headers) == ("0.0", False)
    assert client.states() == {}
    client.control.settings(throttle={"blocked": []})
    assert client.create().status_code == 200


def test_an_approved_token_is_never_refused(client: Client) -> None:
    """app/middleware/request_throttle.rb#allowed?"""
    client.control.settings(throttle={"cost": 590, "outflow": 0, "approved": ["enrollstream"]})
    assert [client.http.get("users/self").status_code for _ in range(3)] == [200, 200, 200]
    client.control.settings(throttle={"approved": []})
    assert client.http.get("users/self").status_code == 403


def test_every_attempt_is_logged_in_order_with_its_key_and_fate(client: Client) -> None:
    before = time.time()
    row = client.create("U1").json()
    client.create("U1")
    client.create("nobody")
    client.delete(row, task="delete")
    client.delete(row, task="delete")
    writes = client.control.writes()
    assert [write["seq"] for write in writes] == [1, 2, 3, 4, 5]
    assert [(write["before"], write["after"], write["applied"], write["status"], write["changed"]) for write in writes] == [
        (None, "active", True, 200, True),
        ("active", "active", True, 200, False),
        (None, None, False, 404, False),
        ("active", "deleted", True, 200, True),
        (None, None, False, 404, False),
    ]
    assert {(write["section"], write["user"]) for write in writes} == {("S1", "U1"), ("S1", "nobody")}
    assert all(write["answered"] and write["token"] == "enrollstream" for write in writes)
    assert before <= writes[0]["at"] <= writes[-1]["at"] <= time.time()
    assert client.control.writes(after=3) == writes[3:]
    assert len({write["request_id"] for write in writes}) == 5


def test_the_answer_carries_the_request_id_of_the_log(client: Client) -> None:
    answer = client.create()
    assert client.control.writes()[-1]["request_id"] == answer.headers["x-request-context-id"]


def test_what_must_never_be_sent_is_a_violation(client: Client) -> None:
    wanted = {"user_id": "sis_user_id:U1", "type": "StudentEnrollment", "enrollment_state": "active", "notify": "false"}
    row = client.http.post(SECTION, json={"enrollment": wanted}).json()
    client.delete(row, task="inactivate")
    assert client.control.violations() == []
    client.http.post(SECTION, json={"enrollment": wanted | {"notify": "true"}})
    client.http.post(SECTION, json={"enrollment": wanted | {"enrollment_state": ""}})
    client.delete(row)
    client.delete(row, task="drop")
    assert [(found["rule"], found["seq"]) for found in client.control.violations()] == [
        ("notify", 3),
        ("state", 4),
        ("task", 5),
        ("task", 6),
    ]


def test_two_rows_of_one_key_are_a_violation() -> None:
    """The world forbids it; were that broken, the check would say so."""
    with CanvasServer() as server:
        client = Client(server)
        client.control.users("U1")
        client.control.sections("S1", course="C1")
        client.create()
        world = server.canvas.world
        row = next(iter(world.enrollments.values()))
        world.add_enrollment(row.section, row.user, row.role, "active")
        client.create()
        assert [found["rule"] for found in client.control.violations()] == ["duplicate"]
        client.http.close()


def test_seeding_twice_changes_nothing(client: Client) -> None:
    kinds: dict[str, list[dict[str, Any]]] = {
        "terms": [{"sis_term_id": "F26"}],
        "courses": [{"sis_course_id": "C9", "term": "F26"}],
        "sections": [{"sis_section_id": "S9", "course": "C9"}],
        "users": [{"sis_user_id": "U9", "name": "Ada Lovelace"}],
        "enrollments": [{"section": "S9", "user": "U9", "sis_import_id": 3}],
    }
    assert client.control.objects(**kinds) == client.control.objects(**kinds)
    assert len(client.control.roster("S9")) == 1


def test_an_account_is_filled_interfered_with_and_compared(client: Client) -> None:
    control = client.control
    filled = control.populate(courses=1, sections=2, people=3, imported=4, manual=1, dated_every=0)
    assert len(control.dump()) == 5
    since = control.snapshot()
    touched = control.act("conclude", section=filled["sections"][0], user="P1")
    (change,) = control.changes(since, "updated_at", "completed_at")
    assert ([change["id"]], change["changed"]) == (touched, {"state": ["active", "completed"]})


@pytest.mark.parametrize(
    "kinds",
    [
        {"users": [{"sis_user_id": "U1", "nonsense": 1}]},
        {"sections": [{"sis_section_id": "S9", "course": "nowhere"}]},
        {"rubbish": []},
    ],
)
def test_a_seed_that_makes_no_sense_is_refused(client: Client, kinds: dict[str, list[dict[str, object]]]) -> None:
    with pytest.raises(httpx.HTTPStatusError) as caught:
        client.control.objects(**kinds)
    assert caught.value.response.status_code == 422


def test_the_clock_moves_effective_states(client: Client) -> None:
    client.control.objects(
        courses=[
            {
                "sis_course_id": "C1",
                "start_at": "2190-01-01T00:00:00Z",
                "end_at": "2190-06-01T00:00:00Z",
                "restrict_to_dates": True,
            }
        ]
    )
    client.create()
    seen = []
    for moment in ("2189-12-01T00:00:00Z", "2190-02-01T00:00:00Z", "2190-07-01T00:00:00Z"):
        client.control.clock(now=moment, frozen=True)
        seen.append(client.control.roster()[0]["effective_state"])
    assert seen == ["pending_active", "active", "completed"]
    assert client.control.roster()[0]["state"] == "active"


def test_another_token_may_less(client: Client) -> None:
    client.control.token("reader", secret="only-reading", permissions=["read_roster"])
    answer = client.create(headers={"Authorization": "Bearer only-reading"})
    assert answer.status_code == 403
    assert answer.json()["status"] == "unauthorized"
    assert client.control.writes()[-1]["token"] == "reader"


def test_counters_can_start_anew(client: Client) -> None:
    client.create()
    client.control.forget_calls()
    assert client.control.calls()["total"] == 0
