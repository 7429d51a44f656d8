"""Clocks."""

from __future__ import annotations

import time

from tests.drills.catalogue import drill
from tests.drills.injectors import clock, signals
from tests.drills.supervisor import Part
from tests.drills.world import World, lasting


def _negative_ages(part: Part) -> list[str]:
    """I16: samples of ages and durations below zero."""
    lines = (part.service.get("/metrics") or "").splitlines()
    return [line for line in lines if "seconds" in line and not line.startswith("#") and line.rsplit(" ", 1)[-1].startswith("-")]


def _freshness(part: Part) -> float:
    """The mean of what was measured from acceptance to confirmation."""
    count = part.service.metric("sis_event_to_applied_seconds_count")
    return part.service.metric("sis_event_to_applied_seconds_sum") / count if count else 0.0


@drill(
    "T1", "the consumer's clock is two days ahead, then an hour behind", "both consumers run with a shifted clock", uses=["clock"]
)
def t1(world: World) -> None:
    for name, offset in (("+2 d", 2 * 24 * 3600), ("-1 h", -3600)):
        for part in world.consumers:
            part.restart(**clock.shifted(offset))
        with world.traffic(seconds=8) as traffic:
            traffic.await_sent(120)
            traffic.await_converged(world.arena.settled, 180)
            found = [line for part in world.consumers for line in _negative_ages(part)]
            assert not found, f"I16: {found}"
            measured = max(map(_freshness, world.consumers))
            world.seen[f"{name}: mean seconds to applied"] = round(measured, 1)
            assert measured < 60, "I16: ages follow the wrong clock"


@drill("T2", "publishers ten minutes ahead, consumers ten minutes behind", "all four run with shifted clocks", uses=["clock"])
def t2(world: World) -> None:
    for parts, offset in ((world.publishers, 600), (world.consumers, -600)):
        for part in parts:
            part.restart(**clock.shifted(offset))
    with world.traffic() as traffic:
        traffic.await_sent(120)
        traffic.await_converged(world.arena.settled, 180)
        assert not [line for part in world.parts for line in _negative_ages(part)]
        world.seen["mean seconds to applied"] = round(max(map(_freshness, world.consumers)), 1)


@drill(
    "T5", "the whole machine stands still", "SIGSTOP of services, brokers and databases at once; SIGCONT of all", uses=["signals"]
)
def t5(world: World) -> None:
    with world.traffic(timeout_seconds=60) as traffic:
        traffic.reach(0.4)
        everything = world.pids()
        with world.by_hand(), signals.paused(*everything):
            time.sleep(lasting(20, 600))
        begun = time.monotonic()
        traffic.await_sent(180)
        world.seen["all accepted after s"] = round(time.monotonic() - begun, 1)
