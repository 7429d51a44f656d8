"""Feeds that say that everybody has left, against the packaged limits: each is held with its cause, and adds go on."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any, Literal

import pytest

from services.consumer.policy.model import default_text
from services.sandbox.sis import extract
from services.sandbox.sis.messages import RowChange
from services.sandbox.sis.school import INSTITUTION, TERM, SchoolClass
from services.sandbox.sis.truth import STUDENT, Seat, section_id
from tests.e2e.arena import Arena, announced, dropped, enrolled, eventually
from tests.e2e.conftest import MakeArena

POLICY = default_text().replace("wait_seconds: 60", "wait_seconds: 2")
DROPPED, RENAMED, CANCELLED_FIRST, CANCELLED_LAST, ANNOUNCED, TOO_LARGE = "26101", "26102", "26103", "26104", "26105", "26106"
SMALL = [str(26201 + number) for number in range(12)]
MEMBERS = {DROPPED: 30, RENAMED: 30, CANCELLED_FIRST: 80, CANCELLED_LAST: 80, ANNOUNCED: 300, TOO_LARGE: 300} | dict.fromkeys(
    SMALL, 8
)
WITHIN = 40
"""Seconds; a busy machine takes its time, and no promise is a race here."""


def members(class_nbr: str, count: int | None = None) -> list[str]:
    """People of one class alone."""
    return [f"9{class_nbr}{number:03}" for number in range(count or MEMBERS[class_nbr])]


def school_class(class_nbr: str, status: Literal["A", "X"] = "A") -> SchoolClass:
    return SchoolClass(class_nbr, f"0{class_nbr}", "001", "GEOL", " 1000", status=status)


def post(arena: Arena, rows: Iterable[RowChange]) -> None:
    assert arena.post(*rows, timeout_seconds=60).status_code == HTTPStatus.OK


def holds(arena: Arena) -> dict[tuple[str, str | None], dict[str, Any]]:
    """Open holds by scope and class."""
    found = arena.operate("GET", "/holds").json()["holds"]
    return {(one["scope"], one["place"].get("section")): one for one in found}


def active(arena: Arena, class_nbr: str) -> int:
    return sum(row["state"] == "active" for row in arena.canvas.roster(section_id(class_nbr)))


def refused(arena: Arena, content: bytes, reason: str, cause: str) -> None:
    """The sender hears why, operators see it, and everybody keeps their seat."""
    answer = arena.post_extract(content)
    assert (answer.status_code, answer.json()["reason"]) == (HTTPStatus.UNPROCESSABLE_ENTITY, reason)
    newest = arena.ask_publisher("/snapshots")["snapshots"][0]
    assert (newest["state"], newest["reason"]) == ("refused", reason)
    assert cause in newest["detail"]
    assert arena.publisher.metric("sis_snapshots_total", outcome="refused", reason=reason) == 1
    assert {class_nbr: active(arena, class_nbr) for class_nbr in MEMBERS} == MEMBERS


def arrives(arena: Arena, class_nbr: str, emplid: str) -> None:
    """Somebody registers, and gets their seat."""
    arena.canvas.users(emplid)
    post(arena, [enrolled(emplid, class_nbr)])
    seat = Seat(section_id(class_nbr), emplid, STUDENT)
    eventually(lambda: arena.state(seat) == "active", WITHIN, "a registration arrives whatever is held")


@pytest.fixture
def campus(make_arena: MakeArena) -> Arena:
    """Everybody has their seat."""
    arena = make_arena(policy=POLICY)
    for class_nbr in MEMBERS:
        arena.canvas.sections(section_id(class_nbr), course=f"{TERM}-0{class_nbr}")
        arena.canvas.users(*members(class_nbr))
    arena.start()
    post(arena, (announced(school_class(class_nbr)) for class_nbr in MEMBERS))
    post(arena, (enrolled(emplid, class_nbr) for class_nbr in MEMBERS for emplid in members(class_nbr)))
    eventually(arena.settled, 120, "the term has begun")
    assert {class_nbr: active(arena, class_nbr) for class_nbr in MEMBERS} == MEMBERS
    return arena


@pytest.mark.parametrize("kafka", ["embedded"], indirect=True)
def test_no_feed_empties_a_course(campus: Arena) -> None:
    arena = campus

    # An extract that found nothing, and one whose id column was renamed, are stopped before they are compared with anything.
    everybody = [enrolled(emplid, class_nbr) for class_nbr in MEMBERS for emplid in members(class_nbr)]
    refused(arena, extract.enrollments([]), "empty", "the extract holds no row")
    renamed = extract.enrollments(everybody).replace(b"EMPLID", b"STUDENT_ID")
    refused(arena, renamed, "missing_columns", "without EMPLID; not known: STUDENT_ID, ")
    arrives(arena, DROPPED, "9990003")

    # 95 % of one section.
    post(arena, (dropped(emplid, DROPPED) for emplid in members(DROPPED)[:28]))
    eventually(lambda: ("section", DROPPED) in holds(arena), WITHIN, "the section is held")
    arrives(arena, DROPPED, "9990001")
    hold = holds(arena)["section", DROPPED]
    assert "removals within 15 minutes from a section with" in hold["cause"]
    assert active(arena, DROPPED) == 32

    # An id column was renamed: everybody goes, and as many come.
    others = [f"8{emplid}" for emplid in members(RENAMED)]
    arena.canvas.users(*others)
    post(arena, [enrolled(emplid, RENAMED) for emplid in others] + [dropped(emplid, RENAMED) for emplid in members(RENAMED)])
    eventually(lambda: ("section", RENAMED) in holds(arena), WITHIN, "the renamed ids are held")
    assert "has an id been renamed?" in holds(arena)["section", RENAMED]["cause"]
    eventually(lambda: active(arena, RENAMED) == 60, WITHIN, "the new ids have their seats, the old ones keep theirs")

    # Cancelled classes below the bound pass, in either order of their messages.
    post(arena, [announced(school_class(CANCELLED_FIRST, "X"))])
    post(arena, (dropped(emplid, CANCELLED_FIRST) for emplid in members(CANCELLED_FIRST)))
    post(arena, (dropped(emplid, CANCELLED_LAST) for emplid in members(CANCELLED_LAST)))
    post(arena, [announced(school_class(CANCELLED_LAST, "X"))])
    for class_nbr in (CANCELLED_FIRST, CANCELLED_LAST):
        eventually(lambda number=class_nbr: active(arena, number) == 0, WITHIN, "a cancelled class is empty")  # type: ignore[misc]

    # A large one that was announced passes as well; another one waits in a single hold.
    change = {
        "scope": {"section": {"institution": INSTITUTION, "term": TERM, "section": ANNOUNCED}},
        "from": (datetime.now(UTC) - timedelta(minutes=1)).isoformat(),
        "until": (datetime.now(UTC) + timedelta(hours=1)).isoformat(),
        "most": 300,
        "reason": "the building is closed",
    }
    assert arena.operate("POST", "/planned-changes", change).status_code == HTTPStatus.CREATED
    post(arena, [announced(school_class(ANNOUNCED, "X")), announced(school_class(TOO_LARGE, "X"))])
    eventually(lambda: active(arena, ANNOUNCED) == 0, WITHIN, "the announced class is empty")
    eventually(lambda: ("cancelled_section", TOO_LARGE) in holds(arena), WITHIN, "the large class is held")
    assert "The class was cancelled" in holds(arena)["cancelled_section", TOO_LARGE]["cause"]
    assert active(arena, TOO_LARGE) == 300

    # Everybody in the term, a few from each class: no class is lost as such.
    post(arena, (dropped(emplid, class_nbr) for class_nbr in SMALL for emplid in members(class_nbr)))
    eventually(lambda: ("term", None) in holds(arena), WITHIN, "the term is held")
    arrives(arena, SMALL[0], "9990002")
    assert sum(active(arena, class_nbr) for class_nbr in SMALL) >= 12 * 8 - 25 + 1

    assert set(holds(arena)) == {
        ("section", DROPPED),
        ("section", RENAMED),
        ("cancelled_section", TOO_LARGE),
        ("term", None),
    }
    assert arena.violations() == []
