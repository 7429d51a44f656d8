"""What every scenario stands on: Kafka, PostgreSQL, the cheap Canvas, and the processes under test."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # exported without saying so

from schemas.topics import Topics
from services.consumer.ledger import database
from services.consumer.policy.model import default_text
from services.kit.kafka import KafkaSettings
from services.kit.postgres import Connection
from services.sandbox.demo.processes import Process, Processes, free_port
from services.sandbox.demo.system import Service, System, Wiring
from services.sandbox.postgres import EmbeddedPostgres

RUN = Path(__file__).parents[1] / ".run" / "bench"
PARTITIONS = 6
UNGUARDED = default_text().partition("\nguard:")[0] + "\nguard: none\n"
"""Waves of removals are what some scenarios measure; a guard would hold them."""


@dataclass(slots=True)
class Ground:
    """Lives as long as the whole run."""

    kafka: KafkaSettings
    server: EmbeddedPostgres

    @contextmanager
    def site(
        self, name: str, publisher: Mapping[str, str] | None = None, consumer: Mapping[str, str] | None = None
    ) -> Iterator[Site]:
        """Fresh topics and databases and a Canvas; the services are made by the scenario."""
        folder = RUN / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        unique = uuid.uuid4().hex[:8]
        topics = Topics(f"bench-{unique}")
        databases = [f"bench_{kind}_{unique}" for kind in ("mirror", "ledger")]
        mirror, ledger = (self.server.create_database(database) for database in databases)
        variables = {"KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers}
        wiring = Wiring(
            folder,
            variables,
            mirror,
            ledger,
            topics.prefix,
            {"CREATE_TOPICS": "true", **(publisher or {})},
            consumer or {},
            policy=UNGUARDED,
        )
        try:
            with Processes(folder) as processes:
                system = System(processes, wiring)
                canvas = CheapCanvas(processes)
                system.canvas_url = canvas.url
                yield Site(processes, system, canvas, topics, self.kafka)
        finally:
            for database in databases:
                self.server.drop_database(database)


class CheapCanvas:
    """`bench.canvas` as a process."""

    def __init__(self, processes: Processes) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._http = httpx.Client(base_url=self.url, trust_env=False, timeout=30)
        self.process = processes.start(f"canvas-{port}", ["bench.canvas", "--port", str(port)], {})
        self.process.await_ready(self._answers, 20)

    def set(self, **settings: object) -> None:
        """See `bench.canvas.Settings`; what is not named goes back to its default."""
        self._http.post("/_bench/settings", json=settings).raise_for_status()

    def log(self) -> list[tuple[str, str, float, float, int]]:
        """Changing calls since the last time: (method, user, received, answered, status), in seconds of the monotonic clock."""
        return [tuple(each) for each in self._http.get("/_bench/log").json()]

    def seed(self, section: str, count: int) -> None:
        """Active students 0 to `count`, as `bench.seeding` numbers them."""
        self._http.post("/_bench/seed", json={"section": section, "count": count}).raise_for_status()

    def counts(self) -> dict[str, float]:
        """``calls``, ``refused``, ``left`` in the bucket, and ``now``."""
        answer: dict[str, float] = self._http.get("/_bench/counts").json()
        return answer

    def _answers(self) -> bool:
        try:
            return self._http.get("/_bench/counts").is_success
        except httpx.TransportError:
            return False


@dataclass(slots=True)
class Site:
    """One set of topics, databases and Canvas."""

    processes: Processes
    system: System
    canvas: CheapCanvas
    topics: Topics
    kafka: KafkaSettings

    def start(self, *services: Service) -> None:
        """Start and await each."""
        for service in services:
            service.start()
        for service in services:
            service.await_ready(60)

    def run(self, name: str, module: str, *arguments: str, **environment: str) -> Process:
        """Start another program of the benchmark beside them."""
        wiring = self.system.wiring
        common = {**wiring.kafka, "TOPIC_PREFIX": wiring.topic_prefix, "CANVAS_URL": self.canvas.url}
        return self.processes.start(name, [module, *arguments], common | environment)

    def prepare_ledger(self) -> None:
        """The tables, empty, as the consumer makes them at its first start."""
        database.migrate(self.system.wiring.ledger_url)

    def ledger(self) -> Connection:
        """A connection to the ledger's tables."""
        return _connected(self.system.wiring.ledger_url, "ledger")

    def mirror(self) -> Connection:
        """A connection to the mirror's tables."""
        return _connected(self.system.wiring.mirror_url, "mirror")

    def make_topics(self, *names: str) -> None:
        """With the bench's number of partitions, and wait until they are there."""
        admin = AdminClient(self.kafka.client())
        for future in admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names]).values():
            future.result(30)


def _connected(url: str, schema: str) -> Connection:
    connection: Connection = psycopg.connect(url, autocommit=True)
    connection.execute(f"set search_path = {schema}".encode())
    return connection


def rows(connection: Connection, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    """Ask something."""
    return connection.execute(query.encode(), parameters).fetchall()
