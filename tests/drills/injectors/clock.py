"""Another wall clock for one process (libfaketime); the monotonic clock stays true."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

_PLACES = ("/usr/lib/*/faketime/libfaketimeMT.so.1", "/usr/local/lib/faketime/libfaketimeMT.so.1")


def _library() -> Path | None:
    return next((path for place in _PLACES for path in Path("/").glob(place.lstrip("/"))), None)


def missing() -> str | None:
    """Why this machine cannot do it; None when it can."""
    return None if _library() else "no libfaketime (Debian and Ubuntu: apt-get install libfaketime)"


def shifted(offset: str) -> Mapping[str, str]:
    """Environment of a process whose clock is off by, for example, ``+2d`` or ``-1h``."""
    library = _library()
    assert library is not None, missing()
    return {"LD_PRELOAD": str(library), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def prove() -> None:
    """Two days ahead by the wall, not a second by the monotonic clock."""
    code = "import time; print(time.time(), time.monotonic())"
    answer = subprocess.run(
        [sys.executable, "-c", code], env=dict(shifted("+2d")), check=True, capture_output=True, text=True, timeout=20
    )
    wall, monotonic = map(float, answer.stdout.split())
    assert abs(wall - time.time() - 2 * 24 * 3600) < 60
    assert abs(monotonic - time.monotonic()) < 60
