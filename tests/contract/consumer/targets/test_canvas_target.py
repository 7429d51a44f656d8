"""The target contract over Canvas, and what is Canvas's alone, against the sandbox over real HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from services.consumer.targets.canvas.client import CanvasClient, Operation
from services.consumer.targets.canvas.target import CanvasTarget
from services.consumer.targets.port import (
    Concluded,
    Done,
    IdentityMismatch,
    NoPermission,
    NotThere,
    Observation,
    Presence,
    Refused,
    ServerFault,
    Throttled,
    Unknown,
    WrongShape,
)
from services.kit.credentials import SecretFile
from services.sandbox.canvas.server import CanvasServer
from tests.contract.consumer.targets.canvas_lab import CanvasLab, canvas_lab
from tests.contract.consumer.targets.target_contract import TargetContract, brought_to, whole_roster
from tests.drills.injectors.tls import Authority, front


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[CanvasLab]:
    async with canvas_lab(tmp_path) as lab:
        yield lab


class TestCanvas(TargetContract):
    """The promises of every target."""

    features = CanvasLab.features


async def test_no_call_in_a_whole_life_breaks_a_rule_of_canvas(lab: CanvasLab) -> None:
    """The sandbox notes what should never happen: a missing task, an invitation, a notification, a repeated POST."""
    seat = lab.seat()
    for state in ("active", "inactive", "active", "completed", "active", "deleted", "active", "inactive", "deleted"):
        await brought_to(lab, seat, state)
    assert lab.control.violations() == []
    assert [write["notify"] for write in lab.control.writes() if write["notify"]] == []


async def test_a_roster_leaves_out_what_canvas_puts_there_by_itself(lab: CanvasLab) -> None:
    lab.put(lab.seat("p1"), sis_import_id=7)
    lab.put(lab.seat("p2"))
    watched = lab.seat("p1")
    lab.put(lab.seat("parent", role="ObserverEnrollment"), associated_user=watched.lms_user)

    rows = {row.lms_user: row.observation for row in await whole_roster(lab)}

    assert {user: seen.sis_owned for user, seen in rows.items()} == {"p1": True, "p2": False}


async def test_a_token_that_may_not_read_sis_ids_gets_a_roster_without_them(lab: CanvasLab) -> None:
    lab.put(lab.seat("p1"))
    lab.control.token("enrollstream", permissions=["read_roster"])
    assert [row.lms_user for row in await whole_roster(lab)] == [None]


@pytest.mark.parametrize("person", ["E 1", "a/b", "ü.json", "%2F", "x?y#z", "日本"])
async def test_ids_with_any_character_reach_the_right_row(lab: CanvasLab, person: str) -> None:
    seat = lab.seat(person, f"S {person}")
    seen = await brought_to(lab, seat, "active")
    assert lab.state(seat) == "active"
    assert isinstance(await lab.target.write(seat, "deleted", seen), Done)


async def test_a_custom_role_is_sent_by_its_id_and_is_a_seat_of_its_own(lab: CanvasLab) -> None:
    lab.control.objects(roles=[{"name": "Auditor", "base_role_type": "StudentEnrollment"}])
    student, auditor = lab.seat(), lab.seat(role="Auditor")
    await brought_to(lab, student, "active")
    await brought_to(lab, auditor, "active")
    await brought_to(lab, student, "deleted")
    assert (lab.state(student), lab.state(auditor)) == ("deleted", "active")
    assert lab.rows(student) == 2


async def test_a_custom_role_goes_by_its_name_where_the_token_may_not_list_roles(lab: CanvasLab) -> None:
    lab.control.objects(roles=[{"name": "Auditor", "base_role_type": "StudentEnrollment"}])
    lab.control.token("enrollstream", permissions=["read_roster", "read_sis", "add_student_to_course"])
    auditor, ghost = lab.seat(role="Auditor"), lab.seat(role="Ghost")
    assert isinstance(await lab.target.write(auditor, "active", Observation("absent")), Done)
    assert lab.state(auditor) == "active"
    assert await lab.target.write(ghost, "active", Observation("absent")) == Refused("invalid_role")


async def test_an_unknown_role_is_refused_without_a_call(lab: CanvasLab) -> None:
    outcome = await lab.target.write(lab.seat(role="Ghost"), "active", Observation("absent"))
    assert outcome == Refused("unknown_role")
    assert lab.attempts() == 0


async def test_an_observer_is_bound_to_whom_they_observe(lab: CanvasLab) -> None:
    lab.seat("child1")
    lab.seat("child2")
    first = lab.seat("parent", role="ObserverEnrollment", associated_user="child1")
    second = lab.seat("parent", role="ObserverEnrollment", associated_user="child2")
    await brought_to(lab, first, "active")
    assert await lab.target.read(second) != await lab.target.read(first)


async def test_a_cross_listed_section_is_found_in_its_new_course(lab: CanvasLab) -> None:
    """The stored course id is stale: the delete meets a 404, the row is found by its id, and removed where it is."""
    seat = lab.seat()
    seen = await brought_to(lab, seat, "active")
    lab.control.objects(courses=[{"sis_course_id": "C-2"}])
    section = lab.control.objects(sections=[{"sis_section_id": "S-1", "course": "C-1"}])["sections"]["S-1"]
    target_course = lab.control.objects(courses=[{"sis_course_id": "C-2"}])["courses"]["C-2"]
    client = CanvasClient(lab.server.url, SecretFile(lab.token_file))
    await client.change("POST", f"sections/{section}/crosslist/{target_course}", Operation(5))
    await client.close()

    moved = await lab.target.write(seat, "deleted", seen)

    assert isinstance(moved, NotThere)
    assert moved.missing == "elsewhere"
    assert moved.observation is not None
    assert moved.observation.lms_course == str(target_course)
    assert isinstance(await lab.target.write(seat, "deleted", moved.observation), Done)
    assert lab.state(seat) == "deleted"


async def test_a_row_deleted_by_somebody_else_shows_as_deleted_behind_the_404(lab: CanvasLab) -> None:
    seat = lab.seat()
    seen = await brought_to(lab, seat, "active")
    await lab.target.write(seat, "deleted", seen)
    outcome = await lab.target.write(seat, "deleted", seen)
    assert isinstance(outcome, NotThere)
    assert outcome.observation is not None
    assert outcome.observation.state == "deleted"


async def test_a_row_is_looked_up_where_all_rows_are_whichever_account_is_ours(lab: CanvasLab) -> None:
    lab.control.objects(accounts=[{"sis_account_id": "LAW"}])
    client = CanvasClient(lab.server.url, SecretFile(lab.token_file))
    ours = CanvasTarget(client, "sis_account_id:LAW", 5)
    seat = lab.seat()
    seen = await brought_to(lab, seat, "active")
    await ours.write(seat, "deleted", seen)
    outcome = await ours.write(seat, "deleted", seen)
    await ours.close()
    assert isinstance(outcome, NotThere)
    assert outcome.observation is not None


async def test_a_reactivation_of_what_is_not_inactive_any_more_asks_to_look_again(lab: CanvasLab) -> None:
    seat = lab.seat()
    seen = await brought_to(lab, seat, "inactive")
    await brought_to(lab, seat, "active")
    assert await lab.target.write(seat, "active", seen) == NotThere("elsewhere")


async def test_dates_that_somebody_set_survive_a_reactivation(lab: CanvasLab) -> None:
    seat = lab.seat()
    dates = {"start_at": "2026-09-01T00:00:00Z", "end_at": "2027-01-01T00:00:00Z"}
    lab.control.objects(enrollments=[{"section": "S-1", "user": "p1", "state": "inactive", **dates}])
    await brought_to(lab, seat, "active")
    assert lab.control.roster("S-1")[0]["start_at"] is not None


async def test_a_concluded_course_is_said_so(lab: CanvasLab) -> None:
    seat = lab.seat()
    lab.control.objects(courses=[{"sis_course_id": "C-1", "state": "completed"}])
    assert await lab.target.write(seat, "active", Observation("absent")) == Concluded()


async def test_an_invitation_of_somebody_else_is_another_state_and_becomes_active(lab: CanvasLab) -> None:
    seat = lab.seat()
    lab.control.objects(enrollments=[{"section": "S-1", "user": "p1", "state": "invited"}])
    seen = await lab.target.read(seat)
    assert isinstance(seen, Observation)
    assert seen.state == "other"
    await brought_to(lab, seat, "active")


async def test_a_user_with_two_logins_is_recognised_by_either(lab: CanvasLab) -> None:
    lab.seat("first")
    lab.control.objects(users=[{"sis_user_id": "second", "also": "first"}])
    for login in ("first", "second"):
        await brought_to(lab, lab._seat(login, "S-1"), "active")
    assert len(lab.control.roster("S-1")) == 1


async def test_a_token_that_may_not_read_sis_ids_still_proves_whose_row_it_is(lab: CanvasLab) -> None:
    allowed = set(lab.control.token("enrollstream")["permissions"]) - {"read_sis", "manage_sis"}
    seat = lab.seat()
    lab.control.token("enrollstream", permissions=sorted(allowed))
    await brought_to(lab, seat, "active")
    lab.control.fault("other_user", endpoints=["enrollments.list"], count=1)
    lab.seat("p2")
    assert isinstance(await lab.target.read(seat), IdentityMismatch)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("html", WrongShape("not_json")),
        ("redirect", WrongShape("redirect")),
        ("empty", WrongShape("empty")),
        ("status", ServerFault("http_503")),
        ("throttled", Throttled()),
    ],
)
async def test_a_wrong_answer_confirms_nothing(lab: CanvasLab, kind: str, expected: object) -> None:
    seat = lab.seat()
    for fault in ("POST", "GET"):
        lab.control.fault(kind, methods=[fault], count=1)
    assert await lab.target.write(seat, "active", Observation("absent")) == expected
    assert await lab.target.read(seat) == expected


async def test_half_an_answer_is_unknown_to_a_change_and_a_fault_to_a_read(lab: CanvasLab) -> None:
    seat = lab.seat()
    for method in ("POST", "GET"):
        lab.control.fault("truncated", methods=[method], count=1)
    outcomes = [await lab.target.write(seat, "active", Observation("absent")), await lab.target.read(seat)]
    assert not any(isinstance(outcome, Done | Observation) for outcome in outcomes)


async def test_an_answer_about_another_person_confirms_nothing(lab: CanvasLab) -> None:
    seat = lab.seat()
    await brought_to(lab, lab.seat("p2"), "active")
    lab.control.fault("other_user", methods=["POST"], count=1)
    assert await lab.target.write(seat, "active", Observation("absent")) == IdentityMismatch("user")
    lab.control.fault("other_user", methods=["GET"], endpoints=["enrollments.list"], count=1)
    assert await lab.target.read(seat) == IdentityMismatch("user")


async def test_a_yes_whose_body_shows_the_old_state_is_not_what_was_wanted(lab: CanvasLab) -> None:
    seat = lab.seat()
    seen = await brought_to(lab, seat, "active")
    lab.control.fault("unchanged", methods=["DELETE"], count=1)
    outcome = await lab.target.write(seat, "deleted", seen)
    assert isinstance(outcome, Done)
    assert outcome.observation.state == "active"


async def test_a_change_that_cannot_be_verified_is_read_first_next_time(lab: CanvasLab) -> None:
    """The add was made; the check of whose row it is was throttled. That must not read as "nothing was changed"."""
    allowed = set(lab.control.token("enrollstream")["permissions"]) - {"read_sis", "manage_sis"}
    seat = lab.seat()
    lab.control.token("enrollstream", permissions=sorted(allowed))
    lab.control.fault("throttled", endpoints=["users.get"], count=1)
    assert await lab.target.write(seat, "active", Observation("absent")) == ServerFault("unverified")
    assert lab.state(seat) == "active"


async def test_the_token_never_follows_a_link_to_another_origin(lab: CanvasLab) -> None:
    with CanvasServer() as elsewhere:
        many_rows(lab)
        lab.control.fault("foreign_link", origin=elsewhere.url, endpoints=["enrollments.list"])
        assert await lab.target.read(lab.seat()) == WrongShape("foreign_link")
        assert elsewhere.control.calls()["total"] == 0


def many_rows(lab: CanvasLab) -> None:
    """More rows of one user in one section than a page holds."""
    lab.seat()
    roles = [{"name": f"Role {number:03}"} for number in range(101)]
    lab.control.objects(roles=roles, enrollments=[{"section": "S-1", "user": "p1", "role": role["name"]} for role in roles])


async def test_permission_is_not_a_throttle(lab: CanvasLab) -> None:
    seat = lab.seat()
    for status in (403, 401):
        lab.control.settings(unauthorized_status=status)
        lab.control.token("enrollstream", permissions=["read_roster", "read_sis"])
        assert await lab.target.write(seat, "active", Observation("absent")) == NoPermission(whole_token=False)
    lab.control.token("enrollstream", state="revoked")
    assert await lab.target.write(seat, "active", Observation("absent")) == NoPermission(whole_token=True)


async def test_a_rotated_token_is_read_again_once(lab: CanvasLab) -> None:
    """The file changes after the first token was read and before Canvas has looked at it."""
    seat = lab.seat()
    await lab.target.read(seat)
    lab.control.token("enrollstream", state="revoked")
    lab.control.token("next", secret="rotated")
    lab.token_file.write_text("rotated\n")
    assert await lab.target.read(seat) == Observation("absent")


async def test_a_missing_token_file_calls_nobody(lab: CanvasLab) -> None:
    lab.token_file.unlink()
    seat = lab.seat()
    lab.control.forget_calls()
    assert await lab.target.probe("user", seat.lms_user) == NoPermission(whole_token=True)
    assert lab.control.calls()["total"] == 0


async def test_nobody_there_is_a_fault_not_an_unknown(tmp_path: Path) -> None:
    """No connection could be made, so nothing was sent."""
    (tmp_path / "token").write_text("t")
    client = CanvasClient("http://127.0.0.1:9", SecretFile(tmp_path / "token"))
    target = CanvasTarget(client, "self", 1)
    outcome = await target.write(CanvasLab._seat("p1", "S-1"), "active", Observation("absent"))
    await target.close()
    assert outcome == ServerFault("unreachable")


@pytest.mark.parametrize(
    ("host", "age", "trusted", "code"),
    [
        ("localhost", timedelta(), True, "connection"),  # it is believed; behind it nobody answers
        ("localhost", timedelta(days=2), True, "certificate"),
        ("elsewhere.test", timedelta(), True, "certificate"),
        ("localhost", timedelta(), False, "certificate"),
    ],
    ids=["good", "expired", "another host's", "a stranger's"],
)
async def test_nothing_is_sent_to_whom_no_certificate_vouches_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, age: timedelta, trusted: bool, code: str
) -> None:
    known, stranger = Authority(tmp_path), Authority(tmp_path, "stranger")
    monkeypatch.setenv("SSL_CERT_FILE", str((known if trusted else stranger).file))
    heard: list[bytes] = []

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(100))
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0, ssl=front(known.issue(host, age=age)))
    (tmp_path / "token").write_text("t")
    client = CanvasClient(f"https://localhost:{server.sockets[0].getsockname()[1]}", SecretFile(tmp_path / "token"))
    target = CanvasTarget(client, "self", 5)
    outcome = await target.write(CanvasLab._seat("p1", "S-1"), "active", Observation("absent"))
    await target.close()
    server.close()
    sent = code != "certificate"
    assert outcome == (Unknown(code) if sent else ServerFault(code))
    assert bool(heard) == sent


async def test_a_broken_kept_alive_connection_does_not_repeat_a_delete(lab: CanvasLab) -> None:
    """The HTTP library repeats idempotent methods by itself; a change of unknown outcome must be read back instead."""
    seat = lab.seat()
    seen = await brought_to(lab, seat, "active")  # the connection is kept alive now
    before = lab.attempts()
    lab.befall("lost")
    assert isinstance(await lab.target.write(seat, "deleted", seen), Unknown)
    await asyncio.sleep(0.2)
    assert lab.attempts() == before + 1


async def test_a_dripping_answer_ends_at_the_deadline(lab: CanvasLab) -> None:
    seat = lab.seat()
    lab.control.fault("drip", methods=["POST"], count=1)
    assert isinstance(await lab.target.write(seat, "active", Observation("absent")), Unknown)


async def test_costs_and_what_remains_are_reported(lab: CanvasLab) -> None:
    outcome = await lab.target.read(lab.seat())
    assert outcome.usage.calls == 1
    assert outcome.usage.remaining is not None
    assert outcome.usage.cost is not None
    missing = await lab.target.read(lab.seat_without("user"))
    assert missing.usage.calls == 3


async def test_a_long_history_of_rows_is_read_to_its_end(lab: CanvasLab) -> None:
    """Paging: the seat's row need not be on the first page."""
    many_rows(lab)
    for number in (0, 50, 100):
        seen = await lab.target.read(lab.seat(role=f"Role {number:03}"))
        assert isinstance(seen, Observation)
        assert seen.state == "active"


async def test_probing_what_is_there(lab: CanvasLab) -> None:
    assert await lab.target.probe("user", lab.seat().lms_user) == Presence(True)
