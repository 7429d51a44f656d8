"""Fixtures that every tier shares: a clean environment, a PostgreSQL with a database per test, and Kafka."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import structlog
from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]  # exported without saying so

from schemas.topics import Topics
from services.consumer.ledger import database as ledger_database
from services.kit.kafka import KafkaSettings, _topic_settings
from services.publisher.mirror import database as mirror_database
from services.sandbox.broker import EmbeddedBroker
from services.sandbox.postgres import EmbeddedPostgres
from tests import kafka_clients
from tests.embedded import create_topics, few_partitions
from tests.serving import await_closed

REAL_KAFKA = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
_OURS = ("KAFKA_", "DATABASE_", "CANVAS_", "TOPIC_", "PUBLISHER_", "CONSUMER_", "SANDBOX_")


def pytest_configure() -> None:
    """Log lines of code that runs in the tests' own process: with tracebacks as Python prints them.

    structlog draws them with rich if it finds it, every variable of every frame included. One takes seconds, in the middle of
    whatever the code under test was doing.
    """
    plain = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], plain])


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees the settings or proxies of the machine it runs on."""
    for name in list(os.environ):
        if name.startswith(_OURS) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session", autouse=True)
def _closed_servers() -> Iterator[None]:
    yield
    await_closed()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[EmbeddedPostgres]:
    """One PostgreSQL for the whole run."""
    with _postgres(_memory()) as server:
        yield server


@pytest.fixture
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """One PostgreSQL of this test alone, on disk: it may be killed."""
    with _postgres(None) as server:
        yield server


@contextmanager
def _postgres(parent: Path | None) -> Iterator[EmbeddedPostgres]:
    # Not below pytest's own folder: a second run of pytest closes that to other users, and a server that was started by root
    # runs under a user of its own.
    scratch = tempfile.TemporaryDirectory(prefix="enrollstream-tests-", dir=parent, ignore_cleanup_errors=True)
    with scratch as folder, EmbeddedPostgres(Path(folder) / "postgres") as server:
        yield server


def _memory() -> Path | None:
    """A file system in memory if there is one with room; None stands for the usual folder.

    Every database of a test is 20 MB that somebody has to write, and a busy disk takes a second for them. What a disk keeps
    longer than memory, it keeps through the loss of the machine's power: no test plays that.
    """
    shared = Path("/dev/shm")
    roomy = shared.is_dir() and os.access(shared, os.W_OK) and shutil.disk_usage(shared).free > 2 * 1024**3
    return shared if roomy else None


@pytest.fixture(scope="session")
def _migrated(postgres_server: EmbeddedPostgres) -> str:
    """A database that both services have migrated, to be copied: a tenth of the time that the migrations take."""
    name = "migrated"
    url = postgres_server.create_database(name)
    mirror_database.migrate(url)
    ledger_database.migrate(url)
    return name


@pytest.fixture
def database_url(postgres_server: EmbeddedPostgres, _migrated: str) -> Iterator[str]:
    """A database of this test alone, with the tables of both services and nothing in them."""
    with _database(postgres_server, _migrated) as url:
        yield url


@pytest.fixture
def empty_database_url(postgres_server: EmbeddedPostgres) -> Iterator[str]:
    """A database of this test alone that no service has seen yet."""
    with _database(postgres_server, "template1") as url:
        yield url


@contextmanager
def _database(server: EmbeddedPostgres, template: str) -> Iterator[str]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield server.create_database(name, template)
    server.drop_database(name)


@pytest.fixture(scope="session")
def embedded_broker() -> Iterator[EmbeddedBroker]:
    """librdkafka's mock cluster; each test takes topics of its own from it."""
    with EmbeddedBroker({}) as broker:
        yield broker
        kafka_clients.forget(broker.bootstrap_servers)


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
    if REAL_KAFKA and kafka.bootstrap_servers == REAL_KAFKA:
        new = [
            NewTopic(name, num_partitions=partitions, replication_factor=1, config=_topic_settings(name))
            for name, partitions in few_partitions(names).items()
        ]
        for answer in kafka_clients.admin(kafka).create_topics(new).values():
            answer.result(30)
    else:
        create_topics(request.getfixturevalue("embedded_broker"), few_partitions(names))
    return names


def real_kafka_settings() -> KafkaSettings:
    """Settings of the real broker; skips without one, fails without one in CI."""
    if not REAL_KAFKA:
        reason = "no real Kafka: run `make kafka`, then set KAFKA_BOOTSTRAP_SERVERS"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return KafkaSettings(bootstrap_servers=REAL_KAFKA)
