"""Records are named by their time, as a real Kafka looks it up; the embedded one does not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from schemas import codec
from schemas.topics import Topics
from services.consumer.log.ranges import RangeLog
from services.kit.kafka import KafkaSettings
from tests.integration.consumer.ledger_support import Ledger, enrollment, seat
from tests.integration.consumer.replay_support import Operator, Site
from tests.kafka_clients import producer

pytestmark = pytest.mark.parametrize("kafka", [pytest.param("real", marks=pytest.mark.kafka)], indirect=True)

MORNING = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)


def produce_at(kafka: KafkaSettings, topic: str, partition: int, *records: tuple[int, bytes]) -> None:
    """Append records with the time of so many minutes after the morning began."""
    shared = producer(kafka)
    for minute, value in records:
        at = int((MORNING + timedelta(minutes=minute)).timestamp() * 1000)
        shared.produce(topic, value=value, partition=partition, timestamp=at)
    assert shared.flush(10) == 0


def minutes(since: int, until: int) -> tuple[datetime, datetime]:
    return MORNING + timedelta(minutes=since), MORNING + timedelta(minutes=until)


def test_the_offsets_between_two_instants_are_those_of_every_partition(kafka: KafkaSettings, topics: Topics) -> None:
    topic, log = topics.entity("enrollment"), RangeLog(kafka, "replay-test")
    produce_at(kafka, topic, 0, *((n, b"x") for n in range(10)))
    produce_at(kafka, topic, 1, (4, b"x"), (30, b"x"))

    def found(since: int, until: int) -> dict[int, tuple[int, int]]:
        return {number: (held.low, held.high) for number, held in log.between(topic, *minutes(since, until)).items()}

    assert found(0, 60) == {0: (0, 10), 1: (0, 2)}
    assert found(4, 8) == {0: (4, 8), 1: (0, 1)}, "the second instant is not included"
    assert found(20, 60) == {1: (1, 2)}
    assert found(40, 60) == {}
    assert log.between(f"{topic}-none", *minutes(0, 60)) == {}
    bounds = log.bounds(topic, 0)
    assert bounds is not None
    assert {held.topic_id for held in log.between(topic, *minutes(0, 60)).values()} == {bounds.topic_id}


@pytest.fixture
def operator(kafka: KafkaSettings, topics: Topics, database_url: str, tmp_path: Path) -> Iterator[Operator]:
    ledger = Ledger(database_url)
    yield Operator(Site(kafka, topics, ledger), tmp_path)
    ledger.check()
    ledger.close()


async def test_the_records_of_an_hour_are_planned_and_applied_in_every_partition(operator: Operator) -> None:
    site, people = operator.site, ["9000001", "9000002", "9000003"]
    events = [enrollment(version=n + 1, person=person) for n, person in enumerate(people)]
    site.ledger.take(*events)
    for person in people:
        site.ledger.kill(seat(person), "refused", "validation")
    topic, values = site.topics.entity("enrollment"), [codec.encode(event) for event in events]
    produce_at(site.kafka, topic, 0, (0, values[0]), (90, values[1]))
    produce_at(site.kafka, topic, 2, (10, values[2]))
    since, until = minutes(0, 60)

    report = await operator.carry_out({"times": {"topic": topic, "since": since.isoformat(), "until": until.isoformat()}})

    assert [(one["partition"], one["from"], one["next"]) for one in report["ranges"]] == [(0, 0, 1), (2, 0, 1)]
    assert [(line["partition"], line["offset"], line["verdict"]) for line in report["lines"]] == [
        (0, 0, "in_progress"),
        (2, 0, "in_progress"),
    ]
    assert site.woken == {seat(people[0]), seat(people[2])}
