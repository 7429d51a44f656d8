"""Failpoints: places where a test may kill, stop or block this process at an exact step. Off unless ``FAILPOINT`` is set.

``FAILPOINT="publisher.after_commit:kill@3,publisher.after_ack:pause@1"``: at the third pass through ``publisher.after_commit``
the process gets SIGKILL, at the first through ``publisher.after_ack`` SIGSTOP (continue it with SIGCONT).
``hang`` blocks only the thread that passes, for ever, as a deadlock would.
"""

from __future__ import annotations

import functools
import itertools
import os
import re
import signal
import threading
from collections.abc import Callable
from typing import NamedTuple

VARIABLE = "FAILPOINT"
_SPECIFICATION = re.compile(r"(?P<name>[a-z_.]+):(?P<action>kill|pause|hang)@(?P<number>[1-9][0-9]*)")
_SIGNALS = {"kill": signal.SIGKILL, "pause": signal.SIGSTOP, "hang": None}


class FailpointError(ValueError):
    """``FAILPOINT`` cannot be read; a fault that silently does nothing would prove nothing."""


class _Fault(NamedTuple):
    signal: signal.Signals | None
    """None blocks the thread."""
    number: int
    passes: Callable[[], int]
    """Counts from 1; safe from several threads."""


def failpoint(name: str) -> None:
    """Pass through the failpoint `name`; returns at once unless ``FAILPOINT`` asks for a fault here and now."""
    fault = _faults().get(name)
    if fault is not None and fault.passes() == fault.number:
        if fault.signal is None:
            threading.Event().wait()
        else:
            os.kill(os.getpid(), fault.signal)


@functools.cache
def _faults() -> dict[str, _Fault]:
    """What the environment asks for; read once, at the first failpoint of the process."""
    return parse(os.environ.get(VARIABLE, ""))


def parse(text: str) -> dict[str, _Fault]:
    """Read the variable's text; raises `FailpointError` for anything it does not understand."""
    faults = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        found = _SPECIFICATION.fullmatch(part)
        if found is None:
            raise FailpointError(f"{VARIABLE}: {part!r} is not name:kill@n, name:pause@n or name:hang@n")
        faults[found["name"]] = _Fault(_SIGNALS[found["action"]], int(found["number"]), itertools.count(1).__next__)
    return faults
