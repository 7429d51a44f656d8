"""Children are watched: a dead one is an error that shows the end of its log, and none outlives its parent's context."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from services.sandbox.demo.command import alone_in
from services.sandbox.demo.processes import Process, Processes, ProcessFailed

ECHO_ENVIRONMENT = ["timeit", "-n1", "-r1", "import os; print(sorted(os.environ)); raise SystemExit(3)"]
FOREVER = ["timeit", "-n1", "-r1", "import time; time.sleep(600)"]


def test_a_dead_child_is_an_error_with_the_end_of_its_log(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        child = processes.start("short", ECHO_ENVIRONMENT, {})
        with pytest.raises(ProcessFailed, match=r"short ended with exit code 1; its log .*short.log ends with:\n[^~]*SystemExit"):
            child.await_ready(lambda: False, 30)


def test_a_killed_child_is_named_by_its_signal(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        child = processes.start("victim", FOREVER, {})
        os.kill(child.pid, signal.SIGKILL)
        child.wait(10)
        with pytest.raises(ProcessFailed, match="victim ended by SIGKILL"):
            processes.check()


def test_a_child_that_may_end_is_no_error_and_still_stopped_in_the_end(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        ended, running = processes.start("ended", ECHO_ENVIRONMENT, {}), processes.start("running", FOREVER, {})
        for child in (ended, running):
            processes.excuse(child)
        ended.wait(30)
        processes.check()
    assert not running.alive


def test_a_child_that_is_not_ready_in_time_is_an_error(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        child = processes.start("slow", FOREVER, {})
        with pytest.raises(ProcessFailed, match=r"slow was not ready after 0.1 s"):
            child.await_ready(lambda: False, 0.1)


def test_leaving_the_context_stops_every_child_even_a_stopped_one(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        children = [processes.start(name, FOREVER, {}) for name in ("one", "two")]
        os.kill(children[0].pid, signal.SIGSTOP)
    assert [child.alive for child in children] == [False, False]


def test_settings_of_the_machine_do_not_reach_a_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://production")
    child = Process("printer", ECHO_ENVIRONMENT, {"WANTED": "1"}, tmp_path / "printer.log")
    child.wait(30)
    assert "DATABASE_URL" not in child.tail()
    assert "WANTED" in child.tail()


def test_a_second_child_of_the_same_name_appends_to_the_log(tmp_path: Path) -> None:
    for _ in range(2):
        Process("again", ECHO_ENVIRONMENT, {}, tmp_path / "again.log").wait(30)
    assert (tmp_path / "again.log").read_text().count("'PATH'") == 2


def test_a_second_demo_does_not_delete_the_first_ones_database(tmp_path: Path) -> None:
    with alone_in(tmp_path / "demo"), pytest.raises(ProcessFailed, match="another demo is running"), alone_in(tmp_path / "demo"):
        pytest.fail("two demos in one folder")
    with alone_in(tmp_path / "demo"):
        pass
