"""The mirror's one transaction: source rows in, entity versions and outbox rows out.

1. Look up where the named rows are folded now, so that all touched entities are known.
2. Create missing entities and lock all of them, sorted; only then read their source rows. Every writer locks the same entities
   in the same order, so that what is read stays true until the commit.
3. Settle per row which copy is newer (`order`), and fold each touched entity from all its rows.
4. An entity whose state and whose rows mean what they meant before is no event. Any other gets the next version and an outbox
   row: also a row that changed without changing the state, because a mirror that is rebuilt from the log has to know it.
   An entity of which no event can be made keeps its rows and is marked; the others go on.
5. Commit. Nothing is produced before the commit, and nothing when it is not known to have happened.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg

from schemas.topics import Topics
from services.kit.failpoints import failpoint
from services.kit.postgres import Connection
from services.publisher.mirror.nouns import Committed, Fold, Meaning, Moved, Request
from services.publisher.mirror.settling import Settling
from services.publisher.mirror.tables import Tables

_ATTEMPTS = 5
_FLOOR_LOCK = "hashtextextended('mirror floor', 0)"
"""Shared by every transaction that issues versions, exclusive while the floor is raised: none is issued below it meanwhile."""


class CommitUnknown(RuntimeError):
    """The connection was lost during the commit: it may or may not have happened. Produce nothing."""


class Contention(RuntimeError):
    """Rows kept moving between entities while we tried to lock them."""


class Store:
    """Runs transactions on whatever connection it is given; holds no state of its own, so that any thread may use it."""

    def __init__(self, fold: Fold, topics: Topics, meaning: Meaning | None = None) -> None:
        """`meaning` is the fold of the row alone, unless the dialect knows better."""
        self._fold = fold
        self._meaning = meaning or (lambda kind, key, row: fold(kind, key, [row]))
        self._topics = topics

    def transact(
        self, connection: Connection, requests: Sequence[Request], *, emit: bool = True, floor: int | None = None
    ) -> Committed:
        """Fold all requests in one transaction, in their order; with `floor` only while that is the mirror's.

        With ``emit=False`` (recovery) nothing is folded and nothing goes to the outbox: touched and listed entities get a
        version, but no hash, which says that their state is still to be emitted.

        Raises `CommitUnknown`, `MirrorClosed`, `Contention`, or what psycopg and the fold raise (then nothing was committed).
        """
        for _ in range(_ATTEMPTS):
            try:
                with _transaction(connection):
                    committed = self._attempt(Tables(connection, floor), requests, emit=emit)
                    failpoint("publisher.before_commit")
            except Moved:
                continue
            if committed.outbox:
                failpoint("publisher.after_commit")
            return committed
        raise Contention(f"rows moved {_ATTEMPTS} times")

    def _attempt(self, tables: Tables, requests: Sequence[Request], *, emit: bool) -> Committed:
        """Everything between begin and commit."""
        locked = tables.lock(requests)
        results, outbox = Settling(locked, self._fold, self._meaning, self._topics, emit=emit).settle(requests)
        tables.write(outbox)
        return Committed(results, outbox, [entity for entity in locked.entities.values() if entity.unfoldable])


@contextmanager
def floor_held_still(connection: Connection) -> Iterator[None]:
    """A transaction beside which no version is issued: it waits for those that run, and those that come wait for it."""
    with connection.transaction():
        connection.execute(f"select pg_advisory_xact_lock({_FLOOR_LOCK})")
        yield


@contextmanager
def _transaction(connection: Connection) -> Iterator[None]:
    """Like psycopg's own, but tells a commit of unknown outcome from everything before it."""
    # One round trip, and a statement of its own before the floor is read: a snapshot is taken when a statement begins.
    connection.execute(f"begin; select pg_advisory_xact_lock_shared({_FLOOR_LOCK})", prepare=False)
    try:
        yield
    except BaseException:
        if not connection.broken:
            connection.execute("rollback")
        raise
    try:
        ended = connection.execute("commit").statusmessage
    except psycopg.Error as error:
        raise CommitUnknown("the connection was lost during the commit") from error
    if ended != "COMMIT":
        raise CommitUnknown("the server answered the commit with something else")
