"""Driver, ledger and Canvas together, over real HTTP, while Canvas misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.consumer.drive.driver import Driver
from services.consumer.ledger.policies import Policies
from services.consumer.metrics import Metrics
from services.consumer.nouns import SeatState
from services.consumer.targets.canvas.client import CanvasClient
from services.consumer.targets.canvas.target import CanvasTarget
from services.kit.credentials import SecretFile
from services.sandbox.canvas.server import CanvasServer
from tests.integration.consumer.drive.drive_support import TARGET, SeatLedger, Timing, Told, eventually, seat_of
from tests.serving import serving

PEOPLE = [f"p{number:02}" for number in range(20)]
TIMING = replace(Timing(), late_bound_seconds=1.2)


@pytest.fixture
def canvas() -> Iterator[CanvasServer]:
    with serving(CanvasServer()) as server:
        server.control.sections("S-1", "S-2", course="C-1")
        server.control.users(*PEOPLE)
        yield server


@contextlib.asynccontextmanager
async def driving_canvas(ledger: SeatLedger, canvas: CanvasServer, folder: Path, told: Told) -> AsyncIterator[None]:
    token = folder / "token"
    token.write_text(canvas.token)
    target = CanvasTarget(CanvasClient(canvas.url, SecretFile(token)), "self", TIMING.call_timeout_seconds)
    driver = Driver(TIMING, ledger.url, TARGET, target, Policies(TARGET), Metrics(), told)
    running = asyncio.create_task(driver.run())
    try:
        yield
    finally:
        driver.stop()
        await asyncio.wait_for(running, 20)
        await target.close()


def roster(canvas: CanvasServer, section: str) -> dict[str, str]:
    return {row["user"]: row["state"] for row in canvas.control.roster(section)}


def want_a_swap(ledger: SeatLedger) -> None:
    """Everybody leaves S-1 for S-2."""
    for person in PEOPLE:
        ledger.want(seat_of(person, "S-1"), "deleted")
        ledger.want(seat_of(person, "S-2"), "active")


async def settled(ledger: SeatLedger, within: float = 30) -> None:
    await eventually(lambda: ledger.one("select count(*) from work") == 0, within)


def check(ledger: SeatLedger, canvas: CanvasServer) -> None:
    """What Canvas has is what is wanted, nothing was done that should not be, and nobody was in two states at once."""
    for section, wanted in (("S-1", "deleted"), ("S-2", "active")):
        assert roster(canvas, section) == dict.fromkeys(PEOPLE, wanted)
    assert canvas.control.violations() == []
    assert ledger.one("select count(*) from intent where closed_at is null") == 0


async def enrolled(ledger: SeatLedger, within: float = 30) -> None:
    for person in PEOPLE:
        ledger.want(seat_of(person, "S-1"))
    await settled(ledger, within)


async def test_a_calm_day_costs_one_read_and_one_write_a_seat(
    ledger: SeatLedger, canvas: CanvasServer, tmp_path: Path, told: Told
) -> None:
    async with driving_canvas(ledger, canvas, tmp_path, told):
        await enrolled(ledger)
        want_a_swap(ledger)
        await settled(ledger)

    check(ledger, canvas)
    assert len(canvas.control.writes()) == 3 * len(PEOPLE)
    # New seats are read before they are written; a removal of what we made ourselves needs no read.
    assert canvas.control.calls()["total"] == 5 * len(PEOPLE)
    assert len(told.confirmations) == 3 * len(PEOPLE)


@pytest.mark.parametrize(
    ("kind", "limits"),
    [
        ("reset", {"probability": 0.4}),
        ("reset", {"probability": 0.4, "apply": False}),
        ("status", {"probability": 0.4, "status": 503}),
        ("status", {"probability": 0.4, "status": 502, "apply": True}),
        ("html", {"probability": 0.4, "apply": True}),
        ("truncated", {"probability": 0.4}),
        ("other_user", {"count": 8}),
        ("unchanged", {"probability": 0.4, "methods": ["POST", "DELETE"]}),
        ("throttled", {"probability": 0.1}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_canvas_equals_what_is_wanted_after_any_fault(
    ledger: SeatLedger, canvas: CanvasServer, tmp_path: Path, told: Told, kind: str, limits: dict[str, object]
) -> None:
    async with driving_canvas(ledger, canvas, tmp_path, told):
        await enrolled(ledger)
        fault = canvas.control.fault(kind, for_seconds=3, **limits)
        want_a_swap(ledger)
        await eventually(lambda: canvas.control.bit(fault) > 0)
        await settled(ledger)

    check(ledger, canvas)
    assert told.dead == []


async def test_an_outage_is_survived_without_a_storm(
    ledger: SeatLedger, canvas: CanvasServer, tmp_path: Path, told: Told
) -> None:
    async with driving_canvas(ledger, canvas, tmp_path, told):
        await enrolled(ledger)
        canvas.control.forget_calls()
        fault = canvas.control.fault("status", for_seconds=4)
        want_a_swap(ledger)
        await eventually(lambda: all(one["over"] for one in canvas.control.faults() if one["id"] == fault))
        during = canvas.control.calls()["total"]
        await settled(ledger)

    check(ledger, canvas)
    assert during < 3 * len(PEOPLE)


async def test_a_full_bucket_is_filled_to_its_rate_and_almost_never_refuses(
    ledger: SeatLedger, canvas: CanvasServer, tmp_path: Path, told: Told
) -> None:
    """Ten units leak a second, a call costs five: two calls a second, once the 600 are used up."""
    canvas.control.settings(throttle={"high_water_mark": 200, "cost": 5.0})
    async with driving_canvas(ledger, canvas, tmp_path, told):
        await enrolled(ledger)

    statuses = [one["status"] for one in canvas.control.calls()["calls"]]
    assert statuses == ["200"] * len(statuses)
    states: set[SeatState] = {"active"}
    assert set(roster(canvas, "S-1").values()) == states
