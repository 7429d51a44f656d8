"""``python -m services.sandbox canvas`` and ``broker`` as processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from confluent_kafka.admin import AdminClient

from schemas.topics import Topics

_SECONDS = 20


def wait_for(path: Path) -> dict[str, str]:
    deadline = time.monotonic() + _SECONDS
    while not path.exists():
        assert time.monotonic() < deadline, f"{path.name} was not written"
        time.sleep(0.02)
    facts: dict[str, str] = json.loads(path.read_text())
    return facts


@contextmanager
def running(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    child = subprocess.Popen([sys.executable, "-m", "services.sandbox", *words], stdout=subprocess.DEVNULL)
    try:
        yield child
    finally:
        child.kill()
        child.wait()


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("from-a-file\n")
    return path


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_canvas_tells_its_address_takes_the_tokens_file_and_ends_cleanly(
    tmp_path: Path, token_file: Path, number: signal.Signals
) -> None:
    ready = tmp_path / "ready.json"
    with running("canvas", "--port", "0", "--token-file", str(token_file), "--ready-file", str(ready)) as child:
        url = wait_for(ready)["url"]
        answer = httpx.get(f"{url}/api/v1/users/self", headers={"Authorization": "Bearer from-a-file"}, trust_env=False)
        assert answer.status_code == 200
        child.send_signal(number)
        assert child.wait(_SECONDS) == 0


def test_broker_serves_every_topic_and_ends_cleanly(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    with running("broker", "--topic-prefix", "cell7", "--partitions", "3", "--ready-file", str(ready)) as child:
        servers = wait_for(ready)["bootstrap_servers"]
        found = AdminClient({"bootstrap.servers": servers}).list_topics(timeout=10).topics
        expected = {name: min(partitions, 3) for name, partitions in Topics("cell7").all().items()}
        assert {name: len(found[name].partitions) for name in expected} == expected
        child.terminate()
        assert child.wait(_SECONDS) == 0


def test_a_child_does_not_outlive_its_parent(tmp_path: Path, token_file: Path) -> None:
    ready = tmp_path / "ready.json"
    words = ["canvas", "--port", "0", "--token-file", str(token_file), "--ready-file", str(ready)]
    program = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-m", "services.sandbox", *sys.argv[1:]])
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", program, *words], stdout=subprocess.DEVNULL)
    url = wait_for(ready)["url"]
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + _SECONDS
    while answers(url):
        assert time.monotonic() < deadline, "the child still serves"
        time.sleep(0.05)


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/_sandbox/health", trust_env=False).is_success
    except httpx.TransportError:
        return False


@pytest.mark.parametrize(
    ("words", "code"), [([], 2), (["nonsense"], 2), (["--help"], 0), (["canvas", "--help"], 0), (["broker", "--help"], 0)]
)
def test_help_says_what_there_is(words: list[str], code: int) -> None:
    done = subprocess.run([sys.executable, "-m", "services.sandbox", *words], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert "usage: python -m services.sandbox" in done.stdout + done.stderr
