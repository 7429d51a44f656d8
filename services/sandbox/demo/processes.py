"""Child processes: started with a clean environment, watched, logged to files, stopped in reverse order."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType

_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "USER", "LOGNAME", "SSL_CERT_FILE")
"""Everything else of the caller's environment stays out: a setting or a proxy of the machine must not reach the parts."""

_POLL_SECONDS = 0.05
_PORTS = range(20_000, 30_000)
"""Below those that systems give to outgoing connections (Linux: 32768 and up)."""
_given: set[int] = set()


class ProcessFailed(RuntimeError):
    """A child ended, or was not ready in time; the message holds the end of its log."""


class Process:
    """One child. `name` is also the name of its log file; a later child of the same name appends to it."""

    def __init__(self, name: str, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        """Start ``python -m ARGUMENTS``; returns at once."""
        self.name = name
        self.log = log
        self.log.parent.mkdir(parents=True, exist_ok=True)
        inherited = {variable: os.environ[variable] for variable in _PASSED_ON if variable in os.environ}
        with self.log.open("ab") as sink:
            # A session of its own: Ctrl-C reaches the parent alone, which then stops its children in order.
            self._child = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                env=inherited | {"PYTHONUNBUFFERED": "1"} | dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether the child still runs."""
        return self._child.poll() is None

    @property
    def exit_code(self) -> int | None:
        """As subprocess has it: negative for a signal, None while it runs."""
        return self._child.poll()

    def check(self) -> None:
        """Raise `ProcessFailed` when the child has ended."""
        if not self.alive:
            raise ProcessFailed(f"{self.name} ended {self._how()}; its log {self.log} ends with:\n{self.tail()}")

    def await_ready(self, ready: Callable[[], bool], timeout_seconds: float) -> None:
        """Block until `ready` is true; raises `ProcessFailed` when the child ends first or takes too long."""
        deadline = time.monotonic() + timeout_seconds
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise ProcessFailed(
                    f"{self.name} was not ready after {timeout_seconds:g} s; its log {self.log} ends with:\n{self.tail()}"
                )
            time.sleep(_POLL_SECONDS)

    def terminate(self) -> None:
        """Ask it to end (SIGTERM); a stopped process is continued so that it can hear."""
        if self.alive:
            self._child.send_signal(signal.SIGCONT)
            self._child.terminate()

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        if self.alive:
            self._child.kill()
        self._child.wait()

    def wait(self, timeout_seconds: float) -> int | None:
        """The exit code, None when it still runs after the timeout."""
        try:
            return self._child.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return None

    def tail(self, lines: int = 15) -> str:
        """The end of its log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join("  " + line for line in text.splitlines()[-lines:]) or "  (nothing)"

    def _how(self) -> str:
        code = self._child.returncode
        return f"by {signal.Signals(-code).name}" if code and code < 0 else f"with exit code {code}"


class Processes:
    """All children of one run; leaving the context stops them, the last started first."""

    def __init__(self, folder: Path) -> None:
        """Logs go to `folder`."""
        self.folder = folder
        self.all: list[Process] = []
        self._excused: set[Process] = set()

    def start(self, name: str, arguments: Sequence[str], environment: Mapping[str, str]) -> Process:
        """Start a child; see `Process`."""
        process = Process(name, arguments, environment, self.folder / f"{name}.log")
        self.all.append(process)
        return process

    def check(self) -> None:
        """Raise `ProcessFailed` when a child has ended that was not meant to."""
        for process in list(self.all):
            if process not in self._excused:
                process.check()

    def excuse(self, process: Process) -> None:
        """This child may end. Say so before it does: another thread may `check` at any moment."""
        self._excused.add(process)

    def stop(self, timeout_seconds: float = 20.0) -> None:
        """SIGTERM to each in reverse order of starting, one after the other; SIGKILL for those that do not listen."""
        for process in reversed(self.all):
            process.terminate()
            if process.wait(timeout_seconds) is None:
                process.kill()
        self.all.clear()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()


def free_port() -> int:
    """A port of the loopback that nobody uses, and that no outgoing connection takes before its server is there.

    Ports that the system gives by itself are not safe: a database or broker that starts later, or again, may find its own taken.
    """
    for port in random.sample(_PORTS, len(_PORTS)):
        if port in _given:
            continue
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given.add(port)
            return port
    raise RuntimeError(f"no free port from {_PORTS.start} to {_PORTS.stop}")
