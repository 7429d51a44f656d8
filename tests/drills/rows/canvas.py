"""Canvas: down, slow, throttled, lying."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from tests.drills.catalogue import drill
from tests.drills.traffic import Traffic
from tests.drills.world import World, lasting
from tests.e2e.arena import eventually

_WRITES = ["enrollments.create", "enrollments.delete"]


def _faults(world: World, *specifications: Mapping[str, Any]) -> list[int]:
    return [world.canvas.fault(**specification) for specification in specifications]


def _bitten(world: World, faults: list[int]) -> None:
    """Every one did something; into the report."""
    bites = [world.canvas.bit(fault) for fault in faults]
    world.seen["faults bit"] = "+".join(map(str, bites))
    assert all(bites), f"a fault did nothing: {bites}"


def _calls(world: World) -> int:
    return int(world.canvas.calls()["total"])


@drill("V1", "500, 502, 503 for a while", "every call answered so, by turns")
def v1(world: World) -> None:
    with world.traffic() as traffic:
        traffic.reach(0.3)
        calls = _calls(world)
        faults = _faults(
            world,
            {"kind": "status", "status": 500, "probability": 0.33},
            {"kind": "status", "status": 502, "probability": 0.5},
            {"kind": "status", "status": 503},
        )
        begun = time.monotonic()
        while time.monotonic() < begun + lasting(20, 1800):
            time.sleep(0.2)
        _bitten(world, faults)
        world.seen["calls meanwhile"] = _calls(world) - calls
        traffic.await_sent(120)


@drill("V2", "throttled", "a bucket of 100 that leaks 20/s; and refusals as 429 and as 403 with a text body")
def v2(world: World) -> None:
    for part in world.consumers:
        part.restart(RATE_LIMIT_RESERVE="0")  # a bucket that shrinks below the reserve leaves one call in some seconds
    with world.traffic() as traffic:
        traffic.reach(0.2)
        world.canvas.settings(throttle={"maximum": 200, "high_water_mark": 100, "outflow": 20, "cost": 2})
        try:
            faults = []
            for status in (429, 403):
                world.canvas.settings(throttle={"refusal_status": status})
                faults += _faults(world, {"kind": "throttled", "probability": 0.3, "count": 10, "methods": ["POST", "DELETE"]})
                eventually(lambda wanted=faults[-1]: world.canvas.bit(wanted) > 0 or traffic.sent, 60, "refusals")  # type: ignore[misc]
            traffic.await_sent(120)
            traffic.await_converged(world.arena.settled, 180)
            world.seen["faults bit"] = "+".join(str(world.canvas.bit(fault)) for fault in faults)
            world.seen["refused calls"] = sum(
                each["count"] for each in world.canvas.calls()["calls"] if str(each["status"]) in ("429", "403")
            )
        finally:
            world.canvas.settings(
                throttle={"maximum": 800, "high_water_mark": 600, "outflow": 10, "cost": 0.1, "refusal_status": 403}
            )


@drill("V3", "permission taken away, token revoked", "403 as JSON, then 401, each for a while")
def v3(world: World) -> None:
    with world.traffic() as traffic:
        traffic.reach(0.3)
        permissions = world.canvas.token("enrollstream")["permissions"]
        changes: tuple[dict[str, Any], ...] = ({"permissions": []}, {"state": "revoked"})
        for change in changes:
            calls = _calls(world)
            world.canvas.token("enrollstream", **change)
            begun = time.monotonic()
            time.sleep(lasting(10, 120))
            spent = time.monotonic() - begun
            made = _calls(world) - calls
            world.seen[f"calls/s, {next(iter(change))}"] = round(made / spent, 1)
            assert made < 20 * spent, "a storm of retries"
            world.canvas.token("enrollstream", permissions=permissions, state="active")
        traffic.await_sent(120)


@drill("V4", "accepts and never answers; one byte a second", "hang (applied and not) and drip, in creates and deletes")
def v4(world: World) -> None:
    with world.traffic() as traffic:
        traffic.reach(0.2)
        faults = _faults(
            world,
            {"kind": "hang", "endpoints": ["enrollments.create"], "apply": True, "count": 4, "probability": 0.5},
            {"kind": "hang", "endpoints": ["enrollments.create"], "apply": False, "count": 4, "probability": 0.5},
            {"kind": "drip", "endpoints": ["enrollments.create"], "count": 3},
            {"kind": "hang", "endpoints": ["enrollments.delete"], "apply": True, "count": 2},
        )
        eventually(lambda: all(world.canvas.bit(fault) > 0 for fault in faults), 120, "every fault bites")
        _bitten(world, faults)
        traffic.await_sent(120)


@drill("V5", "applies, then resets the connection", "reset after applying, a third of all creates and deletes")
def v5(world: World) -> None:
    faults = _faults(world, {"kind": "reset", "endpoints": _WRITES, "apply": True, "probability": 0.33, "count": 30})
    with world.traffic() as traffic:
        traffic.await_sent(120)
        traffic.await_converged(world.arena.settled, 180)
        _bitten(world, faults)


@drill(
    "V6",
    "wrong 200s",
    "maintenance page, login redirect, empty and truncated bodies, another person's body, an unchanged state",
    smoke=True,
)
def v6(world: World) -> None:
    # Another person's body comes first: as the third failure in a row of one seat it would make a dead letter, as it should.
    kinds = {"other_user": 1.0} | dict.fromkeys(("html", "redirect", "empty", "truncated", "unchanged"), 0.6)
    faults = _faults(
        world, *({"kind": kind, "endpoints": _WRITES, "count": 2, "probability": chance} for kind, chance in kinds.items())
    )
    with world.traffic() as traffic:
        traffic.await_sent(120)
        traffic.await_converged(world.arena.settled, 180)
        _bitten(world, faults)


@drill("V7", "the read-back lags", "reads show the state of some seconds ago; some creates reset after applying")
def v7(world: World) -> None:
    lag = lasting(5, 30)
    for part in world.consumers:
        part.restart(REPLICA_LAG_SECONDS=str(lag + 1))
    world.canvas.settings(visibility_lag_seconds=lag)
    faults = _faults(world, {"kind": "reset", "endpoints": _WRITES, "apply": True, "probability": 0.2, "count": 8})
    with world.traffic() as traffic:
        # What was applied and looked absent may be asked for once more; Canvas then says that it is so already.
        traffic.allowed_repeats = 16
        traffic.await_sent(120)
        traffic.await_converged(world.arena.settled, 240)
        _bitten(world, faults)


@drill(
    "V8", "404: the person or the section is not there yet", "Canvas gets to know a tenth of the people and some sections late"
)
def v8(world: World) -> None:
    waiting: list[int] = []
    with world.traffic(students=30, sections=12, seconds=12) as traffic:
        _spread(traffic)
        while not traffic.sent:
            ((count,),) = world.ledger_ask("select count(*) from work where state = 'waiting'")
            waiting.append(int(count))
            time.sleep(0.5)
    world.seen["seats waiting at most"] = max(waiting)
    assert max(waiting) > 0


def _spread(traffic: Traffic) -> None:
    assert traffic.morning.late_people or traffic.morning.late_sections
