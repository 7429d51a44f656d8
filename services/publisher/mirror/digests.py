"""Rounds of digests: the mirror says what it holds, page by page, so that the ledger can find what either of them has lost.

A round comes when the last one ended an interval ago, after a recovery, and when somebody asks. Of several processes the one that
gets the lock emits it; one that dies is followed by another.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from uuid import UUID, uuid4

import structlog

from schemas import digests
from schemas.digests import Bound, Digest, DigestEnd, DigestPage, Entry
from schemas.topics import ENTITY_KINDS, Topics
from services.kit.kafka import KafkaSettings, log_ends
from services.kit.postgres import Connection, text_array
from services.publisher.changes import Unavailable
from services.publisher.log import Delivered, EventLog, Record
from services.publisher.metrics import Metrics
from services.publisher.mirror.owner import Owner

log = structlog.get_logger()
Value = TypeVar("Value")

_LOOK_SECONDS = 1.0
_RETRY_SECONDS = 15.0
_PAGE_ENTRIES = 2_000
_PAGE_BYTES = 400_000
_ENTRY_BYTES = 80
"""Of an entry beside its tenant and key."""
_ENTRIES_PER_SECOND = 20_000
_FIRST = Bound("", "", "")


@dataclass(frozen=True, slots=True)
class _Due:
    """Whether it is time for a round, and for whom."""

    now: bool
    age_seconds: float
    requests: list[UUID]


class Digests:
    """Emits rounds; lives in one event loop, between `start` and `stop`."""

    def __init__(
        self,
        connect: Callable[[], Connection],
        event_log: EventLog,
        kafka: KafkaSettings,
        topics: Topics,
        metrics: Metrics,
        *,
        every_seconds: float,
        settled_seconds: float,
    ) -> None:
        """`connect` refuses while the mirror is not open. Every version that is older than `settled_seconds` is committed."""
        self._owner: Owner[Callable[[Connection], Any], Any] = Owner("mirror-digests", connect, _run, 1, 100)
        self._log = event_log
        self._kafka = kafka
        self._topics = topics
        self._metrics = metrics
        self._every_seconds = every_seconds
        self._settled_microseconds = int(settled_seconds * 1_000_000)
        self._asked = asyncio.Event()

    def start(self) -> None:
        """Start the thread; `run` does the work."""
        self._owner.start()

    def drop_connection(self) -> None:
        """Read nothing more on the connection that there is."""
        self._owner.drop_connection()

    async def stop(self, timeout_seconds: float) -> None:
        """End the thread."""
        await self._owner.stop(timeout_seconds)

    async def ask(self, reason: str, request: UUID | None = None) -> UUID:
        """Have a round emitted that begins after this; its end names the request. Durable. Raises `Unavailable`."""
        wanted = request or uuid4()
        await self._query(partial(_ask, request=wanted, reason=reason))
        self._asked.set()
        return wanted

    async def run(self) -> None:
        """Emit a round whenever one is due, until cancelled."""
        while True:
            pause = _LOOK_SECONDS
            try:
                await self._look()
            except Unavailable as error:
                log.info("digests_wait", reason=error.reason)
                pause = _RETRY_SECONDS
            except Exception as error:  # Kafka's client, mostly; without digests nothing would notice a loss
                log.error("digests_failed", exc_info=error)
                pause = _RETRY_SECONDS
            await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._asked.wait()
        except TimeoutError:
            pass
        self._asked.clear()

    async def _look(self) -> None:
        due = await self._query(partial(_due, every_seconds=self._every_seconds))
        self._metrics.digest_age.set(due.age_seconds)
        if due.now and await self._query(_lock):
            try:
                await self._round()
            finally:
                await self._query(_unlock)

    async def _round(self) -> None:
        """1. who waits; 2. where the log ends; 3. the pages; 4. the end. In this order the end's promises hold."""
        requests = (await self._query(partial(_due, every_seconds=self._every_seconds))).requests
        ends = await asyncio.to_thread(log_ends, self._kafka, [self._topics.entity(kind) for kind in ENTITY_KINDS])
        known = {f"{end.topic}/{end.partition}": end.offset for end in ends}
        name, number, after, entries = uuid4(), 0, _FIRST, 0
        while True:
            page = await self._query(
                partial(_page, name=name, number=number, after=after, log_ends=known, settled=self._settled_microseconds)
            )
            await self._send(page)
            number, entries = number + 1, entries + len(page.entries)
            if page.upto is None:
                break
            after = page.upto
            await asyncio.sleep(len(page.entries) / _ENTRIES_PER_SECOND)
        await self._send(DigestEnd(round=name, pages=number, answers=requests))
        await self._query(partial(_ended, requests=requests))
        log.info("digest_round_emitted", count=entries)

    async def _send(self, digest: Digest) -> None:
        (outcome,) = await self._log.send([Record(self._topics.digests, b"", digests.encode(digest), [])])
        if not isinstance(outcome, Delivered):
            raise Unavailable("kafka")

    async def _query(self, run: Callable[[Connection], Value]) -> Value:
        answer: Value = await self._owner.submit(run)
        return answer


def _run(connection: Connection, batch: Sequence[Callable[[Connection], Any]]) -> list[Any]:
    return [work(connection) for work in batch]


def _ask(connection: Connection, *, request: UUID, reason: str) -> None:
    connection.execute("insert into digest_request (id, reason) values (%s, %s) on conflict do nothing", [request, reason])


def _due(connection: Connection, *, every_seconds: float) -> _Due:
    """The first round of a new mirror comes after an interval, like the others."""
    connection.execute("insert into digest_round (ended_at) values (clock_timestamp()) on conflict do nothing")
    row = connection.execute(
        """select extract(epoch from clock_timestamp() - ended_at)::float, (select array_agg(id) from digest_request)
             from digest_round"""
    ).fetchone()
    assert row is not None  # noqa: S101  (inserted above)
    requests: list[UUID] = row[1] or []
    return _Due(now=bool(requests) or row[0] >= every_seconds, age_seconds=row[0], requests=requests)


def _lock(connection: Connection) -> bool:
    """Of the session: gone with a process that dies."""
    row = connection.execute("select pg_try_advisory_lock(hashtextextended('digest round', 0))").fetchone()
    return bool(row and row[0])


def _unlock(connection: Connection) -> None:
    connection.execute("select pg_advisory_unlock(hashtextextended('digest round', 0))")


def _ended(connection: Connection, *, requests: Sequence[UUID]) -> None:
    with connection.transaction():
        connection.execute("update digest_round set ended_at = clock_timestamp()")
        connection.execute("delete from digest_request where id = any(%s::uuid[])", [text_array(map(str, requests))])


def _page(
    connection: Connection, *, name: UUID, number: int, after: Bound, log_ends: Mapping[str, int], settled: int
) -> DigestPage:
    """The next entities. The clock is read before them, so that what is older than it by `settled` is among them."""
    clock = connection.execute("select (extract(epoch from clock_timestamp()) * 1000000)::bigint").fetchone()
    assert clock is not None  # noqa: S101
    rows = connection.execute(
        """select tenant, kind, key, version, coalesce(content_hash, ''),
                  content_hash is not null and published_version >= version
             from entity
            where version > 0 and (tenant collate "C", kind collate "C", key collate "C") > (%s, %s, %s)
            order by tenant collate "C", kind collate "C", key collate "C" limit %s""",
        [*after, _PAGE_ENTRIES],
    ).fetchall()
    entries = _fitting([Entry(*row) for row in rows])
    last = len(entries) == len(rows) < _PAGE_ENTRIES
    return DigestPage(
        round=name,
        number=number,
        after=None if number == 0 else after,
        upto=None if last else Bound(*entries[-1][:3]),
        complete_to=clock[0] - settled,
        log_ends=dict(log_ends),
        entries=entries,
    )


def _fitting(entries: list[Entry]) -> list[Entry]:
    """As many as one record may hold."""
    size = 0
    for count, entry in enumerate(entries):
        size += _ENTRY_BYTES + len(entry.tenant.encode()) + len(entry.key)
        if size > _PAGE_BYTES:
            return entries[:count]
    return entries
