"""The parts of one running system, wired together on this machine: Canvas sandbox, publisher, consumers. For demo and tests."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import httpx
from cryptography.fernet import Fernet
from prometheus_client.parser import text_string_to_metric_families

from services.sandbox.canvas.client import CanvasControl
from services.sandbox.demo.processes import Process, Processes, free_port

START_SECONDS = 30.0
INTAKE_USER, OPERATOR, COLLEAGUE = "peoplesoft", "operator", "colleague"


@dataclass(frozen=True, slots=True)
class Wiring:
    """What the parts share, and what a test wants to be different."""

    folder: Path
    """Logs and secrets of this run."""
    kafka: Mapping[str, str]
    """``KAFKA_*`` variables."""
    mirror_url: str
    ledger_url: str
    topic_prefix: str = "enrollstream"
    publisher: Mapping[str, str] = field(default_factory=dict)
    """Further environment variables of every publisher."""
    consumer: Mapping[str, str] = field(default_factory=dict)
    """The same of every consumer."""
    policy: str | None = None
    """The registrar's policy, as YAML; the packaged one when absent."""


class Service:
    """One publisher or consumer: a process with an address. Started again, it keeps address and log."""

    def __init__(self, processes: Processes, name: str, module: str, environment: Mapping[str, str]) -> None:
        self.name = name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._processes = processes
        self._module = module
        self._environment = {"PORT": str(self.port), **environment}
        self.process: Process | None = None

    def start(self, **more: str) -> Service:
        """Start the process (with more variables, for this time only) without waiting for it."""
        self.process = self._processes.start(self.name, [self._module], self._environment | more)
        return self

    def await_ready(self, timeout_seconds: float = START_SECONDS) -> Service:
        """Block until ``/readyz`` is fine."""
        self._running().await_ready(lambda: self.get("/readyz") is not None, timeout_seconds)
        return self

    def kill(self) -> int | None:
        """SIGKILL, on purpose; the exit code, -9 unless it had ended by itself before."""
        process = self._running()
        self._processes.excuse(process)
        process.kill()
        return process.exit_code

    def stop(self, timeout_seconds: float = 20.0) -> int | None:
        """SIGTERM, on purpose; the exit code, None when it did not end in time."""
        process = self._running()
        self._processes.excuse(process)
        process.terminate()
        code = process.wait(timeout_seconds)
        if code is None:
            process.kill()
        return code

    def await_death(self, timeout_seconds: float) -> int | None:
        """Block until the process has ended by itself, as a failpoint makes it; None when it still runs."""
        process = self._running()
        self._processes.excuse(process)
        return process.wait(timeout_seconds)

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.alive

    def get(self, path: str) -> str | None:
        """The body of a 200, None for anything else."""
        try:
            answer = httpx.get(self.url + path, timeout=5, trust_env=False)
        except httpx.TransportError:
            return None
        return answer.text if answer.status_code == HTTPStatus.OK else None

    def metric(self, name: str, **labels: str) -> float:
        """The sum of all samples of one metric that carry these labels; 0 while the service does not answer."""
        return sum(
            sample.value
            for family in text_string_to_metric_families(self.get("/metrics") or "")
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def _running(self) -> Process:
        assert self.process is not None, f"{self.name} was never started"  # noqa: S101  (a mistake of the caller)
        return self.process


class System:
    """Builds the parts; what is started belongs to the given `Processes`."""

    def __init__(self, processes: Processes, wiring: Wiring) -> None:
        """Write the secrets; nothing is started yet."""
        self.wiring = wiring
        self._processes = processes
        self.secrets = wiring.folder / "secrets"
        self.secrets.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.intake_password = secrets.token_urlsafe(18)
        self.operator_token, self.colleague_token = secrets.token_urlsafe(18), secrets.token_urlsafe(18)
        self._write_secret("intake", f"{INTAKE_USER}:{self.intake_password}")
        self._write_secret("operations", f"{OPERATOR}:{self.operator_token}\n{COLLEAGUE}:{self.colleague_token}")
        self._write_secret("canvas-token", secrets.token_urlsafe(32))
        self._write_secret("quarantine-key", Fernet.generate_key().decode())
        self._policy = {} if wiring.policy is None else {"POLICY_FILE": str(wiring.folder / "policy.yaml")}
        if wiring.policy is not None:
            (wiring.folder / "policy.yaml").write_text(wiring.policy)
        self.canvas_url = ""

    def _write_secret(self, name: str, text: str) -> None:
        path = self.secrets / name
        path.touch(mode=0o600)
        path.write_text(text + "\n")

    def start_canvas(self, *more: str) -> CanvasControl:
        """Start the sandbox and wait for it; `more` are further arguments of its command."""
        ready_file = self.wiring.folder / "canvas.json"
        ready_file.unlink(missing_ok=True)
        arguments = ["--port", "0", "--token-file", str(self.secrets / "canvas-token"), "--ready-file", str(ready_file), *more]
        process = self._processes.start("canvas", ["services.sandbox", "canvas", *arguments], {})
        process.await_ready(ready_file.exists, START_SECONDS)
        self.canvas_url = json.loads(ready_file.read_text())["url"]
        control = CanvasControl(self.canvas_url)
        process.await_ready(lambda: _answers(f"{self.canvas_url}/_sandbox/health"), START_SECONDS)
        return control

    def publisher(self, name: str = "publisher") -> Service:
        """A publisher, not started yet."""
        environment = {
            **self.wiring.kafka,
            "TOPIC_PREFIX": self.wiring.topic_prefix,
            "DATABASE_URL": self.wiring.mirror_url,
            "INTAKE_CREDENTIALS_FILE": str(self.secrets / "intake"),
            "OPERATIONS_CREDENTIALS_FILE": str(self.secrets / "operations"),
            "QUARANTINE_KEY_FILE": str(self.secrets / "quarantine-key"),
            **self.wiring.publisher,
        }
        return Service(self._processes, name, "services.publisher", environment)

    def consumer(self, name: str = "consumer") -> Service:
        """A consumer, not started yet; several of them share one group and one ledger."""
        environment = {
            **self.wiring.kafka,
            "TOPIC_PREFIX": self.wiring.topic_prefix,
            "GROUP_ID": self.wiring.topic_prefix,
            "DATABASE_URL": self.wiring.ledger_url,
            "CANVAS_URL": self.canvas_url,
            "CANVAS_TOKEN_FILE": str(self.secrets / "canvas-token"),
            "OPERATIONS_CREDENTIALS_FILE": str(self.secrets / "operations"),
            **self._policy,
            **self.wiring.consumer,
        }
        return Service(self._processes, name, "services.consumer", environment)


def start_broker(processes: Processes, folder: Path, topic_prefix: str) -> dict[str, str]:
    """Start the in-memory Kafka in a process of its own; returns the ``KAFKA_*`` variables that its clients need."""
    ready_file = folder / "broker.json"
    ready_file.unlink(missing_ok=True)
    arguments = ["--ready-file", str(ready_file), "--topic-prefix", topic_prefix]
    process = processes.start("broker", ["services.sandbox", "broker", *arguments], {})
    process.await_ready(ready_file.exists, START_SECONDS)
    return embedded_kafka(json.loads(ready_file.read_text())["bootstrap_servers"])


def embedded_kafka(bootstrap_servers: str) -> dict[str, str]:
    """The ``KAFKA_*`` variables for librdkafka's mock cluster: it answers an idle fetch late and keeps a set per batch."""
    return {"KAFKA_BOOTSTRAP_SERVERS": bootstrap_servers, "KAFKA_FETCH_WAIT_MAX_MS": "20", "KAFKA_LINGER_MS": "5"}


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).status_code == HTTPStatus.OK
    except httpx.TransportError:
        return False
