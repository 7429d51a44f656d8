"""What ledgers return: republishes that they ask for, events that this mirror has lost, rounds of digests.

Read by one member of a group, and committed when the effect is durable in the mirror; the outbox takes it from there. Reading a
record twice is harmless: keys and events name versions, and the mirror looks again under its locks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, Protocol, TypeVar
from uuid import UUID

import orjson
import structlog

from schemas import codec, returns
from schemas.codec import NewerEvent, UndecodableEvent
from schemas.events import AnyEvent
from schemas.returns import DigestsWanted, KeyAt, RepublishKeys, RepublishScope, Return, ReturnedEvent, UnreadableReturn
from services.publisher.changes import Unavailable
from services.publisher.metrics import Metrics
from services.publisher.mirror.republish import Scope
from services.publisher.returns_log import Returned, ReturnsLog

log = structlog.get_logger()
Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")
_POLL_SECONDS = 0.5
_BATCH = 20
_STAY_SECONDS = 10.0
_FIRST_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 0.25, 15.0
_GONE = frozenset({"dropped", "removed"})


class Mirror(Protocol):
    """What of the mirror is needed; every call is durable when it returns, and raises `Unavailable` when it cannot be now."""

    async def opened(self) -> None:
        """Wait until it takes something."""

    async def republish(self, scope: Scope) -> object:
        """Emit current state again."""

    async def republish_keys(self, keys: Collection[KeyAt]) -> int:
        """The same for single entities, unless they have a newer version than the one named; how many."""

    async def take_back(self, events: Sequence[AnyEvent]) -> int:
        """Fold the rows of events that a ledger has, and rise above them; how many new versions that made."""

    async def ask_for_digests(self, reason: str, request: UUID | None = None) -> UUID:
        """Have a round emitted."""


class Returns:
    """Reads and obeys; lives in one event loop, between `start` and `stop`."""

    def __init__(self, mirror: Mirror, open_log: Callable[[], ReturnsLog], metrics: Metrics, per_second: int) -> None:
        """`per_second`: at most so many entities, because each may become an event."""
        self._mirror = mirror
        self._open_log = open_log
        self._metrics = metrics
        self._per_second = per_second
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "returns")
        """All that the client does, in its order: a poll that was abandoned ends before the client is closed."""

    async def start(self) -> None:
        """Waits for nothing."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """What is under way is not committed, and comes again."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._thread.shutdown(wait=False)

    async def _run(self) -> None:
        while True:
            await self._mirror.opened()
            source = await self._in_thread(self._open_log)
            try:
                await self._read(source)
            except Exception as error:  # Kafka's client; without this task the mirror would be deaf
                log.error("returns_failed", exc_info=error)
            finally:
                # Also when cancelled. Leaving the group takes a moment.
                await self._in_thread(source.close)
            await asyncio.sleep(_LONGEST_RETRY_SECONDS)

    async def _read(self, source: ReturnsLog) -> None:
        while True:
            records = await self._in_thread(source.poll, _BATCH, _POLL_SECONDS)
            if not records:
                continue
            count = await self._until_done(records, source)
            await self._in_thread(source.commit, records)
            await self._rest(count / self._per_second, source)

    async def _rest(self, seconds: float, source: ReturnsLog) -> None:
        """Wait without losing the membership."""
        while seconds > 0:
            await asyncio.sleep(min(seconds, _STAY_SECONDS))
            await self._in_thread(source.stay)
            seconds -= _STAY_SECONDS

    async def _until_done(self, records: Sequence[Returned], source: ReturnsLog) -> int:
        """Obey, again until the mirror can; how many entities were named."""
        pause = _FIRST_RETRY_SECONDS
        messages = [message for record in records if (message := self._decoded(record)) is not None]
        while True:
            try:
                return await self._obey(messages)
            except Unavailable as error:
                log.warning("returns_wait", reason=error.reason, retry_in_s=pause)
            await asyncio.sleep(pause)
            await self._in_thread(source.stay)
            pause = min(pause * 2, _LONGEST_RETRY_SECONDS)

    async def _obey(self, messages: Sequence[Return]) -> int:
        events: list[AnyEvent] = []
        count = 0
        for message in messages:
            match message:
                case ReturnedEvent():
                    events += self._event(message)
                case RepublishKeys():
                    count += len(message.keys)
                    self._count("republished", await self._mirror.republish_keys(message.keys))
                case RepublishScope():
                    await self._republish(message)
                case DigestsWanted():
                    await self._mirror.ask_for_digests("ledger", message.request)
        if events:
            self._count("taken_back", await self._mirror.take_back(events))
        return count + len(events)

    async def _republish(self, message: RepublishScope) -> None:
        log.warning("republish_wanted", reason=message.reason)
        await self._mirror.republish(Scope.model_validate(message.scope.model_dump()))
        self._count("scope", 1)

    def _event(self, message: ReturnedEvent) -> list[AnyEvent]:
        """Nothing for an event that cannot be folded: one that says something must bring the rows that say it."""
        try:
            event = codec.decode(message.kind, orjson.dumps(message.event))
        except (UndecodableEvent, NewerEvent) as error:
            log.error("returned_event_unreadable", kind=message.kind, error_type=type(error).__name__)
            self._count("refused", 1)
            return []
        if not event.source_rows and event.status not in _GONE:
            log.error("returned_event_without_rows", kind=message.kind, version=event.version)
            self._count("refused", 1)
            return []
        return [event]

    def _decoded(self, record: Returned) -> Return | None:
        try:
            return returns.decode(record.value)
        except UnreadableReturn as error:
            log.error("return_unreadable", partition=record.partition, offset=record.offset, reason=str(error))
            self._count("refused", 1)
            return None

    async def _in_thread(self, call: Callable[Arguments, Value], *arguments: Arguments.args, **named: Arguments.kwargs) -> Value:
        return await asyncio.get_running_loop().run_in_executor(self._thread, partial(call, *arguments, **named))

    def _count(self, what: str, count: int) -> None:
        self._metrics.returns.labels(what).inc(count)
