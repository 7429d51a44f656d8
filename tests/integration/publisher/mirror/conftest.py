"""A mirror writer over a real database and either Kafka, and the log as a reader finds it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.topics import Topics
from services.kit.kafka import KafkaSettings
from services.sandbox.broker import EmbeddedBroker
from tests.embedded import embedded_broker_with
from tests.integration.publisher.mirror.bench import Bench, LogReader


@pytest.fixture
def bench(database_url: str, kafka: KafkaSettings, topics: Topics, tmp_path: Path) -> Bench:
    """Settings of this test's own mirror; start writers with it."""
    return Bench(database_url, kafka, topics, tmp_path)


@pytest.fixture
def event_log(kafka: KafkaSettings, topics: Topics) -> LogReader:
    """What the log holds."""
    return LogReader(kafka, topics)


@pytest.fixture
def own_broker(topics_of_own_broker: Topics) -> Iterator[EmbeddedBroker]:
    """A broker that this test may hurt."""
    with embedded_broker_with(topics_of_own_broker) as broker:
        yield broker


@pytest.fixture
def topics_of_own_broker() -> Topics:
    """Its topics."""
    return Topics("hurt")


@pytest.fixture
def hurt(database_url: str, own_broker: EmbeddedBroker, topics_of_own_broker: Topics, tmp_path: Path) -> Bench:
    """A bench over `own_broker`."""
    kafka = KafkaSettings(bootstrap_servers=own_broker.bootstrap_servers, fetch_wait_max_ms=20, linger_ms=5)
    return Bench(database_url, kafka, topics_of_own_broker, tmp_path)
