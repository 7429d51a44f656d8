"""Kafka: three brokers, two copies in sync for a write to count."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import cast

from confluent_kafka import OFFSET_END, Consumer, Producer, TopicPartition

from tests.drills.brokers import SASL_PASSWORD
from tests.drills.catalogue import drill
from tests.drills.injectors import signals
from tests.drills.world import World, lasting
from tests.e2e.arena import eventually


@drill(
    "K1",
    "leader killed under acks=all, two in sync",
    "SIGKILL of the leader of an enrollment partition amid traffic",
    smoke=True,
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


@drill(
    "K7",
    "the stored offset is below the log's start",
    "consumers stopped; traffic; every event record deleted, as retention would; consumers started",
)
def k7(world: World) -> None:
    with world.traffic() as traffic:
        traffic.reach(0.3)
        for part in world.consumers:
            part.stop()
        traffic.await_sent(120)
        world.seen["partitions trimmed"] = world.brokers.trim(world.event_topics)
        for part in world.consumers:
            part.start()
        world.await_recovery(90, "the loss is noticed")
    world.await_recovered()


@drill(
    "K8",
    "a topic deleted and created again",
    "each broker killed once, so that the clients have seen later leader epochs than the new topic's; the enrollment topic "
    "deleted amid traffic and created anew, consumers running",
)
def k8(world: World) -> None:
    with world.traffic(seconds=45) as traffic:
        for number in world.brokers.ids:
            world.brokers.kill(number)
            world.brokers.revive()
        traffic.reach(0.4)
        before = world.brokers.topic_ids(world.enrollments)
        world.brokers.delete(world.enrollments)
        time.sleep(3)
        world.create_missing_topics()
        assert world.brokers.topic_ids(world.enrollments) != before
        world.await_recovery(120, "the new topic is noticed")
        traffic.await_sent(120)
    world.await_recovered()


@drill("K10", "undecodable, null, 5 MiB", "such records produced raw into an enrollment partition amid traffic")
def k10(world: World) -> None:
    world.expected_dead_letters = True
    poison = [b"\xff\x00 not an event", None, b"x" * (5 * 1024 * 1024)]
    with world.traffic() as traffic:
        traffic.reach(0.3)
        places = produce(world, 0, poison)
        traffic.await_sent(120)
        traffic.await_converged(world.arena.settled, 180)
    letters = read_letters(world, len(poison))
    world.seen["dead letters"] = len(letters)
    for value, offset in zip(poison, places, strict=True):
        found = letters[offset]
        assert len(found) == 1, f"I8: {len(found)} letters for one record"
        headers = found[0][1]
        assert headers["__connect.errors.topic"] == world.enrollments.encode()
        assert headers["__connect.errors.partition"] == b"0"
        # A record that Kafka takes no second time stays where it is; the letter says where, and its digest.
        assert found[0][0] == (value if value is not None and len(value) < 1_000_000 else None), "I8: other bytes"


def produce(world: World, partition: int, values: Sequence[bytes | None]) -> list[int]:
    """Raw records; their offsets."""
    offsets: list[int] = []
    settings = {"acks": "all", "log_level": 0, "message.max.bytes": 6 * 1024 * 1024, "max.in.flight": 1}
    producer = Producer(world.brokers.settings.client() | settings)
    for number, value in enumerate(values):
        producer.produce(
            world.enrollments,
            value,
            f"poison {number}".encode(),
            partition=partition,
            on_delivery=lambda error, message: offsets.append(message.offset() or 0) if error is None else None,
        )
    assert producer.flush(60) == 0
    assert len(offsets) == len(values)
    return offsets


def read_letters(world: World, count: int) -> dict[int, list[tuple[bytes | None, dict[str, bytes]]]]:
    """The newest dead letters of the enrollment topic's partition 0, by the offset that they came from."""
    topic = world.topics.dead_letter(world.enrollments)
    end = world.brokers.ends(topic)[0]
    found: dict[int, list[tuple[bytes | None, dict[str, bytes]]]] = defaultdict(list)
    reader = Consumer(world.brokers.settings.reader("drill") | {"auto.offset.reset": "earliest", "log_level": 0})
    try:
        reader.assign([TopicPartition(topic, 0, max(0, end - count - 5))])
        deadline = time.monotonic() + 30
        position = 0
        while position < end:
            assert time.monotonic() < deadline, "the dead letters cannot be read"
            message = reader.poll(1)
            if message is None or message.error():
                continue
            position = (message.offset() or 0) + 1
            headers = {name: bytes(value) for name, value in cast("list[tuple[str, bytes]]", message.headers() or [])}
            found[int(headers["__connect.errors.offset"])].append((message.value(), headers))
    finally:
        reader.close()
    return found


@drill(
    "K11",
    "a storm of rebalances, both protocols",
    "a further member joins and leaves every few seconds; first classic (cooperative-sticky), then KIP-848",
)
def k11(world: World) -> None:
    for protocol in ("classic", "consumer"):
        # A group speaks one protocol at a time: all leave before it changes.
        for part in world.consumers:
            part.stop()
        for part in world.consumers:
            part.start(KAFKA_GROUP_PROTOCOL=protocol)
        for part in world.consumers:
            part.service.await_ready(90)
        before = sum(part.service.metric("sis_rebalances_total") for part in world.consumers)
        with world.traffic(seconds=lasting(20, 300)) as traffic:
            joined = 0
            while not traffic.sent:
                _visit(world, protocol, seconds=4)
                joined += 1
                time.sleep(1)
            # Restarting gives the next protocol a group without members, too.
            after = sum(part.service.metric("sis_rebalances_total") for part in world.consumers)
            world.seen |= {f"{protocol}: visits": joined, f"{protocol}: assignments": int(after - before)}
            assert after > before, "the storm did nothing"
            for part in world.consumers:
                part.stop()


def _visit(world: World, protocol: str, seconds: float) -> None:
    """Be a member that takes partitions, reads and commits nothing."""
    settings = world.brokers.settings.model_copy(update={"group_protocol": protocol})
    stranger = Consumer(settings.group_member(world.topics.prefix) | {"log_level": 0})
    try:
        stranger.subscribe(world.event_topics, on_assign=_take_nothing)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            stranger.poll(0.2)
    finally:
        stranger.close()


def _take_nothing(consumer: Consumer, partitions: list[TopicPartition]) -> None:
    consumer.incremental_assign([TopicPartition(one.topic, one.partition, OFFSET_END) for one in partitions])


@drill(
    "K12",
    "wrong credentials after a rotation, then right ones",
    "the broker's SCRAM secret changed and every connection of the consumer reset; later changed back",
    uses=["proxy"],
)
def k12(world: World) -> None:
    alone, other = world.consumers
    other.stop()
    pid = alone.pid
    with world.traffic(seconds=18) as traffic:
        traffic.reach(0.2)
        world.brokers.set_password("another-password")
        for link in world.network.matching("kafka.CONSUMER1."):
            link.reset()
        begun = time.monotonic()
        time.sleep(3)
        unread = len(world.arena.unread())
        time.sleep(lasting(12, 60))
        world.seen |= {"unread at first": unread, "unread at the end": len(world.arena.unread())}
        assert len(world.arena.unread()) > unread, "it went on reading with a wrong password"
        world.brokers.set_password(SASL_PASSWORD)
        world.seen["wrong for s"] = round(time.monotonic() - begun)
        traffic.await_sent(120)
        traffic.await_converged(world.arena.settled, 240)
        assert alone.pid == pid, "it needed a restart"
