"""What Kubernetes does for a process: starts it again when it ended, and ends it when its liveness fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

from services.sandbox.demo.system import Service
from tests.drills.injectors import signals

_LOOK_SECONDS = 0.3
_FAILURES = 3
_PROBE_EVERY_SECONDS = 3.0


@dataclass(slots=True)
class Part:
    """One publisher or consumer, its normal environment, and what became of its processes."""

    service: Service
    normal: Mapping[str, str]
    wanted: bool = True
    """Started again whenever it ends."""
    special: bool = False
    """Runs with more than its normal environment."""
    ends: list[int | None] = field(default_factory=list)
    """Exit codes of processes that ended by themselves, or by a failpoint; a stop that a drill asks for is not among them."""
    unhealthy: int = 0
    """How often it was killed because ``/healthz`` failed three times."""

    @property
    def name(self) -> str:
        """As in its log's name."""
        return self.service.name

    def start(self, **more: str) -> Part:
        """Start it, this once with more variables."""
        self.special = bool(more)
        self.service.start(**(dict(self.normal) | more))
        if self.service.process is not None:
            self.service._processes.excuse(self.service.process)
        self.wanted = True
        return self

    def restart(self, **more: str) -> Part:
        """An orderly end, then anew, ready."""
        self.stop()
        self.start(**more)
        self.service.await_ready(90)
        return self

    def stop(self) -> int | None:
        """SIGTERM; stays down. Returns the exit code."""
        self.wanted = False
        return self.service.stop(40) if self.service.alive else None

    def kill(self) -> None:
        """SIGKILL; stays down until it is wanted again."""
        self.wanted = False
        if self.service.alive:
            self.service.kill()

    @property
    def pid(self) -> int:
        """Of its process at this moment."""
        assert self.service.process is not None
        return self.service.process.pid


class Supervisor:
    """Looks after parts in a thread of its own."""

    def __init__(self, parts: list[Part]) -> None:
        self._parts = parts
        self._over = threading.Event()
        self._failures: dict[str, int] = {}
        self._probed_at = 0.0
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)
        self.lock = threading.Lock()
        """Held while a drill stops and starts a part by hand."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; every part stays as it is."""
        self._over.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._over.wait(_LOOK_SECONDS):
            with self.lock:
                for part in self._parts:
                    if part.wanted and not part.service.alive and part.service.process is not None:
                        part.ends.append(part.service.process.exit_code)
                        self._failures[part.name] = 0
                        part.start()
                if time.monotonic() > self._probed_at + _PROBE_EVERY_SECONDS:
                    self._probed_at = time.monotonic()
                    self._probe()

    def _probe(self) -> None:
        for part in self._parts:
            if not part.wanted or not part.service.alive or signals.is_paused(part.pid):
                continue
            if _unhealthy(part.service.url):
                self._failures[part.name] = self._failures.get(part.name, 0) + 1
            else:
                self._failures[part.name] = 0
            if self._failures[part.name] >= _FAILURES and part.service.process is not None:
                part.unhealthy += 1
                part.service.process.kill()


def _unhealthy(url: str) -> bool:
    """It says so itself. No answer at all is not counted: it may be starting, or the machine is busy."""
    try:
        return httpx.get(f"{url}/healthz", timeout=3, trust_env=False).status_code >= 500
    except httpx.TransportError:
        return False
