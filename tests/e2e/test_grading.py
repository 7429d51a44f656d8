"""At the end of a term grading touches every row, and changes nothing that a seat depends on."""

from __future__ import annotations

import os
from collections.abc import Iterable
from http import HTTPStatus

import pytest

from services.sandbox.sis.messages import RowChange
from services.sandbox.sis.truth import section_id
from tests.e2e.arena import Arena, enrolled, eventually
from tests.e2e.conftest import MakeArena

ROWS = int(os.environ.get("GRADING_ROWS", "2000"))
"""Also run with 100,000."""
A_CLASS, A_MESSAGE = 100, 1000


def people() -> list[tuple[str, str]]:
    """(person, class), as many as there are rows."""
    return [(f"{9_000_000 + number}", str(26_000 + number // A_CLASS)) for number in range(ROWS)]


def post(arena: Arena, rows: Iterable[RowChange]) -> None:
    waiting = list(rows)
    for start in range(0, len(waiting), A_MESSAGE):
        answer = arena.post(*waiting[start : start + A_MESSAGE], timeout_seconds=120)
        assert answer.status_code == HTTPStatus.OK, answer.text


def log_size(arena: Arena) -> int:
    """Versions that were ever issued; each is one event."""
    return int(arena.mirror("select count(*) from entity where version > 0")[0][0])


def newest(arena: Arena) -> int:
    return int(arena.mirror("select max(version) from entity")[0][0])


@pytest.mark.parametrize("kafka", ["embedded"], indirect=True)
def test_grading_makes_no_event_and_no_call(make_arena: MakeArena) -> None:
    arena = make_arena(consumer={"MAX_IN_FLIGHT": "50"})
    arena.canvas.settings(
        throttle={"outflow": 100_000}
    )  # 100,000 enrollments would take hours otherwise, before anybody is graded
    classes = sorted({class_nbr for _, class_nbr in people()})
    for class_nbr in classes:
        arena.canvas.sections(section_id(class_nbr), course=f"1273-0{class_nbr}")
    everybody = [emplid for emplid, _ in people()]
    for start in range(0, ROWS, 10_000):
        arena.canvas.users(*everybody[start : start + 10_000])
    arena.start()
    post(arena, (enrolled(*one) for one in people()))
    eventually(arena.settled, 60 + ROWS / 100, "everybody has their seat")
    assert len(arena.canvas.roster()) == ROWS
    arena.canvas.forget_calls()
    entities, version = log_size(arena), newest(arena)
    read = arena.ledger('select topic, "partition", next from intake_offset order by 1, 2')

    post(arena, (enrolled(*one, CRSE_GRADE_OFF="A-", UNT_TAKEN="4.00") for one in people()))

    graded = arena.mirror("select count(*) from source_row where columns ->> 'CRSE_GRADE_OFF' is not null")
    assert graded == [(0,)], "no grade is kept"
    assert (log_size(arena), newest(arena), arena.unpublished()) == (entities, version, 0)
    assert arena.ledger('select topic, "partition", next from intake_offset order by 1, 2') == read
    assert arena.canvas.calls()["total"] == 0
