"""Which copy of a row is newer: never a matter of luck when the source says it, and said aloud when it is."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import OrderToken
from services.publisher.mirror.order import (
    BY_ARRIVAL,
    DUPLICATE,
    NEWER,
    OLDER,
    Verdict,
    channel_name,
    compare,
    raised,
    shows,
)

NOON = datetime(2026, 9, 1, 12, tzinfo=UTC)


def at(
    seconds: float | None = None, position: int | None = None, *, channel: str = "ib:SIS", snapshot: bool = False
) -> OrderToken:
    """A token true at one instant."""
    instant = None if seconds is None else NOON + timedelta(seconds=seconds)
    return OrderToken(channel=channel, position=position, as_of_from=instant, as_of_to=instant, snapshot=snapshot)


def judge(stored: OrderToken, incoming: OrderToken, *, same: bool = False) -> Verdict:
    """The verdict when the stored copy is all that was ever seen."""
    return compare(stored, raised({}, stored), incoming, same_content=same)


@dataclass
class Row:
    """A row that takes copies in, as the mirror's transaction does."""

    order: OrderToken | None = None
    content: object = None
    seen: dict[str, int] = field(default_factory=dict)

    def take(self, incoming: OrderToken, content: object) -> None:
        if self.order is not None:
            verdict = compare(self.order, self.seen, incoming, same_content=content == self.content)
            self.seen = raised(self.seen, incoming)
            if verdict.age != "newer":
                return
        self.order, self.content, self.seen = incoming, content, raised(self.seen, incoming)


@pytest.mark.parametrize(
    ("stored", "incoming", "verdict"),
    [
        pytest.param(at(0, 5), at(0, 6), NEWER, id="higher position"),
        pytest.param(at(0, 5), at(99, 4), OLDER, id="lower position, whatever the clock says"),
        pytest.param(at(0, 5), at(0, 5), BY_ARRIVAL, id="one position, two contents"),
        pytest.param(at(0), at(6), NEWER, id="clearly later"),
        pytest.param(at(6), at(0), OLDER, id="clearly earlier"),
        pytest.param(at(0), at(4), BY_ARRIVAL, id="too close to call"),
        pytest.param(at(4), at(0), BY_ARRIVAL, id="too close to call, the other way"),
        pytest.param(at(), at(), BY_ARRIVAL, id="nothing known"),
        pytest.param(at(0, snapshot=True), at(0), NEWER, id="delta beats snapshot"),
        pytest.param(at(4), at(0, snapshot=True), OLDER, id="snapshot loses to delta"),
        pytest.param(at(0), at(60, snapshot=True), NEWER, id="a later snapshot wins"),
        pytest.param(at(0, 900), at(60, 3, channel="other"), NEWER, id="positions of two channels do not compare"),
    ],
)
def test_newer_is(stored: OrderToken, incoming: OrderToken, verdict: Verdict) -> None:
    assert judge(stored, incoming) == verdict


def test_the_same_copy_again_is_a_duplicate() -> None:
    assert judge(at(0, 5), at(0, 5), same=True) == DUPLICATE
    assert judge(at(0), at(0), same=True) == DUPLICATE


def test_equal_content_is_never_ambiguous() -> None:
    assert judge(at(0), at(1), same=True) == NEWER


def test_a_position_that_went_by_is_old_news_although_another_channel_has_spoken_since() -> None:
    seen = {channel_name(at(0, 5)): 5}
    assert compare(at(60, channel="other"), seen, at(120, 5), same_content=False) == DUPLICATE
    assert compare(at(60, channel="other"), seen, at(120, 4), same_content=False) == OLDER


def test_a_source_that_lost_its_history_is_judged_by_the_clock() -> None:
    reborn = OrderToken(channel="ib:SIS", incarnation="2", position=1, as_of_from=NOON + timedelta(minutes=1))
    assert judge(at(0, 900), reborn) == NEWER


@given(st.lists(st.integers(0, 40), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_the_outcome_does_not_depend_on_the_order_of_arrival(positions: list[int], chance: random.Random) -> None:
    row, arrivals = Row(), list(positions) * 2  # each delivered twice
    chance.shuffle(arrivals)
    for position in arrivals:
        row.take(at(0, position), f"content of {position}")
    assert row.content == f"content of {max(positions)}"
    assert row.order == at(0, max(positions))


_TOKENS = st.builds(
    at,
    st.none() | st.integers(0, 30),
    st.none() | st.integers(0, 5),
    channel=st.sampled_from(["a", "b"]),
    snapshot=st.booleans(),
)


@given(st.lists(st.tuples(_TOKENS, st.integers(0, 3)), min_size=1, max_size=15))
def test_what_was_just_taken_in_is_shown(copies: list[tuple[OrderToken, int]]) -> None:
    """Otherwise a request would fold forever and end in a 503."""
    row = Row()
    for incoming, content in copies:
        row.take(incoming, content)
        assert row.order is not None
        assert shows(row.order, row.seen, incoming)


@given(st.lists(st.tuples(_TOKENS, st.integers(0, 3)), min_size=1, max_size=15))
def test_a_message_sent_again_at_once_changes_nothing(copies: list[tuple[OrderToken, int]]) -> None:
    row = Row()
    for incoming, content in copies:
        row.take(incoming, content)
        before = row.content
        row.take(incoming, content)
        assert row.content == before


@given(_TOKENS, _TOKENS)
def test_a_copy_that_is_older_than_the_incoming_one_does_not_show_it(stored: OrderToken, incoming: OrderToken) -> None:
    seen = raised({}, stored)
    lost = compare(stored, seen, incoming, same_content=False) == NEWER
    assert shows(stored, seen, incoming) is not lost
