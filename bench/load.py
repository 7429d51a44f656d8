"""The SIS's side of a benchmark: bodies made beforehand, posted one after another, at a rate, or as fast as they are taken."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Literal

import aiohttp

from services.kit.credentials import basic
from services.sandbox.sis.messages import Message, enrollment_row
from services.sandbox.sis.rowset import render
from services.sandbox.sis.school import Enrollment, EnrollmentKey

Post = tuple[bytes, dict[str, str]]
"""Body and headers."""

_STAMP = datetime(2027, 1, 4, 8, tzinfo=UTC)
CLASS = "26101"


class Sis:
    """Makes posts whose time stamps go up, as a SIS's do."""

    def __init__(self) -> None:
        self._stamp = _STAMP

    def change(self, people: Sequence[str], status: Literal["E", "D"]) -> Post:
        """One message: these people enrol (``E``) or drop (``D``)."""
        rows = []
        for person in people:
            dropped = "2027-01-05" if status == "D" else ""
            row = Enrollment(
                EnrollmentKey(person, "UGRD", CLASS),
                status,
                "ENRL" if status == "E" else "DROP",
                added="2027-01-04",
                dropped=dropped,
            )
            rows.append(enrollment_row(row, "A" if status == "E" else "C"))
        self._stamp += timedelta(milliseconds=1)
        return render(Message(0, "ZZ_ENRL_SYNC", tuple(rows), 0.0, 0.0), self._stamp)


class Sender:
    """Posts to one address over kept-alive connections."""

    def __init__(self, url: str, user: str, password: str) -> None:
        self._url = url
        self._headers = {"authorization": basic(user, password)}

    async def __aenter__(self) -> Sender:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), trust_env=False)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def send(self, post: Post) -> float:
        """Until it is accepted, again after a 503; returns when the first attempt left (monotonic seconds)."""
        body, headers = post
        left = time.monotonic()
        while True:
            async with self._session.post(self._url, data=body, headers=headers | self._headers) as answer:
                await answer.read()
                if answer.status < 300:
                    return left
                if answer.status != 503:
                    raise RuntimeError(f"{self._url} answered {answer.status}")
            await asyncio.sleep(0.2)

    async def closed_loop(self, posts: Sequence[Post], clients: int, seconds: float = float("inf")) -> tuple[int, float]:
        """`clients` at a time until `seconds` are over or nothing is left: posts taken, seconds needed."""
        waiting, taken, started = iter(posts), 0, time.monotonic()

        async def client() -> None:
            nonlocal taken
            for post in waiting:
                if time.monotonic() - started > seconds:
                    return
                await self.send(post)
                taken += 1

        await asyncio.gather(*(client() for _ in range(clients)))
        return taken, time.monotonic() - started

    async def open_loop(self, posts: Sequence[Post], per_second: float, seed: int) -> list[float]:
        """At random moments (Poisson), whether or not earlier ones are answered; when each left."""
        chance, loop = random.Random(seed), asyncio.get_running_loop()  # noqa: S311  (a schedule, not a secret)
        at, tasks = loop.time(), []
        for post in posts:
            at += chance.expovariate(per_second)
            await asyncio.sleep(max(0.0, at - loop.time()))
            tasks.append(asyncio.create_task(self.send(post)))
        return list(await asyncio.gather(*tasks))


async def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Poll; raises `TimeoutError` naming `what`."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(condition):
        if time.monotonic() > deadline:
            raise TimeoutError(f"not after {seconds:g} s: {what}")
        await asyncio.sleep(0.05)
