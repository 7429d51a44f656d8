"""Fixtures that every tier shares: a clean environment, a PostgreSQL with a database per test, and Kafka."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.topics import Topics
from services.kit.kafka import KafkaSettings, create_topics
from services.sandbox.broker import EmbeddedBroker
from services.sandbox.postgres import EmbeddedPostgres

REAL_KAFKA = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
_OURS = ("KAFKA_", "DATABASE_", "CANVAS_", "TOPIC_", "PUBLISHER_", "CONSUMER_", "SANDBOX_")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings or proxies of the machine it runs on."""
    for name in list(os.environ):
        if name.startswith(_OURS) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[EmbeddedPostgres]:
    """One PostgreSQL for the whole run."""
    # Not below pytest's own folder: a second run of pytest closes that to other users, and a server that was started by root
    # runs under a user of its own.
    scratch = tempfile.TemporaryDirectory(prefix="enrollstream-tests-", ignore_cleanup_errors=True)
    with scratch as folder, EmbeddedPostgres(Path(folder) / "postgres") as server:
        yield server


@pytest.fixture
def database_url(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """An empty database of this test alone."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield postgres_server.create_database(name)
    postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[EmbeddedBroker]:
    """librdkafka's mock cluster; each test takes topics of its own from it."""
    with EmbeddedBroker({}) as broker:
        yield broker


@pytest.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.kafka)])
def kafka(request: pytest.FixtureRequest) -> KafkaSettings:
    """A Kafka, twice: the embedded one, then the real one (skipped with the reason on a laptop without it, an error in CI)."""
    if request.param == "embedded":
        broker: EmbeddedBroker = request.getfixturevalue("embedded_broker")
        return KafkaSettings(bootstrap_servers=broker.bootstrap_servers, fetch_wait_max_ms=20, linger_ms=5)
    return real_kafka_settings()


@pytest.fixture
def topics(kafka: KafkaSettings, request: pytest.FixtureRequest) -> Topics:
    """Topics of this test alone, created on the broker that `kafka` stands for."""
    names = Topics(f"t{uuid.uuid4().hex[:10]}")
    few = {name: min(partitions, 3) for name, partitions in names.all().items()}
    if REAL_KAFKA and kafka.bootstrap_servers == REAL_KAFKA:
        create_topics(kafka, few)
    else:
        broker: EmbeddedBroker = request.getfixturevalue("embedded_broker")
        for name, partitions in few.items():
            broker.create_topic(name, partitions)
    return names


def real_kafka_settings() -> KafkaSettings:
    """Settings of the real broker; skips without one, fails without one in CI."""
    if not REAL_KAFKA:
        reason = "no real Kafka: run `make kafka`, then set KAFKA_BOOTSTRAP_SERVERS"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return KafkaSettings(bootstrap_servers=REAL_KAFKA)
