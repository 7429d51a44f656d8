"""What every target promises the driver, whatever LMS is behind it. An adapter subclasses `TargetContract` and provides `lab`."""

from __future__ import annotations

import asyncio
from typing import Protocol

import pytest

from services.consumer.nouns import MissingKind, Seat, SeatState
from services.consumer.targets.port import (
    AlreadySo,
    Done,
    NotThere,
    Observation,
    ObservedState,
    Presence,
    ServerFault,
    Target,
    Unknown,
)

STATES: tuple[SeatState, ...] = ("active", "inactive", "completed", "deleted")


class Lab(Protocol):
    """An LMS that a test may arrange and look into, beside the target."""

    call_timeout_seconds: float

    @property
    def target(self) -> Target:
        """Connected to the LMS."""
        ...

    def seat(self, person: str = "p1", section: str = "S-1") -> Seat:
        """A seat whose user and section exist."""
        ...

    def seat_without(self, *missing: MissingKind) -> Seat:
        """A seat whose user or section does not exist."""
        ...

    def state(self, seat: Seat) -> ObservedState:
        """As the LMS has it."""
        ...

    def rows(self, seat: Seat) -> int:
        """How many rows the LMS has for the seat's user and section."""
        ...

    def changes(self) -> int:
        """How many changes the LMS has made for the target."""
        ...

    def lose_the_next_answer(self, *, applies: bool) -> None:
        """The next change gets no answer; it takes effect or not."""
        ...

    def hang(self) -> None:
        """No call gets an answer any more."""
        ...


async def brought_to(lab: Lab, seat: Seat, wanted: SeatState) -> Observation:
    """Move the seat, step by step, as the driver does."""
    for _ in range(3):
        seen = await lab.target.read(seat)
        assert isinstance(seen, Observation)
        if seen.state == wanted:
            return seen
        outcome = await lab.target.write(seat, wanted, seen)
        assert isinstance(outcome, Done), outcome
    raise AssertionError("three steps were not enough")


class TargetContract:
    """The promises."""

    async def test_a_seat_that_never_was_reads_as_absent(self, lab: Lab) -> None:
        assert await lab.target.read(lab.seat()) == Observation("absent")

    @pytest.mark.parametrize("wanted", STATES[:3])
    async def test_a_new_seat_reaches_every_state_and_is_confirmed_with_its_ids(self, lab: Lab, wanted: SeatState) -> None:
        seen = await brought_to(lab, lab.seat(), wanted)
        assert lab.state(lab.seat()) == wanted
        assert seen.lms_enrollment is not None

    @pytest.mark.parametrize("before", STATES)
    @pytest.mark.parametrize("wanted", STATES)
    async def test_every_state_is_reached_from_every_other_within_one_row(
        self, lab: Lab, before: SeatState, wanted: SeatState
    ) -> None:
        seat = lab.seat()
        await brought_to(lab, seat, "active")
        await brought_to(lab, seat, before)
        await brought_to(lab, seat, wanted)
        assert lab.state(seat) == wanted
        assert lab.rows(seat) == 1

    async def test_what_is_so_already_costs_no_change(self, lab: Lab) -> None:
        seat = lab.seat()
        seen = await brought_to(lab, seat, "active")
        before = lab.changes()
        assert isinstance(await lab.target.write(seat, "active", seen), AlreadySo)
        assert isinstance(await lab.target.write(lab.seat("p2"), "deleted", Observation("absent")), AlreadySo)
        assert lab.changes() == before

    async def test_the_answer_of_a_change_is_enough_for_the_next_one(self, lab: Lab) -> None:
        """No read in between: the ids that `Done` carries name the row."""
        seat = lab.seat()
        done = await lab.target.write(seat, "active", Observation("absent"))
        assert isinstance(done, Done)
        assert done.observation.state == "active"
        again = await lab.target.write(seat, "deleted", done.observation)
        assert isinstance(again, Done)
        assert (again.observation.state, lab.state(seat)) == ("deleted", "deleted")

    async def test_a_row_that_was_removed_by_somebody_else_is_not_success(self, lab: Lab) -> None:
        seat = lab.seat()
        seen = await brought_to(lab, seat, "active")
        assert isinstance(await lab.target.write(seat, "deleted", seen), Done)
        assert isinstance(await lab.target.write(seat, "deleted", seen), NotThere | AlreadySo)
        assert (await brought_to(lab, seat, "deleted")).state == "deleted"

    @pytest.mark.parametrize(
        ("missing", "named"), [(("user",), "user"), (("section",), "section"), (("user", "section"), "both")]
    )
    async def test_a_missing_object_is_named(self, lab: Lab, missing: tuple[MissingKind, ...], named: str) -> None:
        seat = lab.seat_without(*missing)
        for outcome in (await lab.target.read(seat), await lab.target.write(seat, "active", Observation("absent"))):
            assert isinstance(outcome, NotThere)
            assert outcome.missing == named
        assert lab.changes() == 0

    async def test_a_probe_tells_whether_an_object_is_there(self, lab: Lab) -> None:
        here, nowhere = lab.seat(), lab.seat_without("user", "section")
        probes = [
            await lab.target.probe("user", here.lms_user),
            await lab.target.probe("section", here.lms_section),
            await lab.target.probe("user", nowhere.lms_user),
            await lab.target.probe("section", nowhere.lms_section),
        ]
        assert probes == [Presence(True), Presence(True), Presence(False), Presence(False)]

    @pytest.mark.parametrize("applies", [True, False])
    async def test_a_lost_answer_is_unknown_and_is_not_sent_twice(self, lab: Lab, applies: bool) -> None:
        seat = lab.seat()
        seen = await brought_to(lab, seat, "active")
        before = lab.changes()
        lab.lose_the_next_answer(applies=applies)
        assert isinstance(await lab.target.write(seat, "deleted", seen), Unknown)
        assert lab.state(seat) == ("deleted" if applies else "active")
        assert lab.changes() == before + applies

    async def test_a_lost_answer_to_an_add_is_unknown(self, lab: Lab) -> None:
        lab.lose_the_next_answer(applies=True)
        assert isinstance(await lab.target.write(lab.seat(), "active", Observation("absent")), Unknown)
        seen = await lab.target.read(lab.seat())
        assert isinstance(seen, Observation)
        assert seen.state == "active"

    async def test_every_operation_ends_within_its_time(self, lab: Lab) -> None:
        lab.hang()
        async with asyncio.timeout(lab.call_timeout_seconds + 1):
            outcomes = await asyncio.gather(
                lab.target.read(lab.seat()),
                lab.target.write(lab.seat("p2"), "active", Observation("absent")),
                lab.target.probe("user", "p1"),
            )
        assert [type(outcome) for outcome in outcomes] == [ServerFault, Unknown, ServerFault]

    async def test_people_do_not_disturb_each_other(self, lab: Lab) -> None:
        seats = [lab.seat(person) for person in ("p1", "p2", "p3", "p4")]
        outcomes = await asyncio.gather(*(lab.target.write(seat, "active", Observation("absent")) for seat in seats))
        assert all(isinstance(outcome, Done) for outcome in outcomes)
        assert [lab.state(seat) for seat in seats] == ["active"] * 4
