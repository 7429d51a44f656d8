"""What is known to be published: recorded after the acknowledgement, asked for before the answer.

One thread and connection for both, so that a question always sees what was recorded before it. Commits here are asynchronous:
a record lost in a crash means that an event is published a second time with the same version, which is harmless.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson

from services.kit.postgres import Connection, text_array
from services.publisher.changes import Change
from services.publisher.mirror import settled
from services.publisher.mirror.database import int_array, text_columns
from services.publisher.mirror.nouns import OutboxKey, OutboxRow
from services.publisher.mirror.owner import Owner
from services.publisher.mirror.settled import Shown

Value = TypeVar("Value")
_MAX_BATCH = 200
_MAX_WAITING = 100_000


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of some events."""

    published: Sequence[OutboxKey] = ()
    failed: Sequence[OutboxKey] = ()
    """Not acknowledged; the sweeper sends them again."""
    dead: dict[OutboxKey, str] = field(default_factory=dict)
    """Refused for good, with the reason."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """Events that Kafka has not acknowledged."""

    rows: Sequence[OutboxRow]
    """The oldest of those that have waited long enough to be sent again."""
    waiting: int
    """How many have not been acknowledged, dead letters not counted."""
    oldest_seconds: float
    dead: int
    unfoldable: int
    """Entities of whose newest rows no event could be made."""


@dataclass(frozen=True, slots=True)
class _Check:
    changes: Sequence[Change]


@dataclass(frozen=True, slots=True)
class _Query:
    run: Callable[[Connection], Any]


class Books:
    """The bookkeeping thread. Every method raises ``Unavailable("database")`` when the database is away."""

    def __init__(self, connect: Callable[[], Connection]) -> None:
        def connect_without_waiting_for_disk() -> Connection:
            connection = connect()
            connection.execute("set synchronous_commit = off")
            return connection

        self._owner: Owner[Outcomes | _Check | _Query, Any] = Owner(
            "mirror-books", connect_without_waiting_for_disk, _run, _MAX_BATCH, _MAX_WAITING
        )

    def start(self) -> None:
        """Start the thread."""
        self._owner.start()

    def drop_connection(self) -> None:
        """Neither record nor ask anything more on the connection that there is."""
        self._owner.drop_connection()

    async def stop(self, timeout_seconds: float) -> None:
        """Finish what is queued."""
        await self._owner.stop(timeout_seconds)

    @property
    def healthy(self) -> bool:
        """The database answered last time."""
        return self._owner.healthy

    async def record(self, outcomes: Outcomes) -> None:
        """Write down what became of events."""
        await self._owner.submit(outcomes)

    async def shown(self, changes: Sequence[Change]) -> Shown:
        """Rule R2's question."""
        answer: Shown = await self._owner.submit(_Check(changes))
        return answer

    async def query(self, run: Callable[[Connection], Value]) -> Value:
        """Run something else in the thread."""
        answer: Value = await self._owner.submit(_Query(run))
        return answer


def _run(connection: Connection, batch: Sequence[Outcomes | _Check | _Query]) -> list[Any]:
    """Records first, then all questions with one read, then the rest."""
    answers: list[Any] = [None] * len(batch)
    _write(connection, [work for work in batch if isinstance(work, Outcomes)])
    checks = [number for number, work in enumerate(batch) if isinstance(work, _Check)]
    asked = [work.changes for work in batch if isinstance(work, _Check)]
    if asked:
        for number, shown in zip(checks, settled.read(connection, asked), strict=True):
            answers[number] = shown
    for number, work in enumerate(batch):
        if isinstance(work, _Query):
            answers[number] = work.run(connection)
    return answers


def _write(connection: Connection, outcomes: Sequence[Outcomes]) -> None:
    published = sorted({key for outcome in outcomes for key in outcome.published})
    failed = sorted({key for outcome in outcomes for key in outcome.failed})
    dead = {key: reason for outcome in outcomes for key, reason in outcome.dead.items()}
    if published:
        _publish(connection, published)
    if failed:
        connection.execute(
            """update outbox o set attempts = o.attempts + 1
                 from unnest(%s::text[], %s::text[], %s::text[], %s::bigint[]) as k (tenant, kind, key, version)
                where (o.tenant, o.kind, o.key, o.version) = (k.tenant, k.kind, k.key, k.version)""",
            _keys(failed),
        )
    if dead:
        connection.execute(
            """update outbox o set attempts = o.attempts + 1, dead_reason = k.reason
                 from unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::text[])
                   as k (tenant, kind, key, version, reason)
                where (o.tenant, o.kind, o.key, o.version) = (k.tenant, k.kind, k.key, k.version)""",
            [*_keys(list(dead)), text_array(dead.values())],
        )


def _publish(connection: Connection, keys: Sequence[OutboxKey]) -> None:
    """Raise the published versions and drop the outbox rows. Entities are locked in the writers' order.

    ``version >= l.version``: a database that lost history must not believe that Kafka has what it does not have itself.
    """
    connection.execute(
        """with acked as materialized (
             select * from unnest(%s::text[], %s::text[], %s::text[], %s::bigint[]) as k (tenant, kind, key, version)),
           newest as (select tenant, kind, key, max(version) as version from acked group by tenant, kind, key),
           locked as materialized (
             select e.tenant, e.kind, e.key, n.version from newest n join entity e using (tenant, kind, key)
              where e.published_version < n.version order by e.tenant, e.kind, e.key for update of e),
           gone as (
             delete from outbox o using acked a
              where (o.tenant, o.kind, o.key, o.version) = (a.tenant, a.kind, a.key, a.version))
           update entity e set published_version = greatest(e.published_version, l.version)
             from locked l
            where (e.tenant, e.kind, e.key) = (l.tenant, l.kind, l.key) and e.version >= l.version""",
        _keys(keys),
    )


def _keys(keys: Sequence[OutboxKey]) -> list[str]:
    return [*text_columns(key[:3] for key in keys), int_array(key.version for key in keys)]


def backlog(connection: Connection, older_than_seconds: float, limit: int) -> Backlog:
    """What the outbox holds; rows in the order in which they were made."""
    rows = connection.execute(
        """select tenant, kind, key, version, topic, record_key, headers, value from outbox
            where dead_reason is null and created_at < clock_timestamp() - make_interval(secs => %s)
            order by attempts, created_at, version limit %s""",
        [older_than_seconds, limit],
    ).fetchall()
    totals = connection.execute(
        """select count(*) filter (where dead_reason is null),
                  coalesce(extract(epoch from clock_timestamp() - min(created_at) filter (where dead_reason is null)), 0)::float,
                  count(*) filter (where dead_reason is not null),
                  (select count(*) from entity where unfoldable is not null)
             from outbox"""
    ).fetchone()
    assert totals is not None  # noqa: S101  (an aggregate always returns its row)
    stale = [OutboxRow(OutboxKey(*row[:4]), row[4], row[5], row[6], row[7]) for row in rows]
    return Backlog(stale, totals[0], max(totals[1], 0.0), totals[2], totals[3])


def keep_positions(connection: Connection, positions: dict[str, int]) -> None:
    """Remember how far the log is known to come from this mirror; a recovery starts to read there."""
    connection.execute("update mirror set log_positions = log_positions || %s::jsonb", [orjson.dumps(positions).decode()])
