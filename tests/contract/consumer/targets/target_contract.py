"""What every target promises the driver, whatever LMS is behind it.

An adapter subclasses `TargetContract`, says what its LMS can tell apart (`features`), and provides `lab`.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar, get_args

import pytest

from services.consumer.nouns import MissingKind, Seat, SeatState, satisfied
from services.consumer.targets.port import (
    AlreadySo,
    Done,
    NoPermission,
    NotThere,
    Observation,
    Outcome,
    Presence,
    Refused,
    RosterPage,
    RosterRow,
    ServerFault,
    Unknown,
    WrongShape,
)
from tests.contract.consumer.targets.lab import Features, Lab, Mishap


async def brought_to(lab: Lab, seat: Seat, wanted: SeatState) -> Observation:
    """Move the seat, step by step, as the driver does. Each step is one change and no more."""
    for _ in range(3):
        seen = await lab.target.read(seat)
        assert isinstance(seen, Observation)
        if satisfied(wanted, seen.state):
            return seen
        before = lab.changes()
        outcome = await lab.target.write(seat, wanted, seen)
        assert isinstance(outcome, Done), outcome
        assert lab.changes() == before + 1
    raise AssertionError("three steps were not enough")


async def whole_roster(lab: Lab, section: str = "S-1") -> list[RosterRow]:
    """All pages, one after the other."""
    rows: list[RosterRow] = []
    following = None
    while True:
        page = await lab.target.roster(section, following)
        assert isinstance(page, RosterPage), page
        rows += page.rows
        following = page.next_page
        if following is None:
            return rows


def succeeded(outcome: Outcome, wanted: SeatState) -> bool:
    """Whether the driver would take it for done."""
    return isinstance(outcome, Done | AlreadySo) and satisfied(wanted, outcome.observation.state)


class TargetContract:
    """The promises."""

    features: ClassVar[Features]

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Of a test's parameters `given` goes through the states of a new seat, `before` and `wanted` through all that the LMS
        has."""
        has = self.features.states
        for name, states in {"given": has - {"deleted"}, "before": has, "wanted": has}.items():
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, sorted(states))

    async def test_a_seat_that_never_was_reads_as_absent(self, lab: Lab) -> None:
        assert await lab.target.read(lab.seat()) == Observation("absent")

    async def test_a_new_seat_reaches_every_state_and_is_confirmed_with_its_ids(self, lab: Lab, given: SeatState) -> None:
        seen = await brought_to(lab, lab.seat(), given)
        assert (seen.state, lab.state(lab.seat())) == (given, given)
        assert seen.lms_enrollment is not None

    async def test_every_state_is_reached_from_every_other_within_one_row(
        self, lab: Lab, before: SeatState, wanted: SeatState
    ) -> None:
        seat = lab.seat()
        await brought_to(lab, seat, "active")
        await brought_to(lab, seat, before)
        await brought_to(lab, seat, wanted)
        assert lab.state(seat) == self.features.reads_as(wanted)
        assert lab.rows(seat) == (0 if lab.state(seat) == "absent" else 1)

    async def test_a_state_that_the_lms_does_not_have_is_refused(self, lab: Lab) -> None:
        """Never replaced by a similar one: the ledger would wait for ever for what it asked for."""
        seat = lab.seat()
        seen = await brought_to(lab, seat, "active")
        before = lab.changes()
        for state in set(get_args(SeatState)) - self.features.states:
            for known in (seen, Observation("absent")):
                assert isinstance(await lab.target.write(seat, state, known), Refused)
        assert (lab.state(seat), lab.changes()) == ("active", before)

    async def test_two_roles_of_one_person_are_two_seats(self, lab: Lab) -> None:
        one, other = lab.seat(), lab.seat_in_another_role()
        for first, second in ((one, other), (other, one)):
            await brought_to(lab, first, "active")
            await brought_to(lab, second, "active")
            assert (lab.state(one), lab.state(other)) == ("active", "active")
            await brought_to(lab, first, "deleted")
            assert (lab.state(first), lab.state(second)) == (self.features.removed, "active")

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
        assert (again.observation.state, lab.state(seat)) == (self.features.removed,) * 2

    async def test_a_row_that_was_removed_by_somebody_else_is_not_success(self, lab: Lab) -> None:
        seat = lab.seat()
        seen = await brought_to(lab, seat, "active")
        assert isinstance(await lab.target.write(seat, "deleted", seen), Done)
        assert isinstance(await lab.target.write(seat, "deleted", seen), NotThere | AlreadySo)
        assert (await brought_to(lab, seat, "deleted")).state == self.features.removed

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

    async def test_a_roster_shows_everybody_as_a_read_of_their_seat_does(self, lab: Lab) -> None:
        wanted = dict(zip(("p1", "p2", "p3", "p4"), sorted(self.features.states), strict=False))
        for person, state in wanted.items():
            await brought_to(lab, lab.seat(person), "active")
            await brought_to(lab, lab.seat(person), state)
        other = await brought_to(lab, lab.seat_in_another_role(), "active")
        await brought_to(lab, lab.seat("p1", "S-2"), "active")

        roster = {(row.lms_user, row.role, row.base_role): row.observation for row in await whole_roster(lab)}

        seats = [lab.seat(person) for person in wanted]
        expected = {(seat.lms_user, seat.role, seat.base_role): await lab.target.read(seat) for seat in seats}
        expected = {key: seen for key, seen in expected.items() if seen != Observation("absent")}
        seat = lab.seat_in_another_role()
        assert roster == expected | {(seat.lms_user, seat.role, seat.base_role): other}

    async def test_the_roster_of_nobody_is_empty_and_that_of_a_missing_section_is_none(self, lab: Lab) -> None:
        seat, nowhere = lab.seat(), lab.seat_without("section")
        assert await whole_roster(lab, seat.lms_section) == []
        assert await lab.target.roster(nowhere.lms_section) == NotThere("section")

    async def test_a_roster_longer_than_a_page_is_told_to_its_end(self, lab: Lab) -> None:
        people = [f"p{number}" for number in range(230)]
        for person in people:
            lab.put(lab.seat(person))
        assert sorted(row.lms_user or "" for row in await whole_roster(lab)) == sorted(people)

    @pytest.mark.parametrize("mishap", ["lost", "done_but_lost"])
    async def test_a_lost_answer_is_unknown_and_is_not_sent_twice(self, lab: Lab, mishap: Mishap) -> None:
        seat = lab.seat()
        seen = await brought_to(lab, seat, "active")
        before, applied = lab.changes(), mishap == "done_but_lost"
        lab.befall(mishap)
        assert isinstance(await lab.target.write(seat, "deleted", seen), Unknown)
        assert lab.state(seat) == (self.features.removed if applied else "active")
        assert lab.changes() == before + applied

    async def test_a_lost_answer_to_an_add_is_unknown(self, lab: Lab) -> None:
        lab.befall("done_but_lost")
        assert isinstance(await lab.target.write(lab.seat(), "active", Observation("absent")), Unknown)
        seen = await lab.target.read(lab.seat())
        assert isinstance(seen, Observation)
        assert seen.state == "active"

    @pytest.mark.parametrize("wish", ["active", "deleted"])
    async def test_a_change_that_silently_does_nothing_is_not_success(self, lab: Lab, wish: SeatState) -> None:
        seat = lab.seat()
        seen = Observation("absent") if wish == "active" else await brought_to(lab, seat, "active")
        lab.befall("ignored")
        assert not succeeded(await lab.target.write(seat, wish, seen), wish)
        await brought_to(lab, seat, wish)
        assert lab.state(seat) == self.features.reads_as(wish)

    @pytest.mark.parametrize("mishap", ["page", "done_but_page"])
    async def test_a_page_instead_of_an_answer_confirms_nothing(self, lab: Lab, mishap: Mishap) -> None:
        lab.befall(mishap)
        assert isinstance(await lab.target.write(lab.seat(), "active", Observation("absent")), WrongShape)
        assert lab.state(lab.seat()) == ("active" if mishap == "done_but_page" else "absent")

    async def test_a_change_that_broke_in_the_lms_is_its_fault(self, lab: Lab) -> None:
        lab.befall("fails")
        assert isinstance(await lab.target.write(lab.seat(), "active", Observation("absent")), ServerFault)

    async def test_what_the_account_may_not_do_is_said_of_that_seat(self, lab: Lab) -> None:
        seat = lab.seat()
        lab.forbid_changes()
        assert await lab.target.write(seat, "active", Observation("absent")) == NoPermission(whole_token=False)
        assert await lab.target.read(seat) == Observation("absent")

    async def test_a_change_that_hangs_ends_in_its_time_as_unknown(self, lab: Lab) -> None:
        seat = lab.seat()
        lab.befall("hangs")
        async with asyncio.timeout(lab.call_timeout_seconds + 1):
            assert isinstance(await lab.target.write(seat, "active", Observation("absent")), Unknown)

    async def test_every_operation_ends_within_its_time(self, lab: Lab) -> None:
        """Of a write that hangs before its change nothing is unknown."""
        seats = lab.seat(), lab.seat("p2")
        lab.hang()
        async with asyncio.timeout(lab.call_timeout_seconds + 1):
            read, write, probe, roster = await asyncio.gather(
                lab.target.read(seats[0]),
                lab.target.write(seats[1], "active", Observation("absent")),
                lab.target.probe("user", "p1"),
                lab.target.roster("S-1"),
            )
        assert isinstance(write, Unknown | ServerFault)
        assert (type(read), type(probe), type(roster)) == (ServerFault, ServerFault, ServerFault)

    async def test_people_do_not_disturb_each_other(self, lab: Lab) -> None:
        seats = [lab.seat(person) for person in ("p1", "p2", "p3", "p4")]
        outcomes = await asyncio.gather(*(lab.target.write(seat, "active", Observation("absent")) for seat in seats))
        assert all(isinstance(outcome, Done) for outcome in outcomes)
        assert [lab.state(seat) for seat in seats] == ["active"] * 4
        assert lab.violations() == []
