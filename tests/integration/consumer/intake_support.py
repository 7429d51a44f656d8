"""Running the intake for a test: in a thread of this process, over a broker and a database of the test's own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from types import TracebackType

from confluent_kafka import Consumer, TopicPartition

from schemas import codec
from schemas.events import AnyEvent
from schemas.headers import event_headers
from schemas.keys import record_key
from schemas.topics import Topics
from services.consumer.intake.service import Intake
from services.consumer.ledger.policies import Policies
from services.consumer.metrics import Metrics
from services.consumer.nouns import SeatRef
from services.consumer.settings import Settings
from services.kit.kafka import KafkaSettings
from tests.kafka_clients import ends, producer


def eventually(holds: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until it holds; fails at the deadline."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "did not come true in time"
        time.sleep(0.02)


def settings(database_url: str, topics: Topics, **changes: object) -> Settings:
    values: dict[str, object] = {
        "database_url": database_url,
        "topic_prefix": topics.prefix,
        "group_id": topics.prefix,
        "canvas_url": "http://127.0.0.1:1",
        "canvas_token_file": "/nowhere",
        "offset_check_seconds": 0.5,
        "log_check_seconds": 0.5,
        "ledger_timeout_seconds": 5,
    }
    return Settings.model_validate(values | changes)


class Running:
    """An intake at work. Leaving the block stops it as SIGTERM would, and raises what it died of."""

    def __init__(self, kafka: KafkaSettings, settings: Settings) -> None:
        self.metrics = Metrics()
        self.handed_over: list[SeatRef] = []
        self.error: BaseException | None = None
        self.intake = Intake(settings, kafka, Policies(settings.target, 3), self.metrics, self._note)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _note(self, seats: Collection[SeatRef]) -> bool:
        self.handed_over += seats
        return False

    def _run(self) -> None:
        try:
            self.intake.run()
        except BaseException as error:  # shown by __exit__
            self.error = error

    def __enter__(self) -> Running:
        self._thread.start()
        eventually(lambda: self.ready or self._stopped or self.error is not None)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.intake.stop()
        self._thread.join(20)
        assert not self._thread.is_alive(), "the intake does not stop"
        if self.error is not None and error is None:
            raise self.error

    @property
    def ready(self) -> bool:
        return all(self.intake.status.ready().values())

    @property
    def _stopped(self) -> bool:
        """What lies in the log may stop the line before anybody has seen it ready."""
        return self.intake.status.stopped_by is not None

    def counted(self, result: str, kind: str = "enrollment") -> float:
        return self.metrics.registry.get_sample_value("sis_events_total", {"kind": kind, "result": result}) or 0

    def conflicts(self) -> float:
        return self.metrics.registry.get_sample_value("sis_offset_conflicts_total") or 0


class Writer:
    """A publisher's end of the log."""

    def __init__(self, kafka: KafkaSettings, topics: Topics) -> None:
        self._kafka, self._topics = kafka, topics
        self._producer = producer(kafka)

    def write(self, *events: AnyEvent) -> None:
        for event in events:
            key = event.entity_key
            self._producer.produce(
                self._topics.entity(key.kind),
                key=record_key(key),
                value=codec.encode(event),
                headers=[*event_headers(key.kind, event.version, event.content_hash, event.accepted_at, "test").items()],
            )
        assert self._producer.flush(15) == 0

    def raw(self, value: bytes | None, *, partition: int = 0, headers: Sequence[tuple[str, str]] = ()) -> None:
        self._producer.produce(self._topics.entity("enrollment"), key=b"k", value=value, partition=partition, headers=[*headers])
        assert self._producer.flush(15) == 0


def committed(kafka: KafkaSettings, group: str, topic: str) -> dict[int, TopicPartition]:
    """What Kafka has for a group."""
    partitions = list(ends(kafka, topic))
    consumer = Consumer(kafka.reader(group))
    try:
        found = consumer.committed([TopicPartition(topic, one) for one in partitions], timeout=10)
        return {one.partition: one for one in found if one.offset >= 0}
    finally:
        consumer.close()


def commit_as_member(kafka: KafkaSettings, group: str, offsets: Sequence[TopicPartition]) -> None:
    """Join a group as its only member, commit these offsets, leave: what a tool or a lost ledger's consumer had done."""
    consumer = Consumer(kafka.group_member(group))
    consumer.subscribe(sorted({one.topic for one in offsets}))
    wanted = {(one.topic, one.partition) for one in offsets}
    end = time.monotonic() + 30
    while not wanted <= {(one.topic, one.partition) for one in consumer.assignment()}:
        assert time.monotonic() < end, "no assignment"
        consumer.poll(0.1)
    consumer.commit(offsets=list(offsets), asynchronous=False)
    consumer.close()
