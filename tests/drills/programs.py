"""Programs that are not ours (brokers, database servers): started, logged to a file, and treated badly."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_CALM = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR")


class Program:
    """One child and what it starts. Started again, it keeps its arguments and its log."""

    def __init__(self, name: str, arguments: Sequence[str], log: Path, user: str | None = None) -> None:
        """Nothing runs yet. `user` only where we are root."""
        self.name = name
        self.log = log
        self._arguments = list(arguments)
        self._user = user
        self._child: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it without waiting for anything."""
        assert not self.alive, f"{self.name} runs already"
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as sink:
            self._child = subprocess.Popen(
                self._arguments,
                env={name: os.environ[name] for name in _CALM if name in os.environ},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=self._user,
                cwd="/",
            )

    @property
    def pid(self) -> int:
        """The child's process id."""
        assert self._child is not None, f"{self.name} was never started"
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether it runs (a stopped one does)."""
        return self._child is not None and self._child.poll() is None

    def await_ready(self, ready: Callable[[], bool], seconds: float) -> None:
        """Block until `ready`; raises with the end of its log when it ends first or takes too long."""
        deadline = time.monotonic() + seconds
        while not ready():
            if not self.alive or time.monotonic() > deadline:
                raise RuntimeError(f"{self.name} {'took too long' if self.alive else 'ended'}; its log ends with:\n{self.tail()}")
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL."""
        if self._child is not None:
            self._child.kill()
            self._child.wait(20)

    def stop(self, signal_number: int, seconds: float = 30) -> None:
        """Ask it to end, then insist."""
        if self._child is None or not self.alive:
            return
        self._child.send_signal(signal_number)
        try:
            self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()

    def tail(self, lines: int = 15) -> str:
        """The end of its log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])
