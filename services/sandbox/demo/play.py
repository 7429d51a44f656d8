"""Plays a morning against a running system and watches Canvas until it shows what the SIS holds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from services.sandbox.canvas.client import CanvasControl
from services.sandbox.demo import world
from services.sandbox.demo.verdict import Difference, Write, compare
from services.sandbox.sis.client import Delivery, Poster, Progress
from services.sandbox.sis.morning import Morning
from services.sandbox.sis.truth import Seat, roster

_LOOK_EVERY_SECONDS = 0.5


@dataclass(slots=True)
class Outcome:
    """What was seen so far; complete when `play` returns."""

    morning: Morning
    started: float
    """Wall clock, seconds since the epoch."""
    progress: Progress
    expected: set[Seat]
    writes: list[Write] = field(default_factory=list)
    attempts: int = 0
    """Entries of Canvas's write log that were read."""
    differences: list[Difference] = field(default_factory=list)
    """Against the final roster; shrinks while the morning runs."""

    @property
    def deliveries(self) -> list[Delivery]:
        """What became of each message that was sent."""
        return self.progress.deliveries

    def silence(self) -> float:
        """Seconds since a message was accepted last, or since the start."""
        return time.time() - max((each.answered for each in self.deliveries if each.answered), default=self.started)


async def play(
    morning: Morning,
    poster: Poster,
    canvas: CanvasControl,
    settled: Callable[[], bool],
    watch: Callable[[Outcome], None],
    settle_seconds: float,
) -> Outcome:
    """Post everything, then wait until Canvas matches and `settled` holds, or `settle_seconds` are over.

    A publisher that accepts nothing for `settle_seconds` ends the play as well.

    `watch` is called about twice a second; an exception in it (a dead process, say) ends the play and is raised from here.
    """
    try:
        return await _play(morning, poster, canvas, settled, watch, settle_seconds)
    except ExceptionGroup as group:
        error: Exception = group
        while isinstance(error, ExceptionGroup):
            error = error.exceptions[0]
        raise error from group


async def _play(
    morning: Morning,
    poster: Poster,
    canvas: CanvasControl,
    settled: Callable[[], bool],
    watch: Callable[[Outcome], None],
    settle_seconds: float,
) -> Outcome:
    outcome = Outcome(morning, time.time(), Progress(len(morning.messages)), roster(morning.school))
    async with asyncio.TaskGroup() as group:
        reveal = group.create_task(world.reveal_late_objects(canvas, morning, outcome.started))
        posting = group.create_task(_post(poster, outcome))
        deadline = float("inf")
        while True:
            await asyncio.sleep(_LOOK_EVERY_SECONDS)
            await asyncio.to_thread(_look, canvas, outcome)
            watch(outcome)
            if not posting.done() and outcome.silence() > settle_seconds:
                posting.cancel()
                reveal.cancel()
                break
            if not (posting.done() and reveal.done()):
                continue
            deadline = min(deadline, time.monotonic() + settle_seconds)
            if (not outcome.differences and await asyncio.to_thread(settled)) or time.monotonic() > deadline:
                break
    await asyncio.to_thread(_look, canvas, outcome)
    return outcome


async def _post(poster: Poster, outcome: Outcome) -> None:
    def note(progress: Progress) -> None:
        outcome.progress = progress

    await poster.play(outcome.morning.messages, note)


def _look(canvas: CanvasControl, outcome: Outcome) -> None:
    attempts = canvas.writes(after=outcome.attempts)
    outcome.attempts += len(attempts)
    outcome.writes += world.applied(attempts)
    outcome.differences = compare(outcome.expected, world.placements(canvas))
