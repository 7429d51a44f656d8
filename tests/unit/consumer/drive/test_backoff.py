"""Delays between attempts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.consumer.drive.backoff import FAULT, PERMISSION, PROBE, TOKEN, Backoff

BACKOFFS = st.sampled_from([FAULT, PERMISSION, PROBE, TOKEN])
CHANCE = st.floats(0, 1, exclude_max=True)


def test_it_doubles_up_to_its_cap() -> None:
    assert [Backoff(1, 2, 10).delay(attempts, 0) for attempts in range(1, 7)] == [1, 2, 4, 8, 10, 10]


@given(BACKOFFS, st.integers(0, 100_000), CHANCE)
def test_however_often_it_failed_it_tries_again_within_the_cap(backoff: Backoff, attempts: int, chance: float) -> None:
    delay = backoff.delay(attempts, chance)
    assert backoff.first_seconds / 2 <= delay <= backoff.cap_seconds


@given(BACKOFFS, st.integers(1, 50), CHANCE)
def test_jitter_takes_at_most_half(backoff: Backoff, attempts: int, chance: float) -> None:
    assert backoff.delay(attempts, 0) / 2 <= backoff.delay(attempts, chance) <= backoff.delay(attempts, 0)
