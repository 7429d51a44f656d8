"""Pausing and killing whole process trees, and taking memory away."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import psutil  # type: ignore[import-untyped]


def pause(*pids: int) -> None:
    """SIGSTOP each process and its descendants. A process that has ended meanwhile is no error."""
    for pid in pids:
        for process in _family(pid):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGSTOP)


def resume(*pids: int) -> None:
    """SIGCONT, children first."""
    for pid in pids:
        for process in reversed(_family(pid)):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGCONT)


@contextmanager
def paused(*pids: int) -> Iterator[None]:
    """Stopped inside, and running again behind, in any case."""
    pause(*pids)
    try:
        yield
    finally:
        resume(*pids)


def is_paused(pid: int) -> bool:
    """Whether the process is stopped by a signal."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)
    except psutil.NoSuchProcess:
        return False


def limit_memory(pid: int, share: float) -> None:
    """Let the process have at most this share of the data that it has; below 1 it gets no page more.

    ``RLIMIT_DATA`` alone: ``RLIMIT_AS`` leaves it what malloc has reserved, up to 64 MiB for each thread, and where that limit is
    passed already, Linux does not look at the other one when such a reserve is used (``mprotect_fixup`` in ``mm/mprotect.c``).
    """
    limit = int(psutil.Process(pid).memory_info().data * share)
    resource.prlimit(pid, resource.RLIMIT_DATA, (limit, limit))


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


_TICKER = "import time\nwhile True:\n    print('tick', flush=True)\n    time.sleep(0.02)"
_GREEDY = """
import sys, threading
hoard = []
def take():
    print('ready', flush=True)
    sys.stdin.readline()
    try:
        for _ in range(300):
            hoard.append(b'x' * 100_000)
        print('took it', flush=True)
    except MemoryError:
        print('hungry', flush=True)
thread = threading.Thread(target=take)
thread.start()
thread.join()
"""
"""In pieces that malloc takes from what it has reserved for a thread."""


def prove_pause() -> None:
    """A stopped process says nothing until it is continued; a killed one is gone."""
    child = subprocess.Popen([sys.executable, "-c", _TICKER], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    assert child.stdout is not None
    try:
        child.stdout.readline()
        pause(child.pid)
        _until(lambda: is_paused(child.pid))
        os.set_blocking(child.stdout.fileno(), False)
        while child.stdout.read():
            pass
        time.sleep(0.2)
        assert not child.stdout.read(), "a stopped process went on"
        resume(child.pid)
        _until(lambda: bool(child.stdout and child.stdout.read()))
    finally:
        child.kill()
        assert child.wait(5) == -signal.SIGKILL
        child.stdout.close()


def prove_memory() -> None:
    """A thread of a process under the limit cannot take 30 MB more, in small pieces."""
    child = subprocess.Popen(
        [sys.executable, "-c", _GREEDY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    limit_memory(child.pid, 0.5)
    output, _ = child.communicate("\n", timeout=20)
    assert "took it" not in output


def _until(condition: Callable[[], bool], seconds: float = 5) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
