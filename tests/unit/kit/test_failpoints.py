"""Failpoints do nothing in production, and bite exactly once at the asked pass in a test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from services.kit.failpoints import FailpointError, parse

_PROGRAM = """
from services.kit.failpoints import failpoint
for number in range(1, 5):
    failpoint("publisher.after_commit")
    failpoint("publisher.after_ack")
    print(number, flush=True)
"""


def _run(setting: str | None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "FAILPOINT"}
    environment |= {"FAILPOINT": setting} if setting is not None else {}
    return subprocess.run([sys.executable, "-c", _PROGRAM], env=environment, capture_output=True, text=True, check=False)


def test_without_the_variable_nothing_happens() -> None:
    assert _run(None).stdout.split() == ["1", "2", "3", "4"]


def test_kill_strikes_at_the_asked_pass() -> None:
    done = _run("publisher.after_commit:kill@3")
    assert done.stdout.split() == ["1", "2"]
    assert done.returncode == -signal.SIGKILL


def test_pause_stops_the_process_until_it_is_continued() -> None:
    environment = os.environ | {"FAILPOINT": "publisher.after_ack:pause@2"}
    with subprocess.Popen([sys.executable, "-c", _PROGRAM], env=environment, stdout=subprocess.PIPE, text=True) as process:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        os.kill(process.pid, signal.SIGCONT)
        output, _ = process.communicate(timeout=20)
    assert output.split() == ["1", "2", "3", "4"]


def test_hang_blocks_the_thread_and_not_the_process() -> None:
    environment = os.environ | {"FAILPOINT": "publisher.after_ack:hang@2"}
    with subprocess.Popen([sys.executable, "-c", _PROGRAM], env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "1\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.3)
        process.terminate()
        assert process.stdout.read() == ""


@pytest.mark.parametrize("text", ["publisher.after_commit", "a:explode@1", "a:kill@0", "a:kill@one"])
def test_a_fault_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(FailpointError):
        parse(text)
