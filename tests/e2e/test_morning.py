"""A registration morning through real processes: what the SIS holds is what Canvas shows."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from confluent_kafka import Consumer, TopicPartition

from services.sandbox.demo import world
from services.sandbox.demo.play import Outcome, play
from services.sandbox.demo.verdict import unexplained
from services.sandbox.sis.morning import Morning, plan_morning
from services.sandbox.sis.school import INSTITUTION, TERM
from tests.e2e.arena import Arena, eventually
from tests.e2e.conftest import MakeArena

EMBEDDED = pytest.mark.parametrize("kafka", ["embedded"], indirect=True)
REAL = pytest.mark.parametrize("kafka", [pytest.param("real", marks=pytest.mark.kafka)], indirect=True)


@EMBEDDED
@pytest.mark.timeout(150)
def test_morning_end_to_end(make_arena: MakeArena) -> None:
    arena = make_arena(canvas=["--latency-ms", "10", "--jitter-ms", "30"])
    morning = plan_morning(seed=11, students=60, sections=12, seconds=12)
    world.seed(arena.canvas, morning)
    arena.start()

    outcome = play_to_the_end(arena, morning, settle_seconds=60)

    assert_canvas_is_right(arena, outcome)
    assert_replay_writes_nothing(arena)
    assert arena.leaks(morning) == []


@dataclass(slots=True)
class Faults:
    """Everything that goes wrong in one morning, in a thread beside it. Ends with the second consumer driving."""

    arena: Arena
    killed_publishers: list[int | None] = field(default_factory=list)
    killed_consumers: list[int | None] = field(default_factory=list)
    lease_owners: list[str | None] = field(default_factory=list)
    faults: list[int] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def keep_a_publisher(self) -> None:
        """Start the publisher anew when a failpoint killed it: between commit and publish, then between ack and reply."""
        publisher = self.arena.publisher
        for failpoint in ("publisher.after_ack:kill@25", ""):
            while publisher.await_death(0.5) is None:
                if self.over.is_set():
                    return
            self.killed_publishers.append(publisher.process.exit_code if publisher.process else None)
            publisher.start(FAILPOINT=failpoint).await_ready()

    def kill_consumers(self) -> None:
        """The first consumer dies right after a call that it has not written down, and starts anew; then it is killed for good
        in the middle of whatever it does, and the second takes the lease over."""
        first, second = self.arena.consumer, self.arena.system.consumer("consumer-2")
        self.killed_consumers.append(first.await_death(60))
        dead = self.arena.lease_owner()
        first.start()
        # The second is started only now, so that it cannot be the one that takes over.
        self.lease_owners.append(self._next_lease_owner(dead))
        second.start().await_ready()
        self.killed_consumers.append(first.kill())
        self.arena.consumer = second
        self.lease_owners.append(self._next_lease_owner(self.lease_owners[0]))

    def _next_lease_owner(self, before: str | None) -> str:
        """Who drives after the one that did, once somebody does."""
        seen: list[str] = []

        def somebody_else() -> bool:
            owner = self.arena.lease_owner()
            if owner not in (None, before):
                seen.append(str(owner))
            return bool(seen)

        eventually(somebody_else, 30, "another consumer drives")
        return seen[0]

    def break_canvas(self) -> None:
        """Connections are reset, after the change was applied or before; in the middle Canvas answers 503 for a while."""
        canvas = self.arena.canvas
        for endpoint in ("enrollments.create", "enrollments.delete"):
            for applied in (True, False):
                self.faults.append(canvas.fault("reset", endpoints=[endpoint], apply=applied, probability=0.15, count=8))
        time.sleep(10)
        outage = self._outage()
        while canvas.bit(outage) == 0 and not self.over.is_set():  # between two drivers nobody calls: then it was none
            outage = self._outage()
        self.faults.append(outage)

    def _outage(self) -> int:
        """One that is over when this returns."""
        fault = self.arena.canvas.fault("status", status=503, for_seconds=4)
        self.over.wait(4)
        return fault


@REAL
@pytest.mark.timeout(300)
def test_registration_morning_under_faults(make_arena: MakeArena) -> None:
    arena = make_arena(canvas=["--latency-ms", "10", "--jitter-ms", "30"])
    morning = plan_morning(seed=5, students=120, sections=24, seconds=30)
    world.seed(arena.canvas, morning)
    arena.publisher.start(FAILPOINT="publisher.after_commit:kill@25")
    arena.consumer.start(FAILPOINT="consumer.after_call:kill@150")
    arena.publisher.await_ready()
    arena.consumer.await_ready()
    faults = Faults(arena)

    with ThreadPoolExecutor() as threads:
        schedule = [threads.submit(step) for step in (faults.keep_a_publisher, faults.kill_consumers, faults.break_canvas)]
        try:
            outcome = play_to_the_end(arena, morning, settle_seconds=120)
        finally:
            faults.over.set()
        for each in schedule:
            each.result()

    # Everything that was meant to go wrong did.
    assert faults.killed_publishers == [-9, -9]
    assert faults.killed_consumers == [-9, -9]
    assert len(set(faults.lease_owners)) == 2
    assert all(arena.canvas.bit(each) > 0 for each in faults.faults)
    assert any(delivery.attempts > 1 for delivery in outcome.deliveries)
    # And still:
    assert_canvas_is_right(arena, outcome)
    assert_replay_writes_nothing(arena)
    assert arena.leaks(morning) == []


def play_to_the_end(arena: Arena, morning: Morning, settle_seconds: float) -> Outcome:
    """Play, and watch that nobody dies who was not killed."""

    def watch(_outcome: Outcome) -> None:
        arena.processes.check()

    return asyncio.run(play(morning, arena.poster(), arena.canvas, arena.settled, watch, settle_seconds))


def assert_canvas_is_right(arena: Arena, outcome: Outcome) -> None:
    """The final roster is the SIS's; nothing was lost, doubled or brought back; the ledger's own promises hold."""
    assert sum(delivery.accepted for delivery in outcome.deliveries) == len(outcome.morning.messages)
    assert outcome.differences == []
    assert unexplained(outcome.morning, outcome.deliveries, outcome.writes) == []
    assert arena.canvas.violations() == []
    eventually(arena.settled, 30, "every event is read and every seat settled")
    assert arena.violations() == []


def assert_replay_writes_nothing(arena: Arena) -> None:
    """Every offset of the morning once more, and every seat: the system is settled, so Canvas hears nothing that changes it."""
    before = len(arena.canvas.writes())
    for kind in ("enrollment", "section", "course", "person"):
        topic = arena.topics.entity(kind)
        everything = list(ranges(arena, topic))
        assert everything, kind
        for partition, first, last in everything:
            report = arena.replay({"offsets": {"topic": topic, "partition": partition, "from": first, "to": last}})
            assert sum(report["verdicts"].values()) == last - first + 1
            assert report["verdicts"].keys() <= {"already_satisfied", "superseded", "no_seat"}
    report = arena.replay({"term": {"institution": INSTITUTION, "term": TERM}})
    assert report["verdicts"].keys() == {"already_satisfied"}
    eventually(arena.settled, 30, "nothing is left to do after the replay")
    assert len(arena.canvas.writes()) == before


def ranges(arena: Arena, topic: str) -> Iterator[tuple[int, int, int]]:
    """The offsets of every partition that holds any."""
    reader = Consumer(arena.kafka.reader("ranges"))
    try:
        partitions = reader.list_topics(topic, timeout=10).topics[topic].partitions
        for partition in partitions:
            low, high = reader.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
            if high > low:
                yield partition, low, high - 1
    finally:
        reader.close()
