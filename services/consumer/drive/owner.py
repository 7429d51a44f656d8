"""One thread that owns one database connection: psycopg's synchronous mode costs half of its asynchronous one per statement,
and a connection never has to be shared."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import psycopg
import structlog

from services.consumer.ledger import database, recovery
from services.kit.postgres import AWAY, Connection, prefer_indexes

log = structlog.get_logger()
T = TypeVar("T")
_STATEMENT_SECONDS = 10.0
"""A statement that takes longer is ended by the server: a hanging database must not hold the driver for good."""


class NotReviewed(psycopg.OperationalError):
    """Another history than the ledger knows of: wait until the intake has seen to it, as for a database that is away."""


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

    async def forget_plans(self) -> None:
        """Have the statements planned anew, for the tables as they are now."""
        await self.run(lambda connection: connection.execute("discard plans"))

    async def close(self) -> None:
        """Close the connection and end the thread."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown(wait=False)

    def _run(self, function: Callable[[Connection], T]) -> T:
        if self._connection is None:
            self._connection = self._connect()
        try:
            return function(self._connection)
        except psycopg.Error as error:
            # Read-only: this was the primary; the next connection may find the one that is it now.
            if self._connection.broken or self._connection.closed or isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
                self._disconnect()
            raise

    def _connect(self) -> Connection:
        connection = database.connect(self._url, statement_timeout_seconds=_STATEMENT_SECONDS)
        try:
            if not recovery.is_at_home(connection):
                raise NotReviewed("the ledger does not know yet in which database it is")
            prefer_indexes(connection)
            if not self._durable:
                connection.execute("set synchronous_commit = off")
        except BaseException:
            connection.close()
            raise
        return connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextlib.contextmanager
def ledger_may_be_away(target: str, operation: str) -> Iterator[None]:
    """The ledger being away is expected: nothing is lost, the caller goes on and tries again."""
    try:
        yield
    except AWAY as error:
        log.warning("ledger_away", target=target, operation=operation, error_type=type(error).__name__)
