"""Kafka in memory: real offsets, topic ids, commits with metadata, groups that rebalance; and what a network does to all of that.

The classes at the end stand in for the product's own adapters over the Kafka client, with the same constructors and methods.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from schemas.markers import MARKER_KEY, Marker
from schemas.topics import ENTITY_KINDS, Topics
from services.consumer.ledger.offsets import LogPartition
from services.consumer.log import digests as digest_log
from services.consumer.log import records as consumer_log
from services.consumer.log.letters import Letter, context
from services.consumer.log.watch import Change
from services.consumer.replay import log as replay_log
from services.kit import kafka
from services.publisher import log as publisher_log
from services.publisher import returns_log
from services.publisher.mirror import history as mirror_history
from tests.simulation.fibers import Fiber, Process, Scheduler

SESSION_SECONDS = 4.0
"""A member that does not poll for so long is put out of its group."""


@dataclass
class Entry:
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


@dataclass
class Partition:
    entries: list[Entry] = field(default_factory=list)
    low: int = 0

    @property
    def high(self) -> int:
        return len(self.entries)


@dataclass
class Topic:
    identity: str
    partitions: list[Partition]


class Group:
    """Members of one consumer group, and what it has committed. Classic cooperative: what moves is revoked before it is given."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.committed: dict[tuple[str, str, int], tuple[int, str]] = {}
        self.members: list[Member] = []
        self.rebalances = 0

    def join(self, member: Member) -> None:
        if member not in self.members:
            self.members.append(member)
        self.rebalance()

    def leave(self, member: Member) -> None:
        if member in self.members:
            self.members.remove(member)
        member.owned.clear()
        member.wanted = set()
        self.rebalance()

    def rebalance(self) -> None:
        self.rebalances += 1
        places = [
            consumer_log.Place(name, number)
            for name in sorted({topic for member in self.members for topic in member.topics})
            for number in range(len(self.log.topics[name].partitions) if name in self.log.topics else 0)
        ]
        turned = places[self.rebalances % 3 :] + places[: self.rebalances % 3]
        for number, member in enumerate(self.members):
            member.wanted = {place for index, place in enumerate(turned) if index % len(self.members) == number}

    def free(self, place: consumer_log.Place, asking: Member) -> bool:
        return not any(place in other.owned for other in self.members if other is not asking)

    def expire(self) -> None:
        """Put out who has been silent."""
        for member in list(self.members):
            if not member.process.alive or self.log.scheduler.now - member.polled_at > SESSION_SECONDS:
                self.members.remove(member)
                member.evicted = True
                self.rebalance()


class Log:
    """All topics of one cluster."""

    def __init__(self, scheduler: Scheduler, topics: Topics, partitions: Mapping[str, int]) -> None:
        self.scheduler = scheduler
        self.names = topics
        self.topics: dict[str, Topic] = {}
        self.groups: dict[str, Group] = {}
        self.down_until = 0.0
        self.faults: dict[str, float] = {}
        """Probabilities of what may happen to a handed over batch: `ack_lost`, `refused`, `late`, `twice`, `shuffled`, `slow`."""
        self.bites: Callable[[str], None] = lambda _name: None
        self.on_append: Callable[[str, int, int, Entry], None] = lambda *_: None
        self.producer_configurations: list[Mapping[str, Any]] = []
        self.returns_owner: Process | None = None
        self.returns_committed = 0
        self.recreated: set[str] = set()
        """Names of topics that were deleted and made anew."""
        self._identities = 0
        self._waiting: dict[Fiber, Sequence[str]] = {}
        for name, count in partitions.items():
            self.create(name, count)

    def create(self, name: str, partitions: int) -> None:
        """A new topic."""
        self._identities += 1
        self.topics[name] = Topic(f"id-{self._identities:04d}", [Partition() for _ in range(partitions)])

    @property
    def down(self) -> bool:
        return self.scheduler.now < self.down_until

    def group(self, name: str) -> Group:
        return self.groups.setdefault(name, Group(self))

    def wait(self, topics: Sequence[str], seconds: float) -> None:
        """The fiber that runs waits until there is something new in these topics, or the time is over."""
        fiber = self.scheduler.current
        assert fiber is not None
        self._waiting[fiber] = topics
        try:
            self.scheduler.block(seconds)
        finally:
            self._waiting.pop(fiber, None)

    def wake(self, topic: str) -> None:
        """There is."""
        for fiber, topics in self._waiting.items():
            fiber.ready = fiber.ready or topic in topics

    def append(self, name: str, entry: Entry) -> tuple[int, int]:
        topic = self.topics[name]
        number = zlib.crc32(entry.key or b"") % len(topic.partitions)
        partition = topic.partitions[number]
        partition.entries.append(entry)
        self.wake(name)
        self.on_append(name, number, partition.high - 1, entry)
        return number, partition.high - 1

    def recreate(self, name: str) -> None:
        """A topic is deleted and made anew: same name, another identity, nothing in it."""
        self.create(name, len(self.topics[name].partitions))
        self.recreated.add(name)

    def trim(self, name: str) -> None:
        """Retention takes all records that a topic has now."""
        for partition in self.topics[name].partitions:
            partition.low = partition.high

    def chance(self, fault: str) -> bool:
        probability = self.faults.get(fault, 0.0)
        if probability and self.scheduler.random.random() < probability:
            self.bites(f"log {fault.replace('_', ' ')}")
            return True
        return False

    def ends(self) -> dict[tuple[str, int], int]:
        return {
            (name, number): partition.high
            for name, topic in self.topics.items()
            for number, partition in enumerate(topic.partitions)
        }


# --- the publisher's side ---


class Producer:
    """`services.publisher.log.KafkaLog`."""

    def __init__(self, log: Log, settings: Any, delivery_timeout_ms: int) -> None:
        self._log = log
        self._timeout = delivery_timeout_ms / 1000
        self._configuration = settings.producer(delivery_timeout_ms)
        log.producer_configurations.append(self._configuration)

    async def start(self) -> None:
        pass

    async def stop(self, _flush_seconds: float) -> None:
        pass

    def ready(self) -> bool:
        return not self._log.down

    def alive(self) -> bool:
        return True

    async def send(self, records: Sequence[publisher_log.Record]) -> list[publisher_log.Outcome]:
        log = self._log
        order = list(range(len(records)))
        if log.chance("shuffled"):
            log.scheduler.random.shuffle(order)
        outcomes: list[publisher_log.Outcome] = [publisher_log.Refused("kafka")] * len(records)
        if log.chance("slow"):
            await asyncio.sleep(log.scheduler.random.uniform(0.1, self._timeout))
        for number in order:
            outcomes[number] = await self._one(records[number])
        return outcomes

    async def send_alone(self, record: publisher_log.Record) -> publisher_log.Outcome:
        return await self._one(record)

    async def _one(self, record: publisher_log.Record) -> publisher_log.Outcome:
        log = self._log
        entry = Entry(record.key, record.value, [(name, _bytes(value)) for name, value in record.headers])
        await asyncio.sleep(0.002)
        if log.down:
            log.bites("log away")
            await asyncio.sleep(self._timeout)
            return publisher_log.Refused("kafka")
        if log.chance("refused"):
            await asyncio.sleep(self._timeout)
            return publisher_log.Refused("kafka")
        if log.chance("late"):
            # The broker gets it after the client has given up on it.
            log.scheduler.call_later(self._timeout + 0.5, lambda: _discard(log.append(record.topic, entry)))
            await asyncio.sleep(self._timeout)
            return publisher_log.Refused("kafka")
        number, offset = log.append(record.topic, entry)
        if log.chance("twice"):
            log.append(record.topic, Entry(entry.key, entry.value, list(entry.headers)))
        if log.chance("ack_lost"):
            await asyncio.sleep(self._timeout)
            return publisher_log.Refused("kafka")
        return publisher_log.Delivered(number, offset)


def _discard(_value: object) -> None:
    pass


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else value or b""


def log_ends(log: Log) -> list[kafka.LogEnd]:
    """`services.kit.kafka.log_ends`, of the topics of events."""
    log.scheduler.advance(0.001)
    if log.down:
        log.bites("log away")
        raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
    return [
        kafka.LogEnd(name, log.topics[name].identity, number, partition.high)
        for name in map(log.names.entity, ENTITY_KINDS)
        for number, partition in enumerate(log.topics[name].partitions)
    ]


class History:
    """`services.publisher.mirror.history.History`."""

    def __init__(self, log: Log, topics: Topics) -> None:
        self._log = log
        self._topics = topics

    def _ask(self) -> None:
        if self._log.down:
            self._log.bites("log away")
            raise KafkaException(KafkaError(KafkaError._TIMED_OUT))
        self._log.scheduler.advance(0.001)

    def newest_marker(self) -> Marker | None:
        self._ask()
        found = [entry for entry in self._log.topics[self._topics.markers].partitions[0].entries if entry.key == MARKER_KEY]
        return Marker.model_validate_json(found[-1].value or b"") if found else None

    def bounds(self) -> dict[mirror_history.Place, mirror_history.Bounds]:
        self._ask()
        return {
            mirror_history.Place(name, number): mirror_history.Bounds(partition.low, partition.high)
            for name in (self._topics.entity(kind) for kind in ENTITY_KINDS)
            for number, partition in enumerate(self._log.topics[name].partitions)
        }

    def events(
        self, positions: Mapping[str, int], bounds: Mapping[mirror_history.Place, mirror_history.Bounds]
    ) -> Iterator[mirror_history.Found]:
        self._ask()
        for place, bound in bounds.items():
            wanted = positions.get(str(place), bound.low)
            start = wanted if bound.low <= wanted <= bound.high else bound.low
            entries = self._log.topics[place.topic].partitions[place.partition].entries
            for offset in range(start, bound.high):
                yield mirror_history.Found(place, offset, entries[offset].value)


# --- the consumer's side ---


class Member:
    """`services.consumer.log.events.EventLog`: a member of the group. Lives in the fiber of its intake."""

    def __init__(self, log: Log, process: Process, group: str, topics: Sequence[str]) -> None:
        self.log = log
        self.process = process
        self.topics = list(topics)
        self.owned: dict[consumer_log.Place, int | None] = {}
        """Partitions that are ours, with the next offset to fetch; None while it could not be placed."""
        self.wanted: set[consumer_log.Place] = set()
        self.polled_at = log.scheduler.now
        self.evicted = False
        self._paused: set[consumer_log.Place] = set()
        self._group = log.group(group)
        self._membership: consumer_log.Membership
        process.on_death.append(lambda: None)

    def join(self, membership: consumer_log.Membership) -> None:
        self._membership = membership
        self._enter()

    def _enter(self) -> None:
        self.polled_at = self.log.scheduler.now
        self.evicted = False
        self._group.join(self)

    def rejoin(self) -> None:
        gone = sorted(self.owned)
        self._group.leave(self)
        if gone:
            self._membership.revoked(gone)
        self._enter()

    def renew(self) -> None:
        self.rejoin()

    def poll(self, limit: int, wait_seconds: float) -> consumer_log.Polled:
        self._heartbeat()
        found, lost = self._fetch(limit)
        if not found and not lost:
            self.log.wait(self.topics, max(wait_seconds, 0.5))
            self._heartbeat()
            found, lost = self._fetch(limit)
        return consumer_log.Polled(found, lost)

    def _heartbeat(self) -> None:
        self._group.expire()
        if self.evicted:
            self.evicted = False
            gone = sorted(self.owned)
            self.owned.clear()
            self._membership.revoked(gone)
            self.polled_at = self.log.scheduler.now
            self._group.join(self)
            return
        self.polled_at = self.log.scheduler.now
        if self.log.down:
            return
        leaving = sorted(place for place in self.owned if place not in self.wanted)
        if leaving:
            for place in leaving:
                del self.owned[place]
            self._membership.revoked(leaving)
        coming = sorted(place for place in self.wanted if place not in self.owned and self._group.free(place, self))
        if coming:
            self.owned |= dict.fromkeys(coming)
            starts = self._membership.assigned(coming)
            for place in coming:
                if place in self.owned:
                    self.owned[place] = None if starts is None else starts[place]
            self._paused -= set(coming)

    def _fetch(self, limit: int) -> tuple[list[consumer_log.Record], bool]:
        found: list[consumer_log.Record] = []
        if self.log.down:
            return found, False
        lost = False
        most = max(1, min(limit, self.log.scheduler.random.choice((1, 2, 5, 500))))
        for place in sorted(self.owned):
            position = self.owned[place]
            if position is None or place in self._paused:
                continue
            partition = self.log.topics[place.topic].partitions[place.partition]
            if not partition.low <= position <= partition.high:
                self.log.bites("log offset out of range")
                lost = True
                self.owned[place] = None
                continue
            end = min(partition.high, position + most - len(found))
            for offset in range(position, end):
                entry = partition.entries[offset]
                found.append(consumer_log.Record(place, offset, entry.key, entry.value, list(entry.headers)))
            self.owned[place] = max(position, end)
            if len(found) >= most:
                break
        return found, lost

    def known(self, places: Collection[consumer_log.Place], timeout_seconds: float = 5) -> dict[consumer_log.Place, Any]:
        self._ask()
        answer = {}
        for place in places:
            topic = self.log.topics[place.topic]
            partition = topic.partitions[place.partition]
            offset, metadata = self._group.committed.get((topic.identity, *place), (None, None))
            answer[place] = consumer_log.Known(offset, metadata, partition.low, partition.high)
        return answer

    def topic_ids(self) -> dict[str, str]:
        self._ask()
        return {name: self.log.topics[name].identity for name in self.topics if name in self.log.topics}

    def _ask(self) -> None:
        self.log.scheduler.advance(0.001)
        if self.log.down:
            self.log.bites("log away")
            raise consumer_log.LogUnavailable("simulated")

    def commit(self, positions: Mapping[consumer_log.Place, int], metadata: str) -> None:
        if self.log.down or self.log.chance("commit_lost"):
            return
        if self not in self._group.members:
            return  # the coordinator refuses a member that it has put out
        for place, offset in positions.items():
            if place in self.owned:
                self._group.committed[self.log.topics[place.topic].identity, *place] = (offset, metadata)

    def places(self, timeout_seconds: float = 5) -> list[consumer_log.Place]:
        self._ask()
        return [
            consumer_log.Place(name, number)
            for name in self.topics
            if name in self.log.topics
            for number in range(len(self.log.topics[name].partitions))
        ]

    def pause(self, places: Collection[consumer_log.Place] | None = None) -> None:
        self._paused |= set(self.owned) if places is None else set(places) & set(self.owned)

    def resume(self, but: Collection[consumer_log.Place] = ()) -> None:
        self._paused &= set(but)

    def lag(self, positions: Mapping[consumer_log.Place, int]) -> dict[str, int]:
        return dict.fromkeys(self.topics, 0)

    def close(self, wait_seconds: float) -> None:
        self._group.leave(self)


class DeadLetters:
    """`services.consumer.log.DeadLetters`."""

    def __init__(self, log: Log, name_of: Callable[[str], str]) -> None:
        self._log = log
        self._name_of = name_of
        self._written: set[consumer_log.Coordinates] = set()
        self.refusal: str | None = None

    def written(self, letters: Sequence[Letter], wait_seconds: float) -> set[consumer_log.Coordinates]:
        self._log.scheduler.advance(0.002)
        for letter in letters:
            if letter.at in self._written:
                continue
            if self._log.down or self._log.chance("dead_letters_refused"):
                self.refusal = "simulated"
                continue
            record = letter.record
            entry = Entry(record.key, record.value, [*record.headers, *context(letter)])
            self._log.append(self._name_of(record.place.topic), entry)
            self._written.add(letter.at)
        return {letter.at for letter in letters} & self._written

    def stored(self, letters: Collection[Letter]) -> None:
        self._written -= {letter.at for letter in letters}

    def forget(self, places: Collection[consumer_log.Place]) -> None:
        self._written = {at for at in self._written if at[0] not in places}


class Watch:
    """`services.consumer.log.LogWatch`."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._asked: tuple[dict[str, str], dict[consumer_log.Place, int]] | None = None

    @property
    def asked(self) -> bool:
        return self._asked is not None

    def forget(self) -> None:
        self._asked = None

    def ask(self, ids: Mapping[str, str], positions: Mapping[consumer_log.Place, int]) -> None:
        self._asked = dict(ids), dict(positions)

    def found(self) -> Change | None:
        if self._asked is None or self._log.down:
            return None
        (ids, positions), self._asked = self._asked, None
        for place in sorted(positions):
            if self._log.topics[place.topic].identity != ids[place.topic]:
                return Change("topic_recreated", place.topic)
        for place, position in sorted(positions.items()):
            if self._log.topics[place.topic].partitions[place.partition].high < position:
                return Change("log_shorter", place.topic)
        return None


class Digests:
    """`services.consumer.log.digests.DigestLog`."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._next = 0

    def _partition(self) -> Partition:
        self._log.scheduler.advance(0.001)
        if self._log.down:
            self._log.bites("log away")
            raise consumer_log.LogUnavailable("simulated")
        return self._log.topics[self._log.names.digests].partitions[0]

    def topic_id(self) -> str:
        self._partition()
        return self._log.topics[self._log.names.digests].identity

    def begin(self, position: int | None) -> int:
        partition = self._partition()
        self._next = position if position is not None and partition.low <= position <= partition.high else partition.high
        return self._next

    def poll(self, wait_seconds: float) -> digest_log.Read | None:
        if self._next >= self._partition().high:
            self._log.wait([self._log.names.digests], max(wait_seconds, 3.0))
        partition = self._partition()
        if self._next >= partition.high:
            return None
        self._next += 1
        return digest_log.Read(self._next - 1, partition.entries[self._next - 1].value)

    def ends(self) -> dict[LogPartition, int]:
        self._partition()
        return {LogPartition(end.topic_id, end.topic, end.partition): end.offset for end in log_ends(self._log)}

    def send(self, values: Sequence[bytes]) -> None:
        self._partition()
        for value in values:
            self._log.append(self._log.names.returns, Entry(None, value, []))

    def close(self) -> None:
        pass


class Returns:
    """`services.publisher.returns_log.ReturnsLog`: one living process reads; whoever follows begins at its commit."""

    def __init__(self, log: Log, process: Process) -> None:
        self._log = log
        self._process = process
        self._next = 0

    def _mine(self) -> bool:
        owner = self._log.returns_owner
        if owner is not self._process and (owner is None or not owner.alive):
            self._log.returns_owner = self._process
            self._next = self._log.returns_committed
        return self._log.returns_owner is self._process

    def poll(self, limit: int, wait_seconds: float) -> list[returns_log.Returned]:
        partition = self._log.topics[self._log.names.returns].partitions[0]
        if self._log.down or not self._mine() or self._next >= partition.high:
            self._log.wait([self._log.names.returns], max(wait_seconds, 3.0))
        if self._log.down or not self._mine():
            return []
        first, self._next = self._next, min(partition.high, self._next + limit)
        return [returns_log.Returned(0, offset, partition.entries[offset].value) for offset in range(first, self._next)]

    def stay(self) -> None:
        pass

    def commit(self, records: Sequence[returns_log.Returned]) -> None:
        if not self._log.down and self._mine():
            self._log.returns_committed = max(self._log.returns_committed, records[-1].offset + 1)

    def close(self) -> None:
        if self._log.returns_owner is self._process:
            self._log.returns_owner = None


class Ranges:
    """`services.consumer.log.ranges.RangeLog`."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def bounds(self, topic: str, partition: int) -> replay_log.Bounds | None:
        if self._log.down:
            raise replay_log.LogUnavailable("simulated")
        known = self._log.topics.get(topic)
        if known is None or partition >= len(known.partitions):
            return None
        found = known.partitions[partition]
        return replay_log.Bounds(known.identity, found.low, found.high)

    def read(self, topic: str, partition: int, first: int, last: int) -> replay_log.Reader:
        return _RangeReader(self._log, topic, partition, first, last)


class _RangeReader:
    def __init__(self, log: Log, topic: str, partition: int, first: int, last: int) -> None:
        self._partition = log.topics[topic].partitions[partition]
        self._log = log
        self._next, self._last = first, last

    @property
    def done(self) -> bool:
        return self._next > self._last

    def read(self, limit: int, wait_seconds: float) -> list[replay_log.LogRecord | replay_log.Missing]:
        if self._log.down:
            self._log.scheduler.block(wait_seconds)
            return []
        found: list[replay_log.LogRecord | replay_log.Missing] = []
        while not self.done and len(found) < limit:
            if self._next < self._partition.low:
                found.append(replay_log.Missing(self._next, "expired"))
            else:
                entry = self._partition.entries[self._next]
                found.append(replay_log.LogRecord(self._next, entry.key, entry.value))
            self._next += 1
        return found

    def close(self) -> None:
        pass
