"""The consumer as a process: killed between two commits, stopped, without its database, with another policy."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas.topics import Topics
from services.consumer.policy.model import default_text
from services.kit.kafka import KafkaSettings
from services.sandbox.demo.processes import free_port
from services.sandbox.postgres import EmbeddedPostgres
from tests.integration.consumer.intake_support import Running, Writer, eventually, settings
from tests.integration.consumer.ledger_support import Ledger, enrollment
from tests.kafka_clients import ends


class Process:
    """``python -m services.consumer`` with an environment of its own."""

    def __init__(self, folder: Path, kafka: KafkaSettings, topics: Topics, database_url: str, **more: str) -> None:
        self.port = free_port()
        (folder / "token").write_text("secret")
        self._environment = {
            "PATH": os.environ["PATH"],
            "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "KAFKA_FETCH_WAIT_MAX_MS": str(kafka.fetch_wait_max_ms),
            "KAFKA_LINGER_MS": str(kafka.linger_ms),
            "DATABASE_URL": database_url,
            "TOPIC_PREFIX": topics.prefix,
            "GROUP_ID": topics.prefix,
            "CANVAS_URL": "http://127.0.0.1:9",
            "CANVAS_TOKEN_FILE": str(folder / "token"),
            "PORT": str(self.port),
            **more,
        }
        self.log = folder / "consumer.log"

    def start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "services.consumer"], env=self._environment, stdout=output, stderr=output
            )

    def get(self, path: str) -> tuple[int, dict[str, bool]]:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())
        except OSError:
            return 0, {}


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    ledger = Ledger(database_url)
    yield ledger
    ledger.close()


@pytest.fixture
def writer(kafka: KafkaSettings, topics: Topics) -> Writer:
    return Writer(kafka, topics)


def stored_everything(ledger: Ledger, kafka: KafkaSettings, topics: Topics) -> bool:
    topic = topics.entity("enrollment")
    return dict(ledger.rows('select "partition", next from intake_offset where topic = %s', topic)) == ends(kafka, topic)


def test_a_kill_between_the_ledgers_commit_and_kafkas_loses_and_repeats_nothing(
    kafka: KafkaSettings, topics: Topics, ledger: Ledger, writer: Writer, tmp_path: Path
) -> None:
    writer.write(*(enrollment(person=f"9{number:06}") for number in range(40)))
    killed = Process(tmp_path, kafka, topics, ledger.url, FAILPOINT="consumer.after_ledger_commit:kill@1").start()
    assert killed.wait(60) == -signal.SIGKILL
    before = len(ledger.desired())
    assert before > 0

    process = Process(tmp_path, kafka, topics, ledger.url)
    running = process.start()
    try:
        eventually(lambda: stored_everything(ledger, kafka, topics), 60)
        eventually(lambda: process.get("/readyz")[0] == 200)
        assert process.get("/healthz") == (200, {"intake": True, "driver": True})
    finally:
        running.terminate()
        code = running.wait(20)

    assert code == 0
    assert len(ledger.desired()) == 40
    assert ledger.rows("select count(*) from history where what = 'received'") == [(40,)], "every record counted once"
    assert ledger.rows("select active from recovery") == [(False,)]
    assert "9000001" not in process.log.read_text()


def test_without_its_database_it_lives_and_says_what_it_lacks(kafka: KafkaSettings, topics: Topics, tmp_path: Path) -> None:
    process = Process(tmp_path, kafka, topics, "postgresql://127.0.0.1:9/none")
    running = process.start()
    try:
        eventually(lambda: process.get("/readyz")[0] == 503)
        assert process.get("/readyz")[1]["migrations"] is False
        assert process.get("/healthz")[0] == 200
    finally:
        running.terminate()
        code = running.wait(20)
    assert code == 0


def test_another_policy_comes_only_by_command(
    kafka: KafkaSettings, topics: Topics, ledger: Ledger, writer: Writer, tmp_path: Path
) -> None:
    other = tmp_path / "policy.yaml"
    other.write_text(default_text().replace("drop_action: deleted", "drop_action: inactive"))
    writer.write(enrollment("dropped"))
    process = Process(tmp_path, kafka, topics, ledger.url, POLICY_FILE=str(other))
    running = process.start()
    try:
        eventually(lambda: set(ledger.desired().values()) == {"deleted"}, 60)

        environment = {"PATH": os.environ["PATH"], "DATABASE_URL": ledger.url}
        command = [sys.executable, "-m", "services.consumer", "policy", "apply", str(other), "--actor", "registrar"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

        assert (done.returncode, done.stdout) == (
            0,
            "Policy of main: version 2 is active now; 1 seats have work because of it.\n",
        )
        assert set(ledger.desired().values()) == {"inactive"}
        assert ledger.rows("select actor, action from audit") == [("registrar", "policy.apply")]
        writer.write(enrollment("dropped", person="2"))
        eventually(lambda: list(ledger.desired().values()) == ["inactive"] * 2)
    finally:
        running.terminate()
        code = running.wait(20)
    assert code == 0
    assert ledger.rows("select expires_at <= clock_timestamp() from lease") == [(True,)], "the lease was released"
    assert "policy_file_not_applied" in process.log.read_text()


def test_a_policy_that_cannot_be_used_is_refused_with_its_line(tmp_path: Path) -> None:
    wrong = tmp_path / "policy.yaml"
    wrong.write_text(default_text().replace("withdrawn: inactive", "withdrawn: gone"))
    command = [sys.executable, "-m", "services.consumer"]
    environment = {
        "PATH": os.environ["PATH"],
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9",
        "DATABASE_URL": "postgresql://127.0.0.1:9/none",
        "CANVAS_URL": "http://127.0.0.1:9",
        "CANVAS_TOKEN_FILE": "/nowhere",
        "POLICY_FILE": str(wrong),
    }

    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)

    assert done.returncode == 2
    assert "statuses.withdrawn" in done.stderr
    assert done.stderr.startswith("line ")


def test_while_the_ledger_is_away_the_member_stays_and_nothing_is_lost(
    kafka: KafkaSettings, topics: Topics, writer: Writer, own_postgres: EmbeddedPostgres
) -> None:
    ledger = Ledger(own_postgres.create_database("ledger"))
    with Running(kafka, settings(ledger.url, topics)) as running:
        writer.write(*(enrollment(person=f"9{number:06}") for number in range(20)))
        eventually(lambda: stored_everything(ledger, kafka, topics))
        ledger.close()
        own_postgres.kill()
        writer.write(*(enrollment(person=f"9{number:06}") for number in range(20, 40)))
        eventually(lambda: not running.intake.status.ready()["ledger"])
        assert running.intake.pulse.alive()

        own_postgres.start_again()
        ledger = Ledger(ledger.url)
        eventually(lambda: stored_everything(ledger, kafka, topics), 60)
        eventually(lambda: running.ready)

        assigned = running.metrics.registry.get_sample_value("sis_rebalances_total", {"what": "assigned"})
        assert assigned == 1, "the membership lived through it"
    assert len(ledger.desired()) == 40
    assert ledger.rows("select active from recovery") == [(False,)]
    ledger.check()
    ledger.close()
