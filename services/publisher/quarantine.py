"""Quarantine: what arrived and could not be used, kept for a person to look at.

A row that parsed is kept redacted: allow-listed columns, names masked. What did not parse is kept encrypted when there is a key,
else only its digest and length are. Everything goes after `KEEP_DAYS`. The same poison sent again is one row.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import psycopg
import structlog
from cryptography.fernet import Fernet

from services.kit.credentials import CredentialFileError, SecretFile
from services.kit.postgres import Connection, connect
from services.publisher.changes import Reject, Unavailable
from services.publisher.intake.ports import Poison
from services.publisher.translate.envelope import without_passwords
from services.publisher.translate.records import NAME_COLUMNS

log = structlog.get_logger()

KEEP_DAYS = 14
_PURGE_EVERY_SECONDS = 24 * 3600
_PURGE_AGAIN_SECONDS = 60
_STATEMENT_TIMEOUT_MS = 3000

_INSERT = """
insert into mirror.quarantine (id, tenant, channel, reason, detail, body, body_encrypted, body_bytes, digest)
values (%s, %s, %s, %s, %s, %s, %s, %s, %s)
on conflict (tenant, channel, digest, detail) do nothing
"""
_PURGE = "delete from mirror.quarantine where tenant = %s and at < clock_timestamp() - make_interval(days => %s)"


class Quarantine:
    """The table ``mirror.quarantine``, behind one connection in one thread of its own.

    `put` may be called from any number of tasks. A lost connection is replaced once per call; after that, and after
    `answer_within_seconds`, the caller gets `Unavailable` and the source sends the message again.
    """

    def __init__(self, database_url: str, tenant: str, *, key_file: Path | None = None, answer_within_seconds: float = 5) -> None:
        self._database_url = database_url
        self._tenant = tenant
        self._key = SecretFile(key_file) if key_file else None
        self._answer_within_seconds = answer_within_seconds
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="quarantine")
        self._connection: Connection | None = None
        self._purging: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Check the key (raises `CredentialFileError`) and begin to purge; the database need not be there yet."""
        self._cipher()
        self._purging = asyncio.create_task(self._purge_daily())

    async def stop(self) -> None:
        """End the purge and close the connection; a statement that runs is waited for."""
        if self._purging is not None:
            self._purging.cancel()
            with suppress(asyncio.CancelledError):
                await self._purging
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown()

    async def put(self, channel: str, rejects: Sequence[Reject], poison: Poison) -> None:
        """Durable, all of them, when this returns; raises `Unavailable`."""
        await self._in_thread(partial(self._insert, channel, rejects, poison))

    async def purge(self) -> int:
        """Delete what is older than `KEEP_DAYS`; returns how many."""
        return int(await self._in_thread(self._delete_old))

    async def _in_thread(self, work: Callable[[Connection], Any]) -> Any:
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._with_connection, work)
        try:
            async with asyncio.timeout(self._answer_within_seconds):
                return await running
        except TimeoutError as error:
            raise Unavailable("deadline") from error
        except psycopg.Error as error:
            raise Unavailable("database") from error

    def _with_connection(self, work: Callable[[Connection], Any]) -> Any:
        """Run in the owner thread. Every statement may be repeated, so a connection that died meanwhile is no failure."""
        try:
            return work(self._connected())
        except psycopg.OperationalError:
            self._disconnect()
            return work(self._connected())

    def _connected(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = connect(self._database_url)
            self._connection.execute(f"set statement_timeout = {_STATEMENT_TIMEOUT_MS}")
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _insert(self, channel: str, rejects: Sequence[Reject], poison: Poison, connection: Connection) -> None:
        sealed = self._sealed(poison) if any(reject.columns is None for reject in rejects) else None
        with connection.transaction(), connection.cursor() as cursor:
            cursor.executemany(_INSERT, [self._row(channel, reject, poison, sealed) for reject in rejects])

    def _row(self, channel: str, reject: Reject, poison: Poison, sealed: bytes | None) -> tuple[object, ...]:
        body = sealed if reject.columns is None else orjson.dumps(redacted(reject.columns), option=orjson.OPT_SORT_KEYS)
        encrypted = reject.columns is None and sealed is not None
        identity = (uuid.uuid4(), self._tenant, channel, reject.reason, reject.detail)
        return (*identity, body, encrypted, poison.bytes, poison.digest)

    def _sealed(self, poison: Poison) -> bytes | None:
        cipher = self._cipher()
        if cipher is None or poison.body is None:
            return None
        return cipher.encrypt(without_passwords(poison.body))

    def _cipher(self) -> Fernet | None:
        """Read anew for each use, so that a rotated key needs no restart."""
        if self._key is None:
            return None
        try:
            return Fernet(self._key.read())
        except ValueError as error:
            raise CredentialFileError(f"{self._key.path} must hold one Fernet key (32 bytes, url-safe base64)") from error

    def _delete_old(self, connection: Connection) -> int:
        try:
            return connection.execute(_PURGE, [self._tenant, KEEP_DAYS]).rowcount
        except psycopg.errors.UndefinedTable:  # the very first start: the mirror makes its tables while it opens
            return 0

    async def _purge_daily(self) -> None:
        while True:
            pause = _PURGE_EVERY_SECONDS
            try:
                log.info("quarantine_purged", count=await self.purge())
            except Unavailable as error:
                log.warning("quarantine_not_purged", reason=error.reason, retry_in_s=_PURGE_AGAIN_SECONDS)
                pause = _PURGE_AGAIN_SECONDS
            await asyncio.sleep(pause)


def redacted(columns: dict[str, str]) -> dict[str, str]:
    """Allow-listed columns with names masked."""
    return {name: "***" if name in NAME_COLUMNS and value else value for name, value in columns.items()}
