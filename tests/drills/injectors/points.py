"""Failpoints of our own processes (`services.kit.failpoints`): killed, stopped or stuck at an exact step."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from services.kit.failpoints import VARIABLE
from tests.drills.injectors.signals import is_paused, resume

_WALK = """
from services.kit.failpoints import failpoint
for number in range(1, 4):
    failpoint("drill.step")
    print(number, flush=True)
"""


def _walk(action: str) -> subprocess.Popen[str]:
    environment = {"PATH": os.environ["PATH"], VARIABLE: f"drill.step:{action}@2"}
    return subprocess.Popen([sys.executable, "-c", _WALK], env=environment, stdout=subprocess.PIPE, text=True)


def prove() -> None:
    """Killed at the second pass: one step was made. Stopped there: the others follow after SIGCONT. Stuck there: none follow."""
    killed = _walk("kill")
    assert killed.communicate(timeout=20)[0] == "1\n"
    assert killed.returncode == -signal.SIGKILL

    stopped = _walk("pause")
    deadline = time.monotonic() + 20
    while not is_paused(stopped.pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    resume(stopped.pid)
    assert stopped.communicate(timeout=20)[0] == "1\n2\n3\n"

    stuck = _walk("hang")
    try:
        assert stuck.stdout is not None
        assert stuck.stdout.readline() == "1\n"
        time.sleep(0.3)
        assert stuck.poll() is None
    finally:
        stuck.kill()
        assert stuck.communicate(timeout=20)[0] == ""
