"""One thread that owns one database connection: psycopg's synchronous mode costs half of its asynchronous one per statement,
and a connection never has to be shared."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import psycopg

from services.consumer.ledger import database
from services.kit.postgres import Connection

T = TypeVar("T")
_STATEMENT_SECONDS = 10.0
"""A statement that takes longer is ended by the server: a hanging database must not hold the driver for good."""


class Owner:
    """Runs functions of a connection in its thread, one after the other; connects anew when the connection broke."""

    def __init__(self, name: str, url: str, *, durable: bool = True) -> None:
        """Not `durable`: commits return before the disk has them; a crash of the server may undo the last of them."""
        self._url = url
        self._durable = durable
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"drive-{name}")
        self._connection: Connection | None = None

    async def run(self, function: Callable[[Connection], T]) -> T:
        """`function`'s result; raises what it raises. The connection is in autocommit mode."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, function)

    async def close(self) -> None:
        """Close the connection and end the thread."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown(wait=False)

    def _run(self, function: Callable[[Connection], T]) -> T:
        if self._connection is None:
            self._connection = self._connect()
        try:
            return function(self._connection)
        except psycopg.Error:
            if self._connection.broken or self._connection.closed:
                self._disconnect()
            raise

    def _connect(self) -> Connection:
        connection = database.connect(self._url, statement_timeout_seconds=_STATEMENT_SECONDS)
        if not self._durable:
            connection.execute("set synchronous_commit = off")
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
