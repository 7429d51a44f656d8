"""Kafka: three brokers, two copies in sync for a write to count."""

from __future__ import annotations

import time

from tests.drills.catalogue import drill
from tests.drills.injectors import signals
from tests.drills.world import World, lasting
from tests.e2e.arena import eventually


@drill(
    "K1", "leader killed under acks=all, two in sync", "SIGKILL of the leader of an enrollment partition amid traffic", smoke=True
)
def k1(world: World) -> None:
    with world.traffic() as traffic:
        traffic.reach(0.3)
        leader = world.brokers.leader(world.enrollments)
        world.brokers.kill(leader)
        begun = time.monotonic()
        eventually(lambda: world.brokers.leader(world.enrollments) not in (leader, -1), 60, "another broker leads")
        world.seen["new leader after s"] = round(time.monotonic() - begun, 1)
        # Everything is accepted with two brokers.
        traffic.await_sent(120)


@drill("K2", "two of three brokers down", "SIGKILL of two brokers for a while amid traffic")
def k2(world: World) -> None:
    with world.traffic() as traffic:
        traffic.reach(0.3)
        for number in (1, 2):
            world.brokers.kill(number)
        time.sleep(2)
        accepted = traffic.share
        time.sleep(lasting(15, 60))
        world.seen["accepted meanwhile"] = round((traffic.share - accepted) * len(traffic.morning.messages))
        assert traffic.share - accepted <= 0.02, "a write counted with one broker left"


@drill(
    "K3",
    "a consumer cut off for longer than its session",
    "all links of the driving consumer to the brokers cut, both ways",
    uses=["proxy"],
)
def k3(world: World) -> None:
    cut = world.driver()
    number = world.consumers.index(cut) + 1
    other = world.other(cut)
    with world.traffic(seconds=18) as traffic:
        traffic.reach(0.2)
        with world.network.cut(f"kafka.CONSUMER{number}."):
            begun = time.monotonic()
            eventually(lambda: other.service.metric("sis_consumer_assigned_partitions") == 15, 60, "all partitions move")
            world.seen["partitions moved after s"] = round(time.monotonic() - begun, 1)
            traffic.await_sent(120)
            time.sleep(max(0.0, begun + lasting(15, 60) - time.monotonic()))


@drill(
    "K4",
    "requests arrive, acknowledgements are lost",
    "answers of all brokers to the publishers held back, then the connections reset",
    uses=["proxy"],
)
def k4(world: World) -> None:
    with world.traffic() as traffic:
        traffic.reach(0.3)
        for _ in range(3):
            with world.network.cut("kafka.PUBLISHER.", "down") as links:
                time.sleep(lasting(4, 8))
                for link in links:
                    link.reset()
            time.sleep(2)
    copies = sum(sum(world.brokers.ends(topic).values()) for topic in world.event_topics)
    ((entities,),) = world.arena.mirror("select count(*) from entity where version > 0")
    world.seen |= {"records": copies, "entities": entities}


@drill("K5", "a broker paused", "SIGSTOP of the leader of an enrollment partition amid traffic", uses=["signals"])
def k5(world: World) -> None:
    with world.traffic() as traffic:
        traffic.reach(0.3)
        leader = world.brokers.leader(world.enrollments)
        with signals.paused(world.brokers.pid(leader)):
            begun = time.monotonic()
            traffic.await_sent(180)
            world.seen["all accepted after s"] = round(time.monotonic() - begun, 1)
            time.sleep(max(0.0, begun + lasting(20, 60) - time.monotonic()))


@drill("K6", "the coordinator dies amid commits", "SIGKILL of the group's coordinator amid traffic")
def k6(world: World) -> None:
    with world.traffic() as traffic:
        traffic.reach(0.4)
        coordinator = world.brokers.coordinator(world.topics.prefix)
        world.brokers.kill(coordinator)
        traffic.await_sent(120)
        world.seen["coordinator"] = coordinator
