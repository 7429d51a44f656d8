"""The verdict finds what it exists to find: a planted difference of each kind, and every write that the SIS never asked for."""

from __future__ import annotations

import random

import pytest

from services.sandbox.demo.verdict import Difference, Latencies, Placement, Write, compare, measure, unexplained
from services.sandbox.sis.client import Delivery
from services.sandbox.sis.messages import Message, RowChange
from services.sandbox.sis.morning import Morning, Transition
from services.sandbox.sis.school import build_school
from services.sandbox.sis.truth import STUDENT, Seat

ANA, BEN = (Seat("UNVTC-1273-26101", person, STUDENT) for person in ("9000001", "9000002"))
START = 1_000.0


def morning(*moves: tuple[Seat, bool], late_people: dict[str, float] | None = None) -> Morning:
    """One message per move, in the SIS's order."""
    sent = [Message(number, "ZZ_ENRL_SYNC", (), at=float(number), post_at=float(number)) for number in range(len(moves))]
    school = build_school(random.Random(1), 2, 2)  # noqa: S311  (nothing secret)
    return Morning(sent, school, [Transition(seat, on, number) for number, (seat, on) in enumerate(moves)], late_people or {}, {})


def delivered(plan: Morning, **posted_at: float) -> list[Delivery]:
    """Message n is posted n seconds after the start, unless ``mN`` says otherwise."""
    return [Delivery(message, START + posted_at.get(f"m{message.number}", message.number), 1, 200) for message in plan.messages]


def test_rosters_that_agree_match_and_deleted_rows_do_not_count() -> None:
    assert compare({ANA}, [Placement(ANA, "active"), Placement(BEN, "deleted")]) == []


@pytest.mark.parametrize(
    ("placements", "difference"),
    [
        ([], Difference(ANA, "missing", "absent")),
        ([Placement(ANA, "deleted")], Difference(ANA, "missing", "absent")),
        ([Placement(ANA, "inactive")], Difference(ANA, "missing", "inactive")),
        ([Placement(ANA, "active"), Placement(BEN, "active")], Difference(BEN, "unexpected", "active")),
        ([Placement(ANA, "active"), Placement(BEN, "invited")], Difference(BEN, "unexpected", "invited")),
        ([Placement(ANA, "active"), Placement(ANA, "active")], Difference(ANA, "duplicate", "active, active")),
    ],
)
def test_a_planted_difference_is_found(placements: list[Placement], difference: Difference) -> None:
    assert compare({ANA}, placements) == [difference]


def test_latency_runs_from_the_post_to_the_write() -> None:
    plan = morning((ANA, True), (BEN, True), (ANA, False))
    writes = [Write(ANA, "active", START + 0.5), Write(BEN, "active", START + 1.25), Write(ANA, "deleted", START + 5)]
    timing = measure(plan, delivered(plan), writes, START)
    assert timing.adds.values == (0.5, 0.25)
    assert timing.drops.values == (3.0,)
    assert timing.coalesced == 0


def test_a_move_taken_back_before_canvas_heard_of_it_is_coalesced() -> None:
    plan = morning((ANA, True), (ANA, False), (ANA, True))
    timing = measure(plan, delivered(plan), [Write(ANA, "active", START + 2.5)], START)
    assert timing.adds.values == (0.5,)
    assert timing.coalesced == 2


def test_a_move_that_waited_for_a_late_person_is_listed_apart() -> None:
    plan = morning((ANA, True), late_people={"9000001": 20.0})
    timing = measure(plan, delivered(plan), [Write(ANA, "active", START + 23)], START)
    assert timing.adds.values == ()
    assert timing.waited.values == (3.0,)


def test_percentiles_are_values_that_occurred() -> None:
    latencies = Latencies(tuple(float(number) for number in range(1, 101)))
    assert [latencies.percentile(share) for share in (0.5, 0.95, 1.0)] == [50.0, 95.0, 100.0]
    assert Latencies((7.0,)).percentile(0.5) == 7.0
    assert Latencies().percentile(0.5) is None


def test_writes_in_the_order_of_the_moves_are_explained_also_when_some_moves_had_none() -> None:
    plan = morning((ANA, True), (ANA, False), (ANA, True), (ANA, False))
    writes = [Write(ANA, "active", START + 2.1), Write(ANA, "deleted", START + 6)]
    assert unexplained(plan, delivered(plan), writes) == []


def test_a_dropped_student_who_comes_back_is_found() -> None:
    plan = morning((ANA, True), (ANA, False))
    back = Write(ANA, "active", START + 9)
    writes = [Write(ANA, "active", START + 0.5), Write(ANA, "deleted", START + 5), back]
    assert unexplained(plan, delivered(plan), writes) == [back]


def test_a_late_message_of_an_older_add_explains_nothing() -> None:
    plan = morning((ANA, True), (ANA, False))
    back = Write(ANA, "active", START + 8.2)
    writes = [Write(ANA, "deleted", START + 4), back]
    assert unexplained(plan, delivered(plan, m0=8.0), writes) == [back]


def test_a_write_before_its_move_was_posted_is_found() -> None:
    plan = morning((ANA, True))
    early = Write(ANA, "active", START - 1)
    assert unexplained(plan, delivered(plan), [early]) == [early]


def test_a_move_is_told_by_a_later_message_of_its_row_that_overtook_it() -> None:
    """Units were changed right after the student was added, and that message was not held up."""
    plan = morning((ANA, True), (BEN, True))
    row = RowChange("STDNT_ENRL", "C", {"EMPLID": ANA.person, "CLASS_NBR": "26101", "STDNT_ENRL_STATUS": "E"})
    plan.messages.append(Message(2, "ZZ_ENRL_SYNC", (row,), at=2.0, post_at=2.0, note="no_op"))
    write, too_early = Write(ANA, "active", START + 2.5), Write(BEN, "active", START + 2.5)
    assert unexplained(plan, delivered(plan, m0=8.0, m1=8.0), [write, too_early]) == [too_early]


def test_a_removal_that_nobody_asked_for_is_found() -> None:
    plan = morning((ANA, True))
    removal = Write(ANA, "deleted", START + 3)
    assert unexplained(plan, delivered(plan), [Write(ANA, "active", START + 0.3), removal]) == [removal]
