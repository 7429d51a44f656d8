"""When each channel last delivered, over all publishers, and which of them are silent though they should not be.

Silence removes nobody: it is said, and that is all.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from functools import partial
from typing import Any, NamedTuple

import structlog

from services.kit.postgres import Connection
from services.publisher.changes import Unavailable
from services.publisher.metrics import Metrics
from services.publisher.mirror import database
from services.publisher.mirror.owner import Owner
from services.publisher.silence import Cadence, is_silent, silent_for

log = structlog.get_logger()
_LOOK_SECONDS = 5.0
_FAREWELL_SECONDS = 1
_KEEP_DAYS = 180
_LISTED = 1_000
_Query = Callable[[Connection], Any]


@dataclass(frozen=True, slots=True)
class Channel:
    """One way in, and what is known of it."""

    name: str
    last_at: datetime | None
    """None: it is expected, and has never delivered."""
    deliveries: int
    cadence: Cadence | None
    silent_for: timedelta | None
    """In its active hours; None without a cadence."""
    is_silent: bool


class _Seen(NamedTuple):
    """A channel by the database."""

    name: str
    last_at: datetime | None
    deliveries: int
    expected_since: datetime | None
    """Of one that was expected before it delivered."""


class Channels:
    """Lives in one event loop, between `start` and `stop`."""

    def __init__(
        self,
        opened: Callable[[], Awaitable[None]],
        database_url: str,
        tenant: str,
        cadences: Mapping[str, Cadence],
        zone: tzinfo,
        metrics: Metrics,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`opened` waits until the mirror is open: it makes the tables."""
        self._opened = opened
        self._tenant = tenant
        self._cadences = cadences
        self._zone = zone
        self._metrics = metrics
        self._clock = clock
        self._last: dict[str, datetime] = {}
        self._deliveries: Counter[str] = Counter()
        self._owner: Owner[_Query, Any] = Owner("channels", partial(database.connect, database_url), _run, 1, 1_000)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look at them."""
        self._owner.start()
        self._task = asyncio.create_task(self._watch())

    async def stop(self) -> None:
        """Write down what was heard last."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(_FAREWELL_SECONDS):
                await self._write_down()
        await self._owner.stop(1)

    def heard(self, channel: str, at: datetime) -> None:
        """Something was delivered; costs nothing but memory until the next look."""
        self._last[channel] = at
        self._deliveries[channel] += 1

    async def listed(self) -> Sequence[Channel]:
        """Every channel that delivered within half a year, or is expected to. Raises `Unavailable`."""
        await self._write_down()
        now = self._clock()
        seen: list[_Seen] = await self._owner.submit(
            partial(_look, tenant=self._tenant, expected=sorted(self._cadences), now=now)
        )
        return sorted((self._channel(one, now) for one in seen), key=lambda channel: channel.name)

    def _channel(self, seen: _Seen, now: datetime) -> Channel:
        cadence, since = self._cadences.get(seen.name), seen.last_at or seen.expected_since
        if cadence is None or since is None:
            return Channel(seen.name, seen.last_at, seen.deliveries, cadence, None, is_silent=False)
        silence = silent_for(since, now, cadence, self._zone)
        silent = is_silent(since, now, cadence, self._zone)
        return Channel(seen.name, seen.last_at, seen.deliveries, cadence, silence, silent)

    async def _write_down(self) -> None:
        if not self._last:
            return
        last, deliveries = self._last, self._deliveries
        self._last, self._deliveries = {}, Counter()
        try:
            await self._owner.submit(partial(_write, tenant=self._tenant, last=last, deliveries=deliveries))
        except BaseException:
            self._last = last | self._last
            self._deliveries += deliveries
            raise

    async def _watch(self) -> None:
        while True:
            await self._opened()
            try:
                for channel in await self.listed():
                    if channel.cadence is not None:
                        self._metrics.channel_silent.labels(channel.name).set(channel.is_silent)
                        self._metrics.channel_last.labels(channel.name).set(channel.last_at.timestamp() if channel.last_at else 0)
            except Unavailable as error:
                log.info("channels_unknown", reason=error.reason, retry_in_s=_LOOK_SECONDS)
            except Exception as error:  # a task that ended here would call every source silent, or none
                log.error("channels_failed", exc_info=error)
            await asyncio.sleep(_LOOK_SECONDS)


def _run(connection: Connection, batch: Sequence[_Query]) -> list[Any]:
    return [work(connection) for work in batch]


def _write(connection: Connection, tenant: str, last: Mapping[str, datetime], deliveries: Mapping[str, int]) -> None:
    with connection.transaction():
        for name in sorted(last):  # several processes write the same rows, all in this order
            connection.execute(
                """insert into channel as c (tenant, channel, last_at, deliveries) values (%s, %s, %s, %s)
                   on conflict (tenant, channel) do update
                      set last_at = greatest(c.last_at, excluded.last_at), deliveries = c.deliveries + excluded.deliveries""",
                [tenant, name, last[name], deliveries[name]],
            )


def _look(connection: Connection, tenant: str, expected: Sequence[str], now: datetime) -> list[_Seen]:
    """The expected ones however long ago, then the latest: a sender that has many names pushes nobody out.

    An expected one that is not known yet is noted: from `now` on it is silent.
    """
    connection.execute(
        """insert into channel (tenant, channel, deliveries, expected_since)
           select %(tenant)s, name, 0, %(now)s from unnest(%(expected)s::text[]) as expected (name) order by name
           on conflict (tenant, channel) do nothing""",
        {"tenant": tenant, "expected": list(expected), "now": now},
    )
    rows = connection.execute(
        """select channel, last_at, deliveries, expected_since from channel
            where tenant = %(tenant)s
              and (channel = any(%(expected)s) or last_at > clock_timestamp() - make_interval(days => %(days)s))
            order by channel = any(%(expected)s) desc, last_at desc limit %(most)s""",
        {"tenant": tenant, "expected": list(expected), "days": _KEEP_DAYS, "most": _LISTED},
    )
    return [_Seen(*row) for row in rows]
