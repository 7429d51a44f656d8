"""Packets that vanish without a word (iptables, needs root): the one thing that a proxy cannot do."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_COMMENT = f"enrollstream-drill-{os.getpid()}"


def missing() -> str | None:
    """Why this machine cannot do it; None when it can."""
    if os.geteuid() != 0:
        return "iptables needs root"
    if shutil.which("iptables") is None:
        return "no iptables"
    tried = _iptables("-C", "INPUT", "-m", "comment", "--comment", _COMMENT, "-j", "DROP", check=False)
    return None if "does a matching rule exist" in tried or "Bad rule" in tried else f"iptables: {tried.strip()[:80]}"


@contextmanager
def vanished(port: int) -> Iterator[None]:
    """Nothing reaches this port of the loopback inside, and nothing comes back from it."""
    rules = [_rule("--dport", port), _rule("--sport", port)]
    for rule in rules:
        _iptables("-A", *rule)
    try:
        yield
    finally:
        for rule in rules:
            _iptables("-D", *rule)


def _rule(side: str, port: int) -> list[str]:
    comment = ["-m", "comment", "--comment", _COMMENT]
    return ["INPUT", "-i", "lo", "-p", "tcp", side, str(port), *comment, "-j", "DROP"]


def _iptables(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["iptables", "-w", "5", *arguments], check=check, capture_output=True, text=True, timeout=20)
    return done.stderr


def prove() -> None:
    """No connection can be made inside, and a kept one is silent; afterwards both work."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = listener.getsockname()
        with socket.create_connection(address) as kept:
            accepted, _ = listener.accept()
            with accepted:
                with vanished(address[1]):
                    with suppress(TimeoutError):
                        socket.create_connection(address, 0.4).close()
                        raise AssertionError("a connection was made")
                    kept.sendall(b"late")
                    accepted.settimeout(0.3)
                    with suppress(TimeoutError):
                        accepted.recv(4)
                        raise AssertionError("bytes arrived")
                accepted.settimeout(10)
                assert accepted.recv(4) == b"late"
