"""Group commit: the transactions of the mirror, isolated from each other's mistakes.

Small and large requests have a thread and a connection each, so that one body of thousands of rows does not make a single
drop wait.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import psycopg
import structlog

from services.kit.postgres import Connection
from services.publisher.changes import Unavailable
from services.publisher.metrics import Metrics
from services.publisher.mirror.nouns import OutboxRow, Request, Result
from services.publisher.mirror.owner import Owner
from services.publisher.mirror.store import CommitUnknown, Contention, Store
from services.publisher.mirror.tables import MirrorClosed

log = structlog.get_logger()
SMALL_ROWS = 100
"""A request of at most so many rows is small."""
_GROUP_ROWS = 2_000
_UNWELL_SECONDS = 5.0
"""A database that could not store something (a full disk, say) is sent no traffic for so long; then it is tried again."""


class Groups:
    """Runs requests in shared transactions.

    `on_commit` is called in the owner's thread with the events of each committed transaction, before anybody gets an answer;
    `on_closed` when the database turns out not to be an opened mirror any more. Both only pass the word on. `floor` is that
    of the mirror that this process has opened; under any other nothing is committed.
    A request whose transaction failed with others in it is tried again alone, so that only the guilty one fails.
    """

    def __init__(
        self,
        store: Store,
        connect: Callable[[], Connection],
        on_commit: Callable[[list[OutboxRow]], None],
        on_closed: Callable[[], None],
        floor: Callable[[], int],
        metrics: Metrics,
        max_waiting_rows: int,
    ) -> None:
        self._store = store
        self._floor = floor
        self._failed_at: float | None = None
        self._on_commit = on_commit
        self._on_closed = on_closed
        self._metrics = metrics
        self._small = Owner("mirror-small", connect, self._run, _GROUP_ROWS, max_waiting_rows)
        self._large = Owner("mirror-large", connect, self._run, _GROUP_ROWS, max_waiting_rows)

    @property
    def healthy(self) -> bool:
        """The database has stored what it was given, as far as was tried lately."""
        return self._failed_at is None or time.monotonic() - self._failed_at > _UNWELL_SECONDS

    def start(self) -> None:
        """Start both threads."""
        self._small.start()
        self._large.start()

    def drop_connections(self) -> None:
        """Do not commit anything more on the connections that there are."""
        self._small.drop_connection()
        self._large.drop_connection()

    async def stop(self, timeout_seconds: float) -> None:
        """Finish what is queued."""
        await self._small.stop(timeout_seconds)
        await self._large.stop(timeout_seconds)

    async def fold(self, request: Request) -> Result:
        """What the committed transaction did for this request. Raises `Unavailable`, or the request's own mistake."""
        size = len(request.changes) + len(request.republish)
        return await (self._small if size <= SMALL_ROWS else self._large).submit(request, size)

    # --- in the threads -----------------------------------------------------------------------------------------------

    def _run(self, connection: Connection, requests: Sequence[Request]) -> Sequence[Result | Exception]:
        if len(requests) > 1:
            try:
                return self._commit(connection, requests)
            except Unavailable:
                raise
            except Exception as error:
                if connection.broken:
                    raise
                log.info("mirror_group_split", count=len(requests), error_type=type(error).__name__)
        return [self._commit_alone(connection, request) for request in requests]

    def _commit_alone(self, connection: Connection, request: Request) -> Result | Exception:
        try:
            return self._commit(connection, [request])[0]
        except Unavailable:
            raise
        except psycopg.OperationalError:
            self._failed_at = time.monotonic()
            if connection.broken:
                raise
            return Unavailable("database")  # locked too long, disk full, ...: the next attempt may fare better
        except Contention:
            return Unavailable("overload")
        except Exception as error:
            return error

    def _commit(self, connection: Connection, requests: Sequence[Request]) -> list[Result]:
        try:
            with self._metrics.fold_seconds.time():
                committed = self._store.transact(connection, requests, floor=self._floor())
        except CommitUnknown as error:
            # Produce nothing. If it was committed after all, the sweeper finds the events and the retry finds no change.
            raise Unavailable("database") from error
        except (MirrorClosed, psycopg.errors.UndefinedTable) as error:
            self._on_closed()
            raise Unavailable("recovering") from error
        self._failed_at = None
        for entity in committed.unfoldable:
            log.error("entity_unfoldable", kind=entity.key.kind, error_type=entity.unfoldable)
        if committed.outbox:
            self._on_commit(committed.outbox)
        return committed.results
