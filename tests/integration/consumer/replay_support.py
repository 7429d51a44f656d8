"""What the replay tests share: records in a log, and a log that loses its beginning."""

from __future__ import annotations

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from services.kit.kafka import KafkaSettings
from services.sandbox.broker import EmbeddedBroker


def produce(kafka: KafkaSettings, topic: str, values: list[bytes | None], partition: int = 0) -> None:
    """Append records without keys to one partition, in order; returns when they are in the log."""
    producer = Producer(kafka.producer(10_000))
    for value in values:
        producer.produce(topic, value=value, partition=partition)
    assert producer.flush(10) == 0


def trim(request: pytest.FixtureRequest, kafka: KafkaSettings, topic: str, before: int, partition: int = 0) -> None:
    """Delete the records of a partition below an offset, as retention would."""
    broker: EmbeddedBroker = request.getfixturevalue("embedded_broker")
    if kafka.bootstrap_servers == broker.bootstrap_servers:
        broker.trim(topic, partition, before)
        return
    admin = AdminClient(kafka.client())  # has to outlive its answers
    for answer in admin.delete_records([TopicPartition(topic, partition, before)]).values():
        answer.result(10)
