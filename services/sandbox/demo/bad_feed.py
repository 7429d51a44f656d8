"""The last scene: a feed that drops nearly all of a class. Nobody may lose a seat, and adds must go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx

from services.sandbox.canvas.client import CanvasControl
from services.sandbox.demo import world
from services.sandbox.demo.verdict import Scene, compare
from services.sandbox.sis.bad_feed import BadFeed
from services.sandbox.sis.client import Poster
from services.sandbox.sis.school import School
from services.sandbox.sis.truth import roster

_EVERY_SECONDS = 0.2
_WITHIN_SECONDS = 30.0


class _Watch:
    """Canvas and the consumer, from the outside."""

    def __init__(self, canvas: CanvasControl, consumer_url: str, token: str, school: School) -> None:
        self._canvas = canvas
        self._school = school
        self._http = httpx.Client(base_url=consumer_url, headers={"Authorization": f"Bearer {token}"}, trust_env=False, timeout=5)

    def holds(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._http.get("/holds").raise_for_status().json()["holds"]
        return found

    def differences(self) -> int:
        return len(compare(roster(self._school), world.placements(self._canvas)))


async def play(
    feed: BadFeed, school: School, poster: Poster, canvas: CanvasControl, consumer_url: str, token: str, check: Callable[[], None]
) -> Scene:
    """Post the three messages and watch; `check` is called meanwhile and may raise."""
    watch = _Watch(canvas, consumer_url, token, school)
    began_at = time.monotonic()
    await poster.play([feed.wrong])
    await poster.play([feed.add])
    sent_at = time.monotonic()
    added = await _when(lambda: watch.differences() == 0, check)
    held = await _when(lambda: bool(watch.holds()), check)
    holds = watch.holds()
    lost = watch.differences()
    await poster.play([feed.right])
    over = await _when(lambda: not watch.holds() and watch.differences() == 0, check)
    return Scene(
        feed.dropped,
        held=sum(hold["held"] for hold in holds),
        hold_seconds=held and held - began_at,
        cause=holds[0]["cause"] if holds else "",
        add_seconds=added and added - sent_at,
        lost=lost,
        over=over is not None,
    )


async def _when(condition: Callable[[], bool], check: Callable[[], None]) -> float | None:
    """The moment (monotonic) when it first held; None if it does not in time."""
    end = time.monotonic() + _WITHIN_SECONDS
    while time.monotonic() < end:
        check()
        if await asyncio.to_thread(condition):
            return time.monotonic()
        await asyncio.sleep(_EVERY_SECONDS)
    return None
