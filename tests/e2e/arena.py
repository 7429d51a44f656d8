"""A whole system of real processes for one test: Canvas sandbox, publisher and consumers on a Kafka and a PostgreSQL."""

from __future__ import annotations

import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any

import httpx
import psycopg

from schemas.topics import Topics
from services.consumer.ledger import assertions
from services.consumer.ledger.policies import Policies
from services.kit.credentials import basic
from services.kit.kafka import KafkaSettings
from services.sandbox.canvas.client import CanvasControl
from services.sandbox.demo import world
from services.sandbox.demo.processes import Processes
from services.sandbox.demo.system import INTAKE_USER, Service, System, Wiring
from services.sandbox.demo.verdict import Write
from services.sandbox.postgres import EmbeddedPostgres
from services.sandbox.sis.client import Poster
from services.sandbox.sis.messages import Message, RowChange, class_row, enrollment_row
from services.sandbox.sis.morning import Morning
from services.sandbox.sis.rowset import render
from services.sandbox.sis.school import INSTITUTION, TERM, Enrollment, EnrollmentKey, SchoolClass
from services.sandbox.sis.truth import Seat, section_id
from tests.plain_http import NO_TLS
from tests.policies import unguarded

LOGS = Path(__file__).parents[2] / ".run" / "e2e"
"""Logs stay here after a run, one folder per test."""

HASTY_CONSUMER = {
    "LEASE_SECONDS": "4",
    "LEASE_RENEW_SECONDS": "1",
    "CALL_TIMEOUT_SECONDS": "2",
    "LATE_BOUND_SECONDS": "3",
    "REPLICA_LAG_SECONDS": "0.5",
    "SWAP_SETTLE_SECONDS": "1",
}
"""The same rules with shorter times, so that faults heal within a test. The sandbox applies nothing later than it answers."""


@dataclass(slots=True)
class Arena:
    """The parts, and what the tests do with them."""

    processes: Processes
    system: System
    canvas: CanvasControl
    topics: Topics
    kafka: KafkaSettings
    publisher: Service
    consumer: Service

    # -- acting ------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start publisher and consumer and wait until both are ready."""
        self.publisher.start()
        self.consumer.start()
        self.publisher.await_ready()
        self.consumer.await_ready()

    def poster(self) -> Poster:
        """The SIS's sending side."""
        return Poster(f"{self.publisher.url}/intake/peoplesoft", INTAKE_USER, self.system.intake_password)

    def post(
        self, *rows: RowChange, stamp: datetime | None = None, operation: str = "ZZ_ENRL_SYNC", timeout_seconds: float = 15
    ) -> httpx.Response:
        """Post one message, once."""
        body, headers = render(Message(0, operation, rows, 0.0, 0.0), stamp or datetime.now(UTC))
        return self.post_bytes(body, headers, timeout_seconds=timeout_seconds)

    def post_bytes(
        self, body: bytes, headers: Mapping[str, str], *, password: str | None = None, timeout_seconds: float = 15
    ) -> httpx.Response:
        """Post any bytes."""
        credentials = {"authorization": basic(INTAKE_USER, password or self.system.intake_password)}
        url = f"{self.publisher.url}/intake/peoplesoft"
        with httpx.Client(verify=NO_TLS, trust_env=False, timeout=timeout_seconds) as client:
            return client.post(url, content=body, headers={**headers, **credentials})

    def post_extract(self, content: bytes, started_at: datetime | None = None, term: str = TERM) -> httpx.Response:
        """Post a full extract of the enrollments of one term, once."""
        began = started_at or datetime.now(UTC)
        claim = {"institution": INSTITUTION, "term": term, "started_at": began.isoformat()}
        credentials = {"authorization": basic(INTAKE_USER, self.system.intake_password)}
        url = f"{self.publisher.url}/intake/snapshots/STDNT_ENRL"
        with httpx.Client(verify=NO_TLS, trust_env=False, timeout=60, headers=credentials) as client:
            return client.post(url, params=claim, content=content)

    def ask_publisher(self, path: str) -> dict[str, Any]:
        """What the publisher tells operators."""
        found: dict[str, Any] = self.operate("GET", path, at=self.publisher.url).json()
        return found

    def operate(
        self, method: str, path: str, content: object = None, *, at: str | None = None, token: str | None = None
    ) -> httpx.Response:
        """Call the operations API: that of `consumer`, as the operator, unless told otherwise. Text is sent as it is."""
        headers = {"authorization": f"Bearer {token or self.system.operator_token}"}
        body: dict[str, Any] = {"content": content} if isinstance(content, str) else {"json": content}
        with httpx.Client(verify=NO_TLS, trust_env=False, timeout=15, headers=headers) as client:
            return client.request(method, (at or self.consumer.url) + path, **body)

    def replay(self, scope: dict[str, Any], **options: bool) -> dict[str, Any]:
        """Plan a replay, apply it and wait for its end; returns the report."""
        plan = self._ended(self.operate("POST", "/replays", {"scope": scope, **options}))
        return self._ended(self.operate("POST", f"/replays/{plan['replay']}/apply", {"digest": plan["digest"]}))

    def _ended(self, answer: httpx.Response) -> dict[str, Any]:
        assert answer.status_code == HTTPStatus.ACCEPTED, answer.text
        path = answer.headers["location"]

        def report() -> dict[str, Any]:
            found: dict[str, Any] = self.operate("GET", path).json()
            return found

        eventually(lambda: report()["state"] == "done", 60, f"replay {path} is done")
        return report()

    # -- seeing ------------------------------------------------------------------------------------------------------------

    def writes(self) -> list[Write]:
        """What changed in Canvas so far."""
        return world.applied(self.canvas.writes())

    def state(self, seat: Seat) -> str | None:
        """Canvas's state of one seat; None when it never had it."""
        return next((each.state for each in world.placements(self.canvas) if each.seat == seat), None)

    def ledger(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Ask the ledger's database."""
        with psycopg.connect(self.system.wiring.ledger_url, autocommit=True) as connection:
            connection.execute("set search_path = ledger")
            return connection.execute(query.encode(), parameters).fetchall()

    def mirror(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Ask the mirror's database."""
        with psycopg.connect(self.system.wiring.mirror_url, autocommit=True) as connection:
            connection.execute("set search_path = mirror")
            return connection.execute(query.encode(), parameters).fetchall()

    def settled(self) -> bool:
        """Whether every event was read and every seat is as wanted."""
        return not self.unpublished() and not self.unread() and self.ledger("select count(*) from work") == [(0,)]

    def unpublished(self) -> int:
        """Events that Kafka has not acknowledged."""
        return int(self.mirror("select count(*) from outbox where dead_reason is null")[0][0])

    def unread(self) -> set[tuple[str, str, int]]:
        """Entities whose newest version the ledger has not got yet."""
        issued = self.mirror("select kind, key, version from entity where version > 0")
        return set(issued) - set(self.ledger("select kind, key, version from entity"))

    def lease_owner(self) -> str | None:
        """Who drives Canvas, by the ledger."""
        rows = self.ledger("select owner from lease where expires_at > clock_timestamp()")
        return str(rows[0][0]) if rows else None

    def violations(self) -> list[str]:
        """What the ledger's own assertions find broken."""
        with psycopg.connect(self.system.wiring.ledger_url) as connection:
            connection.execute("set search_path = ledger")
            return assertions.violations(connection, Policies("canvas"))

    def leaks(self, morning: Morning) -> list[str]:
        """Lines of logs, and metrics, that name a person; must be empty. Call it while the services still run."""
        people = [student.emplid for student in morning.school.students] + morning.school.instructor_pool
        words = {name for student in morning.school.students for name in student.name.split(",")[:1]}
        canary = re.compile("|".join([rf"(?<!\d){emplid}(?!\d)" for emplid in people] + [rf"\b{word}\b" for word in words]))
        found = []
        for log in sorted(self.system.wiring.folder.glob("*.log")):
            if log.stem.startswith(("publisher", "consumer")):
                found += [f"{log.name}: {line}" for line in log.read_text(errors="replace").splitlines() if canary.search(line)]
        for service in (self.publisher, self.consumer):
            found += [
                f"{service.name}/metrics: {line}" for line in (service.get("/metrics") or "").splitlines() if canary.search(line)
            ]
        return found


@contextmanager
def arena(
    name: str,
    server: EmbeddedPostgres,
    kafka: KafkaSettings,
    topics: Topics,
    publisher: Mapping[str, str],
    consumer: Mapping[str, str],
    canvas: Sequence[str] = (),
    policy: str | None = None,
) -> Iterator[Arena]:
    """Everything but the services is started; their logs stay in `LOGS`. Without a `policy` the packaged one, unguarded."""
    folder = LOGS / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    databases = [f"e2e_{kind}_{uuid.uuid4().hex[:8]}" for kind in ("mirror", "ledger")]
    mirror_url, ledger_url = (server.create_database(database) for database in databases)
    variables = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "KAFKA_FETCH_WAIT_MAX_MS": str(kafka.fetch_wait_max_ms),
        "KAFKA_LINGER_MS": str(kafka.linger_ms),
    }
    wiring = Wiring(folder, variables, mirror_url, ledger_url, topics.prefix, publisher, consumer, policy=policy or unguarded())
    try:
        with Processes(folder) as processes:
            system = System(processes, wiring)
            with system.start_canvas(*canvas) as control:
                yield Arena(processes, system, control, topics, kafka, system.publisher(), system.consumer())
            for process in processes.all:  # all at once: each takes its time to end in order, and none needs another for it
                process.terminate()
    finally:
        for database in databases:
            server.drop_database(database)


def eventually(condition: Callable[[], bool], seconds: float, promise: str) -> None:
    """Poll until `condition` holds; fails with `promise` after the time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not after {seconds:g} s: {promise}"
        time.sleep(0.1)


def one_class(canvas: CanvasControl, people: Sequence[str] = (), class_nbr: str = "26101") -> SchoolClass:
    """One class and its people in Canvas."""
    canvas.sections(section_id(class_nbr), course="1273-009001")
    canvas.users(*people)
    return SchoolClass(class_nbr, "009001", "001", "GEOL", " 1000")


def enrolled(emplid: str, class_nbr: str = "26101", **columns: str) -> RowChange:
    """An enrolment as the SIS sends it."""
    row = Enrollment(EnrollmentKey(emplid, "UGRD", class_nbr), "E", "ENRL", added="2027-01-04")
    change = enrollment_row(row, "A")
    change.fields.update(columns)
    return change


def dropped(emplid: str, class_nbr: str = "26101") -> RowChange:
    """A drop as the SIS sends it."""
    row = Enrollment(EnrollmentKey(emplid, "UGRD", class_nbr), "D", "DROP", added="2027-01-04", dropped="2027-01-05")
    return enrollment_row(row, "C")


def announced(school_class: SchoolClass) -> RowChange:
    """The class itself."""
    return class_row(school_class, "A")
