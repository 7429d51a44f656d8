"""A play always ends: with a match, with the time that was given, or with the error of whoever watches."""

from __future__ import annotations

from typing import cast

import pytest

from services.sandbox.canvas.client import CanvasControl
from services.sandbox.demo.play import Outcome, play
from services.sandbox.sis.client import Poster
from services.sandbox.sis.morning import plan_morning
from tests.unit.sandbox_sis.test_client import publisher

MORNING = plan_morning(students=10, sections=4, seconds=0.5)


class EmptyCanvas:
    """A Canvas to which nothing ever comes."""

    def objects(self, **_kinds: object) -> dict[str, object]:
        return {}

    def writes(self, after: int = 0) -> list[dict[str, object]]:
        return []

    def roster(self, section: str | None = None) -> list[dict[str, object]]:
        return []


CANVAS = cast(CanvasControl, EmptyCanvas())


def ignore(_outcome: Outcome) -> None:
    pass


async def test_a_publisher_that_accepts_nothing_ends_the_play() -> None:
    with publisher(lambda _number: 503) as (url, _seen):
        outcome = await play(MORNING, Poster(url, "psoft", "secret"), CANVAS, lambda: True, ignore, settle_seconds=1)
    assert outcome.deliveries
    assert not any(delivery.accepted for delivery in outcome.deliveries)
    assert outcome.differences


async def test_a_canvas_that_never_matches_ends_the_play_with_the_differences() -> None:
    with publisher(lambda _number: 200) as (url, _seen):
        outcome = await play(MORNING, Poster(url, "psoft", "secret"), CANVAS, lambda: True, ignore, settle_seconds=1)
    assert all(delivery.accepted for delivery in outcome.deliveries)
    assert {difference.kind for difference in outcome.differences} == {"missing"}


async def test_the_error_of_whoever_watches_ends_the_play() -> None:
    def died(_outcome: Outcome) -> None:
        raise RuntimeError("the consumer ended")

    with publisher(lambda _number: 503) as (url, _seen), pytest.raises(RuntimeError, match="the consumer ended"):
        await play(MORNING, Poster(url, "psoft", "secret"), CANVAS, lambda: True, died, settle_seconds=60)
