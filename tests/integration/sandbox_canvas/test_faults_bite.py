"""Self-test of the fault switches: a fault that silently does nothing makes every test that relies on it worthless."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable

import httpx
import pytest

from tests.integration.sandbox_canvas.conftest import SECTION, Client


def eventually(condition: Callable[[], bool]) -> bool:
    """Whether `condition` becomes true within five seconds."""
    deadline = time.monotonic() + 5
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_apply_then_reset_really_resets_and_really_applies(client: Client) -> None:
    fault = client.control.fault("reset", endpoints=["enrollments.create"], count=1)
    with pytest.raises(httpx.ReadError):
        client.create()
    assert client.control.bit(fault) == 1
    assert client.states() == {"U1": "active"}
    write = client.control.writes()[-1]
    assert (write["applied"], write["answered"], write["before"], write["after"], write["status"]) == (
        True,
        False,
        None,
        "active",
        None,
    )
    assert client.create().status_code == 200, "the next connection works"


def test_a_reset_is_a_reset_on_the_wire(client: Client) -> None:
    """RST, not FIN: the kernel reports ECONNRESET instead of an orderly end."""
    client.control.fault("reset", count=1)
    address = httpx.URL(client.server.url)
    with socket.create_connection((address.host, address.port or 80), timeout=5) as connection:
        connection.sendall(b"GET /api/v1/users/self HTTP/1.1\r\nHost: x\r\n\r\n")
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


def test_a_reset_may_come_before_the_change(client: Client) -> None:
    client.control.fault("reset", methods=["POST"], apply=False, count=1)
    with pytest.raises(httpx.ReadError):
        client.create()
    assert client.states() == {}
    assert client.control.writes()[-1]["applied"] is False


@pytest.mark.parametrize(("apply", "states"), [(False, {}), (True, {"U1": "active"})])
def test_a_hang_answers_never_and_applies_only_if_told_to(client: Client, apply: bool, states: dict[str, str]) -> None:
    fault = client.control.fault("hang", apply=apply, endpoints=["enrollments.create"])
    with pytest.raises(httpx.ReadTimeout):
        client.create(timeout=0.3)
    assert eventually(lambda: client.control.bit(fault) == 1)  # the client may have given up before the server has even heard
    assert eventually(lambda: client.states() == states)
    assert client.control.writes()[-1]["answered"] is False


def test_a_hung_call_holds_its_place_in_the_bucket_until_the_client_gives_up(client: Client) -> None:
    client.control.fault("hang", count=1)
    with pytest.raises(httpx.ReadTimeout):
        client.http.get("users/self", timeout=0.3)

    def free_again() -> bool:
        return float(client.http.get("users/self").headers["X-Rate-Limit-Remaining"]) > 590

    assert eventually(free_again)


def test_a_client_that_gave_up_is_applied_late_and_logged_as_unanswered(client: Client) -> None:
    """The late POST: the call was cancelled by the client long before it takes effect."""
    client.control.fault("latency", ms=1_000, count=1)
    with pytest.raises(httpx.ReadTimeout):
        client.create(timeout=0.1)
    assert client.states() == {}
    assert eventually(lambda: client.states() == {"U1": "active"})
    assert eventually(lambda: client.control.writes()[-1]["status"] == 200)
    assert client.control.writes()[-1]["answered"] is False


def test_latency_delays_every_call(client: Client) -> None:
    client.control.settings(latency_ms=60, jitter_ms=20)
    started = time.monotonic()
    assert client.http.get("users/self").status_code == 200
    assert time.monotonic() - started >= 0.06


@pytest.mark.parametrize("status", [500, 502, 503])
def test_a_server_fault_applies_nothing_and_ends_with_its_count(client: Client, status: int) -> None:
    fault = client.control.fault("status", status=status, count=2)
    assert [client.create().status_code for _ in range(3)] == [status, status, 200]
    assert client.control.bit(fault) == 2
    assert [write["applied"] for write in client.control.writes()] == [False, False, True]
    assert [write["fault"] for write in client.control.writes()] == ["status", "status", None]


def test_a_server_fault_ends_with_its_time(client: Client) -> None:
    client.control.fault("status", for_seconds=0.2)
    assert client.http.get("users/self").status_code == 503
    assert eventually(lambda: client.http.get("users/self").status_code == 200)


def test_one_person_may_fail_alone_with_any_body(client: Client) -> None:
    client.control.fault("status", status=400, body={"errors": {"user_id": []}}, user="U1", methods=["POST"])
    assert (client.create("U1").status_code, client.create("U2").status_code) == (400, 200)
    assert client.http.get("users/sis_user_id:U1").status_code == 200


def test_a_fault_on_a_person_hits_deletes_and_reads_too(client: Client) -> None:
    row = client.create("U1").json()
    client.control.fault("status", user="U1")
    assert client.delete(row, task="delete").status_code == 503
    assert client.http.get(SECTION, params={"user_id": "sis_user_id:U1"}).status_code == 503
    assert client.http.get(SECTION, params={"user_id": "sis_user_id:U2"}).status_code == 200


def test_a_maintenance_page_is_html_with_200_and_nothing_behind_it(client: Client) -> None:
    client.control.fault("html")
    answer = client.create()
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert client.states() == {}


def test_a_login_redirect_is_a_302(client: Client) -> None:
    client.control.fault("redirect")
    answer = client.create()
    assert (answer.status_code, answer.headers["location"]) == (302, "/login")


def test_an_empty_200_has_no_body(client: Client) -> None:
    client.control.fault("empty", apply=True)
    answer = client.create()
    assert (answer.status_code, answer.content) == (200, b"")
    assert client.states() == {"U1": "active"}


def test_a_truncated_answer_is_no_json_but_was_applied(client: Client) -> None:
    client.control.fault("truncated")
    answer = client.create()
    assert answer.status_code == 200
    with pytest.raises(json.JSONDecodeError):
        answer.json()
    assert client.states() == {"U1": "active"}


def test_the_answer_may_speak_of_somebody_else(client: Client) -> None:
    client.control.fault("other_user", count=2)
    answer = client.create("U1")
    assert answer.status_code == 200
    assert answer.json()["sis_user_id"] != "U1"
    listed = client.http.get(SECTION).json()[0]
    assert listed["sis_user_id"] != "U1"
    assert listed["user"]["sis_user_id"] != "U1"
    assert client.states() == {"U1": "active"}


@pytest.mark.parametrize(("kind", "shown"), [("unchanged", "active"), ("pretend", "deleted")])
def test_a_200_may_hide_that_nothing_changed(client: Client, kind: str, shown: str) -> None:
    row = client.create().json()
    client.control.fault(kind, methods=["DELETE"])
    answer = client.delete(row, task="delete")
    assert (answer.status_code, answer.json()["enrollment_state"]) == (200, shown)
    assert client.states() == {"U1": "active"}
    assert client.control.writes()[-1]["applied"] is False


def test_a_create_that_was_not_kept_leaves_no_row(client: Client) -> None:
    client.control.fault("pretend", count=1)
    assert client.create().json()["enrollment_state"] == "active"
    assert client.control.roster() == []
    assert client.create().status_code == 200
    assert client.states() == {"U1": "active"}


def test_a_drip_takes_its_time(client: Client) -> None:
    client.control.fault("drip", bytes_per_second=10)
    with client.http.stream("GET", "users/self") as answer:
        assert len(next(answer.iter_raw())) < 5


def test_a_foreign_link_points_elsewhere(client: Client) -> None:
    client.create("U1")
    client.create("U2")
    client.control.fault("foreign_link", origin="http://evil.invalid")
    link = client.http.get(SECTION, params={"per_page": 1}).headers["link"]
    assert link.count("<http://evil.invalid/api/v1/sections/") == link.count("rel=")


def test_a_throttled_call_looks_like_a_real_refusal(client: Client) -> None:
    client.control.settings(throttle={"refusal_status": 429})
    client.control.fault("throttled", count=1)
    answer = client.create()
    assert (answer.status_code, answer.text) == (429, "429 Too Many Requests (Rate Limit Exceeded)\n")
    assert "x-request-cost" not in answer.headers
    assert float(answer.headers["x-rate-limit-remaining"]) > 0
    assert client.states() == {}


def test_a_revoked_token_stops_working_and_comes_back(client: Client) -> None:
    client.control.token("enrollstream", state="revoked")
    assert client.create().status_code == 401
    client.control.token("enrollstream", state="active")
    assert client.create().status_code == 200


def test_healing_removes_every_fault(client: Client) -> None:
    client.control.fault("status")
    client.control.heal()
    assert client.create().status_code == 200
    assert client.control.faults() == []
