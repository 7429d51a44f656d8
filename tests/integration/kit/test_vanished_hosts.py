"""A host that vanishes without a word does not keep its locks."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from services.kit import postgres
from tests.drills.databases import Server
from tests.drills.injectors import firewall
from tests.e2e.arena import eventually


def test_the_server_gives_up_the_session_and_the_locks_of_a_host_that_vanished(server: Server) -> None:
    with closing(postgres.connect(server.url())) as lost, psycopg.connect(server.url(), autocommit=True) as other:
        lost.execute("select pg_advisory_lock(7)")
        with firewall.vanished(_port_of(lost)):
            eventually(lambda: _lock(other), 60, "the lock is free")


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that is reached over TCP: what is said of keeping alive means nothing on a Unix socket."""
    reason = firewall.missing()
    if reason and not os.environ.get("CI"):
        pytest.skip(reason)
    assert reason is None
    with tempfile.TemporaryDirectory(prefix="enrollstream-tests-") as folder:
        Path(folder).chmod(0o755)  # the server may run under a user of its own
        server = Server("vanished-hosts", Path(folder) / "postgres")
        server.start()
        yield server
        server.stop()


def _port_of(connection: postgres.Connection) -> int:
    with socket.socket(fileno=os.dup(connection.fileno())) as its:
        return int(its.getsockname()[1])


def _lock(connection: postgres.Connection) -> bool:
    row = connection.execute("select pg_try_advisory_lock(7)").fetchone()
    return row is not None and bool(row[0])
