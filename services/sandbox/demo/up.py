"""Runs publisher and consumer on this machine against your own services, until Ctrl-C or until one of them ends.

Both read the environment; ``python -m services.publisher --help`` and ``python -m services.consumer --help`` say what. Needed at
least: KAFKA_BOOTSTRAP_SERVERS, DATABASE_URL, CANVAS_URL, CANVAS_TOKEN_FILE and INTAKE_CREDENTIALS_FILE.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time

NEEDED = {
    "KAFKA_BOOTSTRAP_SERVERS": "host:port[,host:port...] of Kafka",
    "DATABASE_URL": "PostgreSQL, for example postgresql://user:password@host/database (mirror and ledger take a schema each)",
    "CANVAS_URL": "origin of Canvas, for example https://canvas.example.edu",
    "CANVAS_TOKEN_FILE": "file with the API token on one line",
    "INTAKE_CREDENTIALS_FILE": "file of those who may deliver changes, one name:secret a line",
}
_SERVICES = ("publisher", "consumer")


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """It reads the environment only."""


def run(_arguments: argparse.Namespace) -> int:
    """Start both; 2 when something is missing, 1 when a service ended by itself."""
    missing = [name for name in NEEDED if not os.environ.get(name)]
    if missing:
        for name in missing:
            print(f"{name} is not set: {NEEDED[name]}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # Sessions of their own: Ctrl-C reaches this process alone, which then stops both in order.
    children = {
        name: subprocess.Popen([sys.executable, "-m", f"services.{name}"], env=_environment(), start_new_session=True)
        for name in _SERVICES
    }
    try:
        while all(child.poll() is None for child in children.values()):
            time.sleep(0.3)
        ended = next(name for name, child in children.items() if child.poll() is not None)
        print(f"{ended} ended with exit code {children[ended].returncode}; stopping", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        _stop(children)


def _environment() -> dict[str, str]:
    """Each service has a default port of its own; one PORT for both would not do."""
    return {name: value for name, value in os.environ.items() if name != "PORT"}


def _stop(children: dict[str, subprocess.Popen[bytes]]) -> None:
    for child in reversed(children.values()):
        child.terminate()
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            child.kill()
