"""Real PostgreSQL under virtual time: the product's own statements, on connections whose life and clock belong to the simulation.

One server and one database hold both schemas. Functions named like the server's own (`clock_timestamp`, `pg_control_system`)
stand before ``pg_catalog`` in the search path, so that a statement asks the simulation what time it is and which database this
is. They read a small file, which costs microseconds. Connections are pooled: a process that dies gives its own back, rolled
back.
"""

from __future__ import annotations

import mmap
import os
import select
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import pq, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from services.consumer.ledger import database as ledger_database
from services.publisher.mirror import database as mirror_database
from services.sandbox.postgres import EmbeddedPostgres
from tests.simulation.fibers import Killed, Process, Scheduler

EPOCH_SECONDS = 1_790_000_000.0
"""What the clocks say at the simulation's zero: 2026-09-21."""
NAMES = ("mirror", "ledger")
_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "autovacuum": "off",
    "deadlock_timeout": "600s",  # the simulation finds circles itself: a victim chosen by real time would not repeat
    "jit": "off",
    "track_activities": "off",
    "track_counts": "off",
    "update_process_title": "off",
    "log_min_messages": "fatal",
}
_LOCK_SECONDS = {"mirror": 5.0, "ledger": 10.0}
_STATEMENT_SECONDS = 0.0002
_FUNCTIONS = """
create schema sim_{name};
create function sim_{name}.clock_timestamp() returns timestamptz language sql volatile as
  $$ select 'epoch'::timestamptz + pg_catalog.pg_read_file('{folder}/{name}.clock')::bigint * interval '1 microsecond' $$;
create function sim_{name}.now() returns timestamptz language sql volatile as
  $$ select 'epoch'::timestamptz + pg_catalog.pg_read_file('{folder}/{name}.clock')::bigint * interval '1 microsecond' $$;
create function sim_{name}.pg_control_system(out system_identifier bigint) language sql volatile as
  $$ select pg_catalog.split_part(pg_catalog.pg_read_file('{folder}/{name}.identity'), ' ', 1)::bigint $$;
create function sim_{name}.pg_walfile_name(pg_lsn) returns text language sql volatile as
  $$ select pg_catalog.split_part(pg_catalog.pg_read_file('{folder}/{name}.identity'), ' ', 2) || '0000000000000000' $$;
create function sim_{name}.pg_postmaster_start_time() returns timestamptz language sql volatile as
  $$ select 'epoch'::timestamptz + pg_catalog.split_part(pg_catalog.pg_read_file('{folder}/{name}.identity'), ' ', 3)::int
            * interval '1 s' $$;
"""


class Server:
    """A PostgreSQL that is never asked to survive anything, with both schemas made by the product's own migrations."""

    def __init__(self) -> None:
        memory = Path("/dev/shm")
        self._folder = tempfile.TemporaryDirectory(
            prefix="enrollstream-sim-", dir=memory if os.access(memory, os.W_OK) else None, ignore_cleanup_errors=True
        )
        folder = Path(self._folder.name)
        folder.chmod(0o755)
        self.files = {}
        for name in NAMES:
            self.files[name, "clock"] = _shared(folder / f"{name}.clock", b"0" * 16)
            self.files[name, "identity"] = _shared(folder / f"{name}.identity", b"1".zfill(18) + b" 00000001 000000")
        self._server = EmbeddedPostgres(folder / "postgres")
        self.url = self._server.create_database("simulation")
        with psycopg.connect(self.url, autocommit=True) as connection:
            for name, value in _SETTINGS.items():
                connection.execute(f"alter system set {name} = '{value}'".encode())
            connection.execute("select pg_reload_conf()")
            for name in NAMES:
                connection.execute(_FUNCTIONS.format(name=name, folder=folder).encode())
        mirror_database.migrate(self.url)
        ledger_database.migrate(self.url)
        with psycopg.connect(self.url, autocommit=True) as connection:
            self._put_defaults_on_virtual_time(connection)

    @staticmethod
    def _put_defaults_on_virtual_time(connection: psycopg.Connection[Any]) -> None:
        """Defaults were bound to the server's own functions when the tables were made."""
        for name in NAMES:
            columns = connection.execute(
                """select d.adrelid::regclass::text, quote_ident(a.attname)
                     from pg_attrdef d
                     join pg_attribute a on (a.attrelid, a.attnum) = (d.adrelid, d.adnum)
                     join pg_class c on c.oid = d.adrelid
                    where c.relnamespace = %s::regnamespace
                      and pg_get_expr(d.adbin, d.adrelid) ~ '(clock_timestamp|now)\\(\\)'""",
                [name],
            ).fetchall()
            for table, column in columns:
                connection.execute(f"alter table {table} alter column {column} set default sim_{name}.clock_timestamp()".encode())

    def close(self) -> None:
        self._server.close()
        self._folder.cleanup()


def _shared(path: Path, content: bytes) -> mmap.mmap:
    path.write_bytes(content)
    path.chmod(0o644)
    with path.open("r+b") as file:
        return mmap.mmap(file.fileno(), len(content))


class Databases:
    """Both databases of one worker: connections for simulated processes, faults, snapshots, and a quick way back to empty."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._real_connect = psycopg.Connection.connect
        self._free: dict[str, list[ServerSide]] = {}
        self._dead = pq.PGconn.connect(b"host=/nonexistent connect_timeout=1")
        self.admin = psycopg.Connection.connect(server.url, autocommit=True, prepare_threshold=1)
        self.connections: list[SimConnection] = []
        self._in_transaction: set[SimConnection] = set()
        self.tables = {name: self._tables(name) for name in NAMES}
        self.rewrites: list[tuple[str, str]] = []
        """Planted bugs: text of a statement, and what stands there instead."""
        self.rewritten: set[str] = set()
        self._runs = 0
        self.scheduler: Scheduler
        self.begin_run(Scheduler(0))

    def _tables(self, name: str) -> dict[str, str]:
        """Tables with the columns that a copy of them has to name."""
        rows = self.admin.execute(
            """select c.oid::regclass::text, string_agg(quote_ident(a.attname), ', ' order by a.attnum)
                 from pg_class c join pg_attribute a on a.attrelid = c.oid
                where c.relnamespace = %s::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
                  and c.relname <> 'migration' and a.attnum > 0 and not a.attisdropped and a.attgenerated = ''
                group by 1 order by 1""",
            [name],
        ).fetchall()
        return dict(rows)

    def begin_run(self, scheduler: Scheduler) -> None:
        """A new seed: empty tables, healthy databases."""
        self.scheduler = scheduler
        scheduler.on_time = self._on_time
        self.wall_offset = dict.fromkeys(NAMES, 0.0)
        self.down_until = dict.fromkeys(NAMES, 0.0)
        self.interleave = 0.0
        self.lose_before = 0.0
        self.lose_after = 0.0
        self.bites: Callable[[str], None] = lambda _name: None
        self.listeners: list[SimConnection] = []
        for connection in list(self.connections):
            connection.give_back()
        self.connections.clear()
        self._written: int | None = None
        self.identity: dict[str, tuple[int, int]] = {}
        self._starts = 0
        for name in NAMES:
            self.set_identity(name, 7_000_000_000 + len(name), 1)
        self._on_time(0.0)
        self.wipe("mirror")
        self.wipe("ledger")
        self._runs += 1
        if self._runs % 100 == 0:
            self.admin.execute("vacuum pg_class")  # each truncation leaves dead rows there, and nobody else clears them away

    def wipe(self, name: str) -> None:
        """Empty tables; truncated, so that rows lie where they would lie in a new database and a seed repeats."""
        rows = self.admin.execute(
            """select c.oid::regclass::text from pg_class c
                where c.relnamespace = %s::regnamespace and c.relkind = 'r' and c.relname <> 'migration'
                  and pg_relation_size(c.oid) > 0 order by 1""",
            [name],
        ).fetchall()
        if rows:
            self.admin.execute(f"truncate {', '.join(table for (table,) in rows)} restart identity cascade".encode())
        if name == "ledger":
            self.admin.execute("select setval('ledger.activity', 1, false)")

    def _on_time(self, now: float) -> None:
        base = int((EPOCH_SECONDS + now) * 1_000_000)
        if base != self._written:
            self._written = base
            for name in NAMES:
                self._server.files[name, "clock"][:] = b"%016d" % (base + int(self.wall_offset[name] * 1_000_000))

    def set_identity(self, name: str, system_id: int, timeline: int) -> None:
        """Which history of which database it is, and a server that was started anew."""
        self.identity[name] = (system_id, timeline)
        self._starts += 1
        self._server.files[name, "identity"][:] = b"%018d %08X %06d" % (system_id, timeline, self._starts)

    def jump_clock(self, name: str, seconds: float) -> None:
        """The database host's wall clock is set."""
        self.wall_offset[name] += seconds
        self._written = None
        self._on_time(self.scheduler.now)

    # --- connections ---

    def url(self, name: str) -> str:
        """For settings; the application's name tells which of the two databases is meant."""
        return make_conninfo(self._server.url, application_name=name)

    def connect(self, conninfo: str = "", *, autocommit: bool = False, **_kwargs: Any) -> SimConnection:
        """What stands in for `psycopg.connect` while the simulation runs."""
        parameters = conninfo_to_dict(conninfo)
        name = str(parameters.get("application_name"))
        process = self.scheduler.process
        self.scheduler.advance(_STATEMENT_SECONDS)
        if process is not None and self.scheduler.now < self.down_until[name]:
            self.bites(f"{name} away")
            self.scheduler.block(0.05)
            raise psycopg.OperationalError("simulated: connection refused")
        fiber = self.scheduler.current
        role = f"{name}/{fiber.name.partition('/')[2] if fiber else ''}"
        free = self._free.setdefault(role, [])
        if free:
            server = free.pop()
            connection = SimConnection(server.pgconn)
            connection._prepared = server.prepared
        else:
            connection = SimConnection.connect(make_conninfo(self._server.url))
            server = ServerSide(connection.pgconn, connection._prepared)
        connection.databases, connection.name, connection.process = self, name, process
        connection.role, connection.server, connection.settings = role, server, []
        connection.prepare_threshold, connection.prepared_max = 0, None
        connection._autocommit = autocommit
        if "search_path=ledger" in str(parameters.get("options")):
            connection.settings.append("set search_path = sim_ledger, pg_catalog, ledger")
        self.connections.append(connection)
        if process is not None:
            process.on_death.append(connection.cut)
        return connection

    def take_back(self, connection: SimConnection, pgconn: pq.abc.PGconn) -> None:
        """The server's side of a connection that its owner has lost or closed."""
        if pgconn.status != pq.ConnStatus.OK:
            return
        if pgconn.transaction_status == pq.TransactionStatus.ACTIVE or pgconn.pipeline_status != pq.PipelineStatus.OFF:
            self._end(pgconn)  # it may wait for a lock, and would go on doing so with what it holds itself
            return
        if pgconn.transaction_status != pq.TransactionStatus.IDLE:
            pgconn.exec_(b"rollback")
            connection.server.settings = None  # some may have been undone
        pgconn.exec_(b"select pg_advisory_unlock_all()")
        self._free[connection.role].append(connection.server)

    def _end(self, pgconn: pq.abc.PGconn) -> None:
        pid = pgconn.backend_pid
        pgconn.finish()
        self.admin.execute("select pg_terminate_backend(%s, 10000)", [pid])

    def perform(self, connection: SimConnection, gen: Generator[Any, Any, Any], real: Callable[[Any], Any]) -> Any:
        """One exchange with the server: time passes, others may run first, and something may go wrong."""
        scheduler = self.scheduler
        process = scheduler.process
        connection.settle()
        if connection.pgconn is self._dead:  # cursors and transactions keep the server side, which may be somebody else's by now
            gen.close()
            raise psycopg.OperationalError("simulated: connection lost")
        if process is None:
            return real(gen)
        scheduler.advance(_STATEMENT_SECONDS)
        if self.interleave and scheduler.random.random() < self.interleave:
            scheduler.step_aside()
            if connection.pgconn is self._dead:  # lost meanwhile; its server side may be somebody else's by now
                gen.close()
                raise psycopg.OperationalError("simulated: connection lost")
        if scheduler.now < self.down_until[connection.name]:
            self.bites(f"{connection.name} away")
            gen.close()
            connection.cut()
            raise psycopg.OperationalError("simulated: server closed the connection")
        if self.lose_before and scheduler.random.random() < self.lose_before:
            self.bites(f"{connection.name} connection lost before a statement")
            gen.close()
            connection.cut()
            raise psycopg.OperationalError("simulated: connection lost")
        try:
            result = self._exchange(connection, gen) if self._in_transaction - {connection} else real(gen)
        finally:
            self._note(connection)
        if self.lose_after and scheduler.random.random() < self.lose_after:
            self.bites(f"{connection.name} connection lost after a statement")
            connection.cut()
            raise psycopg.OperationalError("simulated: connection lost, outcome unknown")
        return result

    def _note(self, connection: SimConnection) -> None:
        """Whoever is in a transaction may hold what others wait for."""
        if connection.pgconn is not self._dead and connection.pgconn.transaction_status != pq.TransactionStatus.IDLE:
            self._in_transaction.add(connection)
        else:
            self._in_transaction.discard(connection)

    def _exchange(self, connection: SimConnection, gen: Generator[Any, Any, Any]) -> Any:
        """Like psycopg's own waiting, except that a lock which another fiber holds is waited for in virtual time."""
        pid, pgconn = connection.pgconn.backend_pid, connection.pgconn
        poll = select.poll()
        try:
            wanted = next(gen)
            while True:
                poll.register(pgconn.socket, (select.POLLIN if wanted & 1 else 0) | (select.POLLOUT if wanted & 2 else 0))
                found = poll.poll(2)
                if not found:
                    if self._blocked(pid):
                        self._wait_for_lock(connection, pid)
                    continue
                ready = (1 if found[0][1] & ~select.POLLOUT else 0) | (2 if found[0][1] & select.POLLOUT else 0)
                wanted = gen.send(ready & wanted or wanted)
        except StopIteration as end:
            return end.value

    def _blocked(self, pid: int) -> bool:
        row = self.admin.execute("select pg_blocking_pids(%s) <> '{}'", [pid]).fetchone()
        return bool(row and row[0])

    def _wait_for_lock(self, connection: SimConnection, pid: int) -> None:
        self.bites("lock waited for")
        if not self.scheduler.block_on_database(lambda: self._blocked(pid), _LOCK_SECONDS[connection.name]):
            self.bites("lock not given in time")
            self.admin.execute("select pg_cancel_backend(%s)", [pid])

    # --- what else may happen to a database ---

    def crash(self, name: str, down_seconds: float) -> None:
        """Every connection breaks, what was not committed is gone, and for a while nobody gets in."""
        self.set_identity(name, *self.identity[name])
        self.down_until[name] = self.scheduler.now + down_seconds
        for connection in list(self.connections):
            if connection.name == name:
                connection.cut()

    def snapshot(self, name: str) -> dict[str, Any]:
        """What a backup taken now would hold."""
        rows = {}
        for table, columns in self.tables[name].items():
            with self.admin.cursor() as cursor, cursor.copy(f"copy (select {columns} from {table}) to stdout".encode()) as copy:
                rows[table] = b"".join(bytes(part) for part in copy)
        activity = self.admin.execute("select last_value, is_called from ledger.activity").fetchone()
        return {"rows": rows, "activity": activity, "identity": self.identity[name]}

    def restore(self, name: str, saved: dict[str, Any]) -> None:
        """The database is what it was then; everything that is connected is cut off."""
        self.crash(name, 0.5)
        self.wipe(name)
        for table, rows in saved["rows"].items():
            columns = self.tables[name][table]
            if rows:
                with self.admin.cursor() as cursor, cursor.copy(f"copy {table} ({columns}) from stdin".encode()) as copy:
                    copy.write(rows)
        if name == "ledger":
            self.admin.execute("select setval('ledger.activity', %s, %s)", saved["activity"])

    def rows(self, query: str, *parameters: object) -> list[tuple[Any, ...]]:
        """What stands committed, asked from outside of the simulation."""
        return self.admin.execute(query.encode(), parameters).fetchall()

    def rewritten_text(self, query: Any) -> Any:
        text = query.decode() if isinstance(query, bytes) else query
        if not isinstance(text, str):
            return query
        for old, new in self.rewrites:
            if old in text:
                text = text.replace(old, new)
                self.rewritten.add(old)
        return text.encode()

    @contextmanager
    def as_ledger(self) -> Iterator[psycopg.Connection[Any]]:
        """The checker's own connection, with the search path of the ledger."""
        self.admin.execute("set search_path = sim_ledger, pg_catalog, ledger")
        yield self.admin


@dataclass
class ServerSide:
    """What outlives a connection. It serves the next one of the same part of the product, which needs the same statements."""

    pgconn: pq.abc.PGconn
    prepared: Any
    settings: list[str] | None = field(default_factory=list)
    """What was set in its session; None: not known."""


class SimConnection(psycopg.Connection[Any]):
    """A connection as the product sees it. Its server side outlives it."""

    databases: Databases
    name: str
    role: str
    server: ServerSide
    settings: list[str]
    """What its owner has set so far. Given to the server with the next statement, unless the one before had set the same."""
    process: Process | None = None
    heard: list[str]

    def __del__(self, *_: Any) -> None:
        pass

    def wait(self, gen: Any, interval: float = 0.0, timeout: float | None = None) -> Any:
        if not hasattr(self, "databases") or gen.__name__ == "_enter_gen":  # entering a pipeline sends nothing that could fail
            return super().wait(gen)
        return self.databases.perform(self, gen, super().wait)

    def execute(self, query: Any, params: Any = None, **kwargs: Any) -> Any:
        databases = self.databases
        if isinstance(query, sql.Composed):
            query = query.as_string(self)
        if isinstance(query, str):
            if query == 'set search_path = "mirror"':
                query = "set search_path = sim_mirror, pg_catalog, mirror"
            if query.startswith("set ") and not query.startswith("set local "):
                self.settings.append(query)
                return None
            if query.startswith("listen "):
                self.heard = []
                databases.listeners.append(self)
                return None
            if query.startswith("select pg_notify("):
                return databases_notify(databases, self, params)
        if databases.rewrites:
            query = databases.rewritten_text(query)
        return super().execute(query, params, **kwargs)

    def settle(self) -> None:
        """The session of the server is as the owner wants it."""
        server, wanted = self.server, self.settings
        if server.settings == wanted or self.pgconn is self.databases._dead:
            return
        if (
            self.pgconn.transaction_status == pq.TransactionStatus.INTRANS
            and server.settings == wanted[: len(server.settings or ())]
        ):
            lacking = wanted[len(server.settings or ()) :]
        else:
            lacking = ["reset all", *wanted]
        self.pgconn.exec_("; ".join(lacking).encode())
        server.settings = list(wanted)

    def notifies(self, *, timeout: float | None = None, stop_after: int | None = None) -> Any:
        scheduler = self.databases.scheduler
        self.listening_fiber = scheduler.current
        if not self.heard:
            scheduler.block(max(timeout or 0.0, 1.0))
        if self.closed:
            raise psycopg.OperationalError("simulated: connection lost")
        heard, self.heard = self.heard, []
        for payload in heard:
            yield psycopg.Notify("work", payload, 0)

    def close(self) -> None:
        self._closed = True
        self.give_back()

    def cut(self) -> None:
        """The connection breaks."""
        self.give_back()
        fiber = getattr(self, "listening_fiber", None)
        if fiber is not None:
            fiber.ready = True

    def give_back(self) -> None:
        databases, pgconn = self.databases, self.pgconn
        if pgconn is databases._dead:
            return
        self.pgconn = databases._dead
        databases._in_transaction.discard(self)
        if self in databases.connections:
            databases.connections.remove(self)
        if self in databases.listeners:
            databases.listeners.remove(self)
        if self.process is not None and self.cut in self.process.on_death:
            self.process.on_death.remove(self.cut)
        databases.take_back(self, pgconn)


def databases_notify(databases: Databases, sender: SimConnection, params: Any) -> None:
    """A notification is delivered at once to every session that listens; a lost one is one of the faults."""
    if sender.closed:
        raise psycopg.OperationalError("simulated: connection lost")
    for connection in databases.listeners:
        connection.heard.append(params[1])
        fiber = getattr(connection, "listening_fiber", None)
        if fiber is not None:
            fiber.ready = True


__all__ = ["EPOCH_SECONDS", "Databases", "Killed", "Server", "SimConnection"]
