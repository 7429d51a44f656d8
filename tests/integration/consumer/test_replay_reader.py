"""The replay's reader names every offset of its range once, on both brokers."""

from __future__ import annotations

import time

import pytest

from schemas.topics import Topics
from services.consumer.log.ranges import RangeLog, RangeReader
from services.consumer.replay.log import LogRecord, Missing
from services.kit.kafka import KafkaSettings
from tests.integration.consumer.intake_support import eventually
from tests.integration.consumer.replay_support import produce, trim


def read_all(reader: RangeReader, limit: int = 7) -> list[LogRecord | Missing]:
    found: list[LogRecord | Missing] = []
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        batch = reader.read(limit, 0.2)
        assert len(batch) <= limit
        found += batch
        if reader.done:
            break
    reader.close()
    return found


def high(log: RangeLog, topic: str) -> int | None:
    bounds = log.bounds(topic, 0)
    return bounds.high if bounds is not None else None


@pytest.fixture
def topic(topics: Topics) -> str:
    return topics.entity("enrollment")


@pytest.fixture
def log(kafka: KafkaSettings) -> RangeLog:
    return RangeLog(kafka, "replay-test")


def test_a_range_is_read_exactly(kafka: KafkaSettings, topic: str, log: RangeLog) -> None:
    produce(kafka, topic, [b"%d" % n for n in range(60)])

    found = read_all(log.read(topic, 0, 10, 49))

    assert found == [LogRecord(n, None, b"%d" % n) for n in range(10, 50)]


def test_the_bounds_name_what_the_partition_holds(
    kafka: KafkaSettings, topic: str, log: RangeLog, request: pytest.FixtureRequest
) -> None:
    produce(kafka, topic, [b"x"] * 12)
    trim(request, kafka, topic, 5)

    bounds = log.bounds(topic, 0)

    assert bounds is not None
    assert (bounds.low, bounds.high) == (5, 12)
    assert bounds.topic_id
    assert log.bounds(topic, 77) is None
    assert log.bounds(f"{topic}-none", 0) is None


def test_offsets_below_the_low_watermark_are_expired(
    kafka: KafkaSettings, topic: str, log: RangeLog, request: pytest.FixtureRequest
) -> None:
    produce(kafka, topic, [b"x"] * 12)
    trim(request, kafka, topic, 5)

    found = read_all(log.read(topic, 0, 2, 7))

    assert found == [*(Missing(n, "expired") for n in (2, 3, 4)), *(LogRecord(n, None, b"x") for n in (5, 6, 7))]


def test_a_range_that_is_gone_altogether_expires_without_waiting_for_a_record(
    kafka: KafkaSettings, topic: str, log: RangeLog, request: pytest.FixtureRequest
) -> None:
    produce(kafka, topic, [b"x"] * 6)
    trim(request, kafka, topic, 6)

    found = read_all(log.read(topic, 0, 0, 5))

    assert found == [Missing(n, "expired") for n in range(6)]


def test_a_log_that_is_trimmed_while_it_is_read_loses_no_offset(
    kafka: KafkaSettings, topic: str, log: RangeLog, request: pytest.FixtureRequest
) -> None:
    produce(kafka, topic, [b"x"] * 50)
    reader = log.read(topic, 0, 0, 49)
    trim(request, kafka, topic, 45)

    found = read_all(reader)

    assert [one.offset for one in found] == list(range(50))
    assert all(isinstance(one, LogRecord) for one in found[45:])


def test_aborted_records_are_absent(kafka: KafkaSettings, topic: str, log: RangeLog, request: pytest.FixtureRequest) -> None:
    if kafka.bootstrap_servers == request.getfixturevalue("embedded_broker").bootstrap_servers:
        pytest.skip("the embedded broker shows aborted records; a real Kafka proves this")
    from confluent_kafka import Producer  # noqa: PLC0415

    produce(kafka, topic, [b"before"])
    producer = Producer(kafka.producer(10_000) | {"transactional.id": topic})
    producer.init_transactions(10)
    producer.begin_transaction()
    producer.produce(topic, value=b"never", partition=0)
    producer.flush(10)
    producer.abort_transaction(10)
    # The broker answers before the marker of the abort is in the log, and until then the log ends before the transaction.
    eventually(lambda: high(log, topic) == 3)

    found = read_all(log.read(topic, 0, 0, 2))

    assert found == [LogRecord(0, None, b"before"), Missing(1, "absent"), Missing(2, "absent")]
