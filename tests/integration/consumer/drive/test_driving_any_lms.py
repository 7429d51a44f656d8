"""The same driver over the same ledger keeps every LMS that has a target as wanted, whatever befalls its changes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import get_args

import pytest

from services.consumer.nouns import Seat, SeatState
from tests.contract.consumer.targets.canvas_lab import canvas_lab
from tests.contract.consumer.targets.lab import Lab, Mishap
from tests.contract.consumer.targets.moodle_shaped.lab import moodle_shaped_lab
from tests.integration.consumer.drive.drive_support import SeatLedger, Timing, Told, driving, eventually

LABS: dict[str, Callable[[Path], contextlib.AbstractAsyncContextManager[Lab]]] = {
    "canvas": canvas_lab,
    "moodle_shaped": moodle_shaped_lab,
}
MISHAPS: list[Mishap] = ["lost", "done_but_lost", "hangs", "ignored", "done_but_page"]
PEOPLE = [f"p{number:02}" for number in range(9)]
Wanted = dict[Seat, SeatState]


@pytest.fixture(params=LABS)
async def lab(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Lab]:
    async with LABS[request.param](tmp_path) as lab:
        yield lab


def everybody_in(lab: Lab) -> Wanted:
    """In two sections each: a person's second change has to wait for the first."""
    return {lab.seat(person, section): "active" for person in PEOPLE for section in ("S-1", "S-9")}


def three_ways_out(lab: Lab) -> Wanted:
    """A third changes to another section, a third is suspended, a third leaves."""
    swapping, suspended, leaving = PEOPLE[::3], PEOPLE[1::3], PEOPLE[2::3]
    wanted: Wanted = {lab.seat(person): "deleted" for person in (*swapping, *leaving)}
    wanted |= {lab.seat(person, "S-2"): "active" for person in swapping}
    wanted |= {lab.seat(person): "inactive" for person in suspended}
    return wanted


async def brought_about(ledger: SeatLedger, lab: Lab, wanted: Wanted) -> None:
    """Decided while the driver is at work, and settled."""
    for seat, state in wanted.items():
        ledger.want(seat, state)
    await eventually(lambda: ledger.one("select count(*) from work") == 0, within=40)
    check(ledger, lab, wanted)


def check(ledger: SeatLedger, lab: Lab, wanted: Wanted) -> None:
    """The LMS is as wanted, the ledger knows it, and nothing was done that must not be done to this LMS."""
    expected = {seat: lab.features.reads_as(state) for seat, state in wanted.items()}
    assert {seat: lab.state(seat) for seat in wanted} == expected
    assert {seat: ledger.applied(seat.ref.seat) for seat in wanted} == expected
    assert ledger.one("select count(*) from intent where closed_at is null") == 0
    assert lab.violations() == []


def drive(ledger: SeatLedger, lab: Lab, told: Told | None = None) -> contextlib.AbstractAsyncContextManager[object]:
    return driving(ledger.url, lab.target, Timing(), told, target=lab.seat().target)


@pytest.mark.parametrize("mishap", [None, *MISHAPS])
async def test_any_lms_is_brought_to_what_is_wanted(ledger: SeatLedger, lab: Lab, told: Told, mishap: Mishap | None) -> None:
    async with drive(ledger, lab, told):
        for wanted in (everybody_in(lab), three_ways_out(lab), everybody_in(lab)):
            if mishap is not None:
                lab.befall(mishap, changes=4)
            await brought_about(ledger, lab, wanted)
    assert told.dead == []


async def test_a_second_run_looks_and_changes_nothing(ledger: SeatLedger, lab: Lab) -> None:
    """A new process that was told everything again, and trusts nothing that the ledger says of the LMS."""
    wanted = everybody_in(lab) | three_ways_out(lab)
    async with drive(ledger, lab):
        await brought_about(ledger, lab, everybody_in(lab))
        await brought_about(ledger, lab, wanted)
    before = lab.changes()

    ledger.connection.execute("update seat set applied = 'unknown'")
    async with drive(ledger, lab):
        await brought_about(ledger, lab, wanted)

    assert lab.changes() == before


async def test_a_state_that_an_lms_does_not_have_needs_a_person(ledger: SeatLedger, lab: Lab, told: Told) -> None:
    """It is listed with its reason, the seat stays as it is, and nobody else waits for it."""
    lacking = set(get_args(SeatState)) - lab.features.states
    seats: Wanted = {lab.seat(person): state for person, state in zip(PEOPLE, lacking, strict=False)}
    async with drive(ledger, lab, told):
        await brought_about(ledger, lab, everybody_in(lab))
        for seat, state in seats.items():
            ledger.want(seat, state)
        await eventually(lambda: len(told.dead) == len(lacking))
        await eventually(lambda: all(ledger.work(seat.ref.seat) == "dead" for seat in seats))
    check(ledger, lab, everybody_in(lab))
