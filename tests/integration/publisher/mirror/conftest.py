"""A mirror writer over a real database and either Kafka, and the log as a reader finds it."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.topics import Topics
from services.kit.kafka import KafkaSettings
from tests.integration.publisher.mirror.bench import Bench, LogReader


@pytest.fixture
def bench(database_url: str, kafka: KafkaSettings, topics: Topics, tmp_path: Path) -> Bench:
    """Settings of this test's own mirror; start writers with it."""
    return Bench(database_url, kafka, topics, tmp_path)


@pytest.fixture
def event_log(kafka: KafkaSettings, topics: Topics) -> LogReader:
    """What the log holds."""
    return LogReader(kafka, topics)
