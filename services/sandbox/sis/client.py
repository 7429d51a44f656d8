"""The Integration Broker's sending side: posts messages on time, in bounded concurrency, and repeats what gets a 503."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http import HTTPStatus

import httpx

from services.kit.credentials import basic
from services.sandbox.sis.messages import Message
from services.sandbox.sis.rowset import render

_FIRST_PAUSE_SECONDS = 0.2
_LONGEST_PAUSE_SECONDS = 2.0


@dataclass(slots=True)
class Delivery:
    """What became of one message."""

    message: Message
    first_sent: float
    """Wall clock (seconds since the epoch) of the first attempt: the moment that latency is measured from."""
    attempts: int = 0
    status: int | None = None
    """The final HTTP status; None while nobody answered."""
    answered: float | None = None

    @property
    def accepted(self) -> bool:
        """Whether the publisher took the message."""
        return self.status == HTTPStatus.OK


@dataclass(slots=True)
class Progress:
    """Counters for whoever watches."""

    total: int
    accepted: int = 0
    changes: int = 0
    repeated: int = 0
    """Attempts after the first."""
    refused: int = 0
    """Answers that the Integration Broker would not repeat: neither 200 nor 503."""
    deliveries: list[Delivery] = field(default_factory=list)
    """Of every message that was sent so far, answered or not, in the order of leaving."""


@dataclass(slots=True)
class Poster:
    """Sends messages to one publisher.

    Up to `concurrency` posts are under way at once, so two messages of one student may overtake each other; only their
    OrigTimeStamp says which is newer. A 503 and a broken connection are repeated until cancelled, as the Integration Broker does.
    """

    url: str
    """The whole address, for example ``http://127.0.0.1:8080/intake/peoplesoft``."""
    user: str
    password: str = field(repr=False)
    concurrency: int = 16
    timeout_seconds: float = 15.0

    async def play(
        self,
        messages: Sequence[Message],
        on_progress: Callable[[Progress], None] = lambda _progress: None,
        speed: float = 1.0,
        started: datetime | None = None,
    ) -> list[Delivery]:
        """Post every message at its time; returns when the last is answered. `speed` 2 plays twice as fast.

        `started`: when the morning began by the SIS's clock, from which OrigTimeStamp counts. Posters that share the messages of
        one SIS have to share it; now when absent.
        """
        begun, started = time.monotonic(), started or datetime.now(UTC).astimezone()
        progress = Progress(total=len(messages))
        limits = httpx.Limits(max_connections=self.concurrency, max_keepalive_connections=self.concurrency)
        slots = asyncio.Semaphore(self.concurrency)
        headers = {"authorization": basic(self.user, self.password)}
        async with httpx.AsyncClient(limits=limits, timeout=self.timeout_seconds, headers=headers, trust_env=False) as client:
            async with asyncio.TaskGroup() as group:
                for message in messages:
                    await asyncio.sleep(begun + message.post_at / speed - time.monotonic())
                    await slots.acquire()
                    stamp = started + timedelta(seconds=message.at)
                    task = group.create_task(self._deliver(client, message, stamp, progress, on_progress))
                    task.add_done_callback(lambda _task: slots.release())
            return progress.deliveries

    async def _deliver(
        self,
        client: httpx.AsyncClient,
        message: Message,
        stamp: datetime,
        progress: Progress,
        on_progress: Callable[[Progress], None],
    ) -> Delivery:
        body, headers = render(message, stamp)
        delivery = Delivery(message, first_sent=time.time())
        progress.deliveries.append(delivery)
        on_progress(progress)
        pause = _FIRST_PAUSE_SECONDS
        while True:
            delivery.attempts += 1
            delivery.status = await self._post(client, body, headers)
            if delivery.status not in (None, HTTPStatus.SERVICE_UNAVAILABLE):
                break
            progress.repeated += 1
            on_progress(progress)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        delivery.answered = time.time()
        progress.accepted += delivery.accepted
        progress.refused += not delivery.accepted
        progress.changes += message.changes if delivery.accepted else 0
        on_progress(progress)
        return delivery

    async def _post(self, client: httpx.AsyncClient, body: bytes, headers: dict[str, str]) -> int | None:
        try:
            response = await client.post(self.url, content=body, headers=headers)
        except httpx.TransportError:
            return None
        return response.status_code
