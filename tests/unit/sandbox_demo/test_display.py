"""The demo speaks plainly where there is no terminal, and its last line is the verdict."""

from __future__ import annotations

import io
import time
from dataclasses import replace

import pytest
from rich.console import Console

from services.sandbox.demo.display import Display
from services.sandbox.demo.play import Outcome
from services.sandbox.demo.verdict import Difference, Latencies, Scene, Timing, Verdict, Write
from services.sandbox.sis.client import Progress
from services.sandbox.sis.morning import plan_morning
from services.sandbox.sis.truth import STUDENT, Seat

ANA = Seat("UNVTC-1273-26101", "9000001", STUDENT)


def display(*, terminal: bool) -> tuple[Display, io.StringIO]:
    written = io.StringIO()
    return Display(Console(file=written, width=120, force_terminal=terminal, highlight=False)), written


def verdict(*, differences: tuple[Difference, ...] = (), unexplained: tuple[Write, ...] = ()) -> Verdict:
    timing = Timing(Latencies((0.5, 0.7, 2.0)), Latencies((3.1,)), Latencies(), 4)
    calls = {"writes": 5, "reads": 6, "probes": 0}
    return Verdict(20, 12, 3, 15, calls, 5, timing, Latencies((0.03,)), 9, differences, unexplained)


def test_a_match_ends_with_match() -> None:
    shown, written = display(terminal=False)
    shown.verdict(verdict())
    assert verdict().match
    assert written.getvalue().splitlines()[-1].startswith("MATCH")
    assert "0.50 / 2.00 / 2.00 s" not in written.getvalue()
    assert "0.70 / 2.00 / 2.00 s" in written.getvalue()


def test_each_difference_is_named_before_the_verdict() -> None:
    judged = verdict(differences=(Difference(ANA, "missing", "absent"),))
    shown, written = display(terminal=False)
    shown.verdict(judged)
    assert not judged.match
    assert "missing    9000001 in UNVTC-1273-26101" in written.getvalue()
    assert written.getvalue().splitlines()[-1].startswith("NO MATCH: 1 difference")


def test_a_write_that_the_sis_never_asked_for_is_no_match_even_with_equal_rosters() -> None:
    judged = verdict(unexplained=(Write(ANA, "active", 1.0),))
    shown, written = display(terminal=False)
    shown.verdict(judged)
    assert not judged.match
    assert "never asked for: 9000001" in written.getvalue()


def scene(*, lost: int = 0, hold_seconds: float | None = 3.2) -> Scene:
    held = 0 if hold_seconds is None else 17
    return Scene(17, held, hold_seconds, "17 removals within 15 minutes", 0.4, lost, over=True)


def test_a_bad_feed_that_was_held_is_told_before_the_match() -> None:
    shown, written = display(terminal=False)
    shown.verdict(replace(verdict(), scene=scene()))
    assert "The bad feed was held after 3.2 s: 17 removals within 15 minutes" in written.getvalue()
    assert written.getvalue().splitlines()[-1].startswith("MATCH")


@pytest.mark.parametrize("seen", [scene(lost=1), scene(hold_seconds=None)])
def test_a_bad_feed_that_took_anything_is_no_match(seen: Scene) -> None:
    judged = replace(verdict(), scene=seen)
    shown, written = display(terminal=False)
    shown.verdict(judged)
    assert not judged.match
    assert written.getvalue().splitlines()[-1].startswith("NO MATCH")


def test_without_a_terminal_progress_is_a_line_now_and_then() -> None:
    shown, written = display(terminal=False)
    for _ in range(5):
        shown.show(outcome())
    assert len(written.getvalue().splitlines()) == 1
    assert "0/" in written.getvalue()


def test_a_terminal_gets_a_moving_picture_with_the_latest_writes() -> None:
    shown, written = display(terminal=True)
    with shown:
        shown.show(outcome())
    assert "9000001" in written.getvalue()


def outcome() -> Outcome:
    plan = plan_morning(students=10, sections=4, seconds=5)
    seen = Outcome(plan, time.time(), Progress(len(plan.messages)), {ANA})
    seen.writes.append(Write(ANA, "active", time.time()))
    return seen
