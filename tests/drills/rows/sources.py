"""The publisher's sources: what they send that is new, wrong, nothing at all, or too much at once."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

import httpx

from services.consumer.policy.model import default_text
from services.sandbox.demo.system import INTAKE_USER
from services.sandbox.sis import extract
from services.sandbox.sis.client import Delivery, Poster
from services.sandbox.sis.messages import Message, RowChange
from services.sandbox.sis.rowset import NODE
from services.sandbox.sis.school import INSTITUTION
from services.sandbox.sis.truth import STUDENT, Seat, section_id
from tests.drills.catalogue import drill
from tests.drills.rows.people import post
from tests.drills.world import World, lasting
from tests.e2e.arena import announced, dropped, enrolled, eventually, one_class
from tests.plain_http import NO_TLS
from tests.policies import unguarded


def _announce(world: World, class_nbr: str, people: Sequence[str]) -> None:
    """A class with a key of its own, which Canvas and everybody know."""
    school_class = replace(one_class(world.canvas, people, class_nbr), course_id=f"0{class_nbr}")
    post(world, announced(school_class), operation="ZZ_CLASS_SYNC")


def _active(world: World, section: str) -> set[str]:
    return {row["user"] for row in world.canvas.roster(section) if row["state"] == "active"}


# --- a new release of the SIS ----------------------------------------------------------------------------------------


@drill(
    "P11",
    "a new field and an unknown code, as after an upgrade of the SIS",
    "one message amid traffic: a row with a field that nobody knows, one with a status letter that nobody knows, one as always",
)
def p11(world: World) -> None:
    class_nbr, people = "99911", ["9701101", "9701102", "9701103"]
    more, strange, plain = people
    _announce(world, class_nbr, people)
    before = _quarantined(world)
    with world.traffic() as traffic:
        traffic.reach(0.3)
        rows = [enrolled(more, class_nbr, SSR_NEW_FLAG="Z7"), enrolled(strange, class_nbr, STDNT_ENRL_STATUS="Q")]
        assert world.arena.post(*rows, enrolled(plain, class_nbr), timeout_seconds=60).status_code == HTTPStatus.OK
        for emplid in (more, plain):
            seat = Seat(section_id(class_nbr), emplid, STUDENT)
            eventually(lambda seat=seat: world.arena.state(seat) == "active", 60, "the others of the message arrive")  # type: ignore[misc]
        assert world.arena.state(Seat(section_id(class_nbr), strange, STUDENT)) is None
    assert world.arena.mirror("select count(*) from source_row where columns ? 'SSR_NEW_FLAG'") == [(0,)]
    [(reason, detail)] = world.arena.mirror("select reason, detail from quarantine order by at desc limit 1")
    assert (reason, detail.endswith("STDNT_ENRL_STATUS")) == ("unknown_code", True)
    world.seen |= {"in quarantine": _quarantined(world) - before, "reason": reason}
    post(world, enrolled(strange, class_nbr))  # what a new release, or the site, makes of it
    eventually(lambda: _active(world, section_id(class_nbr)) == set(people), 60, "the row that was put aside is sent again")
    assert world.arena.post(*(dropped(emplid, class_nbr) for emplid in people)).status_code == HTTPStatus.OK
    eventually(world.arena.settled, 90, "nothing is left to do")


def _quarantined(world: World) -> int:
    return int(world.arena.mirror("select count(*) from quarantine")[0][0])


# --- extracts that are wrong -----------------------------------------------------------------------------------------


@drill(
    "P12",
    "extracts that are empty, cut off, miscounted, without their id column, or half",
    "such files posted amid traffic, about a term of 40 people; then a right one that lacks one of them",
    smoke=True,
)
def p12(world: World) -> None:
    term, class_nbr = "1279", "99912"
    section, people = f"{INSTITUTION}-{term}-{class_nbr}", [f"97012{number:02}" for number in range(40)]
    rows = [enrolled(emplid, class_nbr, STRM=term) for emplid in people]
    whole = extract.enrollments(rows)
    world.canvas.sections(section, course=f"{term}-009912")
    world.canvas.users(*people, "9701299")
    began = datetime.now(UTC)
    assert world.arena.post(*rows, stamp=began - timedelta(hours=2), timeout_seconds=60).status_code == HTTPStatus.OK
    eventually(lambda: _active(world, section) == set(people), 90, "the term has begun")
    wrong = {
        "empty": extract.enrollments([]),
        "truncated": whole[: len(whole) // 2],
        "count_mismatch": whole.replace(b"TRAILER,40", b"TRAILER,41"),
        "missing_columns": whole.replace(b"EMPLID", b"STUDENT_ID"),
        "wrong_encoding": whole.decode().encode("utf-16"),
        "shrunk": extract.enrollments(rows[:20]),
    }
    with world.traffic() as traffic:
        traffic.reach(0.2)
        versions = _versions(world, term)
        answers = {reason: world.arena.post_extract(content, term=term) for reason, content in wrong.items()}
        stopped = {reason: answer.json().get("reason") for reason, answer in answers.items()}
        assert stopped == {reason: reason for reason in wrong}, stopped
        assert {answer.status_code for answer in answers.values()} <= {HTTPStatus.UNPROCESSABLE_ENTITY, HTTPStatus.CONFLICT}
        assert "EMPLID" in answers["missing_columns"].json()["detail"]
        listed = world.arena.ask_publisher("/snapshots")["snapshots"]
        assert {one["reason"] for one in listed if one["term"] == term} == set(wrong)
        assert _versions(world, term) == versions
        newcomer = enrolled("9701299", class_nbr, STRM=term)
        post(world, newcomer)
        eventually(lambda: "9701299" in _active(world, section), 60, "a registration meanwhile arrives")
        assert _active(world, section) == {*people, "9701299"}
        right = world.arena.post_extract(extract.enrollments(rows[:-1]), term=term)
        assert right.status_code == HTTPStatus.ACCEPTED, right.text
        eventually(lambda: _active(world, section) == {*people[:-1], "9701299"}, 90, "the right one removes who has left, alone")
    world.seen |= {"stopped": "+".join(wrong), "removed by the right one": 1}
    gone = [dropped(emplid, class_nbr) for emplid in [*people, "9701299"]]
    for row in gone:
        row.fields["STRM"] = term
    assert world.arena.post(*gone, timeout_seconds=60).status_code == HTTPStatus.OK
    eventually(world.arena.settled, 90, "nothing is left to do")


def _versions(world: World, term: str) -> dict[str, int]:
    return dict(world.arena.mirror("select key, version from entity where term = %s and kind = 'enrollment'", term))


# --- a source that says nothing --------------------------------------------------------------------------------------


@drill("P13", "the SIS falls silent", "it stops sending; publishers expect it every six seconds, and another one on another day")
def p13(world: World) -> None:
    channel, closed = f"ib:{NODE}", "ib:CLOSED"
    file = world.folder / "cadence.yaml"
    other_day = (datetime.now(UTC) + timedelta(days=3)).strftime("%a").lower()
    file.write_text(f"{channel}: {{every_minutes: 0.1}}\n{closed}: {{every_minutes: 0.1, days: [{other_day}]}}\n")
    with world.traffic(seconds=6) as traffic:
        for part in world.publishers:
            part.restart(SOURCE_CADENCE_FILE=str(file))
        traffic.await_sent(120)
        began = time.monotonic()
        eventually(world.arena.settled, 120, "everything that was sent has arrived")
        versions, writes = world.arena.mirror("select sum(version) from entity"), len(traffic.writes())
        eventually(lambda: _silent(world, channel) == [1, 1], 60, "both publishers say that the source is silent")
        world.seen["said after s"] = round(time.monotonic() - began)
        assert _silent(world, closed) == [0, 0], "nobody is missed outside of their hours"
        told = {one["channel"]: one for one in world.arena.ask_publisher("/sources")["channels"]}
        assert (told[channel]["silent"], told[closed]["silent"]) == (True, False)
        time.sleep(lasting(10, 900))
        assert (world.arena.mirror("select sum(version) from entity"), len(traffic.writes())) == (versions, writes)
        _announce(world, "99913", [])
        eventually(lambda: 0 in _silent(world, channel), 30, "it is heard again")


def _silent(world: World, channel: str) -> list[float]:
    return [part.service.metric("sis_channel_silent", channel=channel) for part in world.publishers]


# --- a flood after an outage -----------------------------------------------------------------------------------------

_CLASSES = [str(98_101 + number) for number in range(10)]
_LEAVERS = 10
"""Two of each of the first classes: far below every limit."""


@drill(
    "P14",
    "an outage of six hours, then all that has piled up at once",
    "publishers stopped; 3,000 messages of the last six hours (DRILLS_FULL_LENGTH=1: 100,000) about ten classes of 40, nearly "
    "all drops that are taken back; publishers started; the packaged guard",
)
def p14(world: World) -> None:
    members = {class_nbr: [f"{class_nbr}{number:02}" for number in range(40)] for class_nbr in _CLASSES}
    began = datetime.now(UTC) - timedelta(hours=6)
    for class_nbr, people in members.items():
        _announce(world, class_nbr, people)
        rows = [enrolled(emplid, class_nbr) for emplid in people]
        assert world.arena.post(*rows, stamp=began - timedelta(hours=1), timeout_seconds=60).status_code == HTTPStatus.OK
    eventually(world.arena.settled, 240, "the term has begun")
    leavers = {
        class_nbr: set(members[class_nbr][: 2 if number < _LEAVERS // 2 else 0]) for number, class_nbr in enumerate(_CLASSES)
    }
    flood = _piled_up(members, leavers, int(lasting(3_000, 100_000)), world.seed)
    with _guarded(world), world.traffic(seconds=6) as traffic:
        traffic.await_sent(120)
        held_before = world.driver().service.metric("sis_holds_opened_total")
        with world.by_hand():
            for part in world.publishers:
                part.stop()
        flushing = _Flushing(world, flood, began)
        flushing.start()
        time.sleep(lasting(5, 60))
        for part in world.publishers:
            part.start()
        longest = _watch_backlog(world, flushing)
        assert all(delivery.accepted for delivery in flushing.deliveries)
        eventually(world.arena.settled, 240, "the flood has drained")
        drained = time.monotonic() - flushing.begun
        for class_nbr, people in members.items():
            active, right = _active(world, section_id(class_nbr)), set(people) - leavers[class_nbr]
            assert active == right, f"I2: {len(active - right)} too many, {len(right - active)} too few in class {class_nbr}"
        assert world.driver().service.metric("sis_holds_opened_total") == held_before, "the guard counted messages"
        world.seen |= {
            "messages": len(flood),
            "drops among them": sum(row.fields["STDNT_ENRL_STATUS"] == "D" for each in flood for row in each.rows),
            "people who left": sum(map(len, leavers.values())),
            "drained in s": round(drained),
            "messages/s": round(len(flood) / drained),
        } | longest
    gone = [dropped(emplid, class_nbr) for class_nbr, people in members.items() for emplid in people]
    assert world.arena.post(*gone, timeout_seconds=60).status_code == HTTPStatus.OK
    eventually(world.arena.settled, 240, "nothing is left to do")


def _piled_up(members: dict[str, list[str]], leavers: dict[str, set[str]], count: int, seed: int) -> list[Message]:
    """Six hours in which people drop and come back a moment later, again and again; the leavers drop at the end."""
    chance = random.Random(seed)  # noqa: S311
    rows: list[RowChange] = []
    stayers = [(class_nbr, emplid) for class_nbr, people in members.items() for emplid in people]
    while len(rows) < count - _LEAVERS:
        class_nbr, emplid = chance.choice(stayers)
        rows += [dropped(emplid, class_nbr), enrolled(emplid, class_nbr)]
    rows += [dropped(emplid, class_nbr) for class_nbr, people in leavers.items() for emplid in sorted(people)]
    pause = timedelta(hours=6).total_seconds() / (len(rows) + 1)
    return [Message(number, "ZZ_ENRL_SYNC", (row,), number * pause, 0.0) for number, row in enumerate(rows)]


class _Flushing:
    """The SIS's queue sends as fast as it can, in a thread of its own."""

    def __init__(self, world: World, flood: Sequence[Message], began: datetime) -> None:
        url = f"http://127.0.0.1:{world.front.port}/intake/peoplesoft"
        self._poster = Poster(url, INTAKE_USER, world.system.intake_password)
        self._flood = flood
        self._began = began
        self._thread = threading.Thread(target=self._run, name="flush", daemon=True)
        self.begun = 0.0
        self.deliveries: list[Delivery] = []

    def start(self) -> None:
        """Begin."""
        self.begun = time.monotonic()
        self._thread.start()

    @property
    def going_on(self) -> bool:
        """Whether something has not been answered."""
        return self._thread.is_alive()

    def _run(self) -> None:
        self.deliveries = asyncio.run(self._poster.play(self._flood, started=self._began))


def _watch_backlog(world: World, flushing: _Flushing) -> dict[str, object]:
    """The greatest backlog that the API told while it drained, and how long it said that would take."""
    deadline = time.monotonic() + lasting(300, 3 * 3600)
    seats, eta = 0, None
    while flushing.going_on or not world.arena.settled():
        assert time.monotonic() < deadline, "the flood does not drain"
        backlog: dict[str, Any] = world.arena.operate("GET", "/seats/summary").json()["backlog"]
        if backlog["seats"] > seats and backlog["eta_seconds"] is not None:
            seats, eta = backlog["seats"], round(backlog["eta_seconds"], 1)
        time.sleep(0.3)
    assert eta is not None, "no backlog was told, or without its end"
    return {"greatest backlog": seats, "its ETA s": eta}


@contextmanager
def _guarded(world: World) -> Iterator[None]:
    """The packaged limits inside."""
    _apply_policy(world, default_text().replace("wait_seconds: 60", "wait_seconds: 5"))
    try:
        yield
    finally:
        _apply_policy(world, unguarded())


def _apply_policy(world: World, text: str) -> None:
    headers = {"authorization": f"Bearer {world.system.operator_token}", "content-type": "application/yaml"}
    with httpx.Client(verify=NO_TLS, trust_env=False, timeout=60, headers=headers, base_url=world.arena.consumer.url) as client:
        plan = client.post("/policies/plan", content=text)
        assert plan.status_code == HTTPStatus.OK, plan.text
        applied = client.post("/policies/apply", params={"plan": plan.json()["digest"], "within": 1000}, content=text)
        assert applied.status_code == HTTPStatus.ACCEPTED, applied.text
