"""A process that should have ended does."""

from __future__ import annotations

import subprocess
import sys

_HANGS = """
import time
from services.kit.watchdog import Watchdog
watchdog = Watchdog(0.2).start()
{armed}
time.sleep({seconds})
print("lived on")
"""


def run(armed: bool, seconds: float) -> subprocess.CompletedProcess[str]:
    code = _HANGS.format(armed="watchdog.arm()" if armed else "", seconds=seconds)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)


def test_a_process_that_hangs_at_its_end_is_ended() -> None:
    ended = run(armed=True, seconds=25)

    assert (ended.returncode, ended.stdout) == (1, "")


def test_nothing_is_ended_before_its_end_begins() -> None:
    ended = run(armed=False, seconds=1.5)

    assert (ended.returncode, ended.stdout) == (0, "lived on\n")
