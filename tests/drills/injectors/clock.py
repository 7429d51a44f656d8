"""Another wall clock for one process (`wall_clock.c` by ``LD_PRELOAD``); the monotonic clock stays true."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

_SOURCE = Path(__file__).with_name("wall_clock.c")
_PROOF = """
import threading, time
from confluent_kafka import Consumer
print(time.time(), time.monotonic())
Consumer({"bootstrap.servers": "127.0.0.1:1", "group.id": "x", "log_level": 0}).poll(0.1)
threading.Event().wait(0.1)
"""


def missing() -> str | None:
    """Why this machine cannot do it; None when it can."""
    return None if shutil.which("cc") else "no C compiler (Debian and Ubuntu: apt-get install gcc libc6-dev)"


def shifted(seconds: int) -> Mapping[str, str]:
    """Environment of a process whose clock is off by so many seconds."""
    return {"LD_PRELOAD": str(_library()), "WALL_CLOCK_OFFSET": str(seconds)}


@functools.cache
def _library() -> Path:
    library = Path(tempfile.mkdtemp(prefix="enrollstream-drills-clock-")) / "wall_clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(_SOURCE), "-ldl"], check=True)
    return library


def prove() -> None:
    """Two days ahead, or an hour behind, by the wall, not a second by the monotonic clock, and waits of all kinds still end."""
    for offset in (2 * 24 * 3600, -3600):
        answer = subprocess.run(
            [sys.executable, "-c", _PROOF], env=dict(shifted(offset)), check=True, capture_output=True, text=True, timeout=20
        )
        wall, monotonic = map(float, answer.stdout.split())
        assert abs(wall - time.time() - offset) < 60
        assert abs(monotonic - time.monotonic()) < 60
