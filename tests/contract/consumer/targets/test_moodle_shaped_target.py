"""The target contract over an LMS that is shaped like Moodle, and what is of that shape alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.consumer.nouns import SeatState
from services.consumer.targets.port import (
    AlreadySo,
    Done,
    IdentityMismatch,
    NoPermission,
    NotThere,
    Observation,
    Refused,
    ServerFault,
    WrongShape,
)
from tests.contract.consumer.targets.moodle_shaped.app import PAGE, Response, said
from tests.contract.consumer.targets.moodle_shaped.client import Operation, Said
from tests.contract.consumer.targets.moodle_shaped.lab import MoodleShapedLab, moodle_shaped_lab
from tests.contract.consumer.targets.moodle_shaped.lms import ROLES, SUSPENDED, Complaint
from tests.contract.consumer.targets.target_contract import TargetContract, brought_to

ABSENT = Observation("absent")


@pytest.fixture
async def lab() -> AsyncIterator[MoodleShapedLab]:
    async with moodle_shaped_lab() as lab:
        yield lab


class TestMoodleShaped(TargetContract):
    """The promises of every target."""

    features = MoodleShapedLab.features


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (said(Complaint("invalidtoken").body), NoPermission(whole_token=True)),
        (said(Complaint("accessexception").body), NoPermission(whole_token=True)),
        (said(Complaint("requireloginerror").body), NoPermission(whole_token=False)),
        (said(Complaint("sitemaintenance").body), ServerFault("sitemaintenance")),
        (said(Complaint("of some plugin, about Ana Uno").body), ServerFault("other_exception")),
        (said({"exception": "Error", "message": "Call to a member function"}), ServerFault("other_exception")),
        (PAGE, WrongShape("not_json")),
        (Response(b""), WrongShape("not_json")),
        (PAGE._replace(status=503), ServerFault("http_503")),
    ],
)
async def test_a_status_of_200_is_no_success(lab: MoodleShapedLab, answer: Response, expected: object) -> None:
    """And the code of a failure is one of ours, never the LMS's text."""
    seat = lab.seat()
    lab.app.instead = answer
    assert await lab.target.read(seat) == expected
    assert await lab.target.write(seat, "active", ABSENT) == expected
    assert await lab.target.probe("section", seat.lms_section) == expected


async def test_a_change_without_effect_is_a_fault_of_the_lms(lab: MoodleShapedLab) -> None:
    lab.befall("ignored")
    assert await lab.target.write(lab.seat(), "active", ABSENT) == ServerFault("no_effect")


@pytest.mark.parametrize("wanted", ["deleted", "inactive"])
async def test_whom_another_method_enrolled_is_never_taken_for_removed(lab: MoodleShapedLab, wanted: SeatState) -> None:
    """The LMS answers as always, because to it nothing is wrong."""
    seat = lab.seat()
    lab.lms.enrol(lab.place(seat), "student", method="self")
    seen = await lab.target.read(seat)
    assert isinstance(seen, Observation)
    assert await lab.target.write(seat, wanted, seen) == ServerFault("no_effect")
    assert lab.state(seat) == "active"


async def test_a_change_that_cannot_be_read_back_is_not_confirmed(lab: MoodleShapedLab) -> None:
    def goes_down() -> None:
        lab.app.instead = said(Complaint("dbconnectionfailed").body)

    lab.app.after_change = goes_down
    assert await lab.target.write(lab.seat(), "active", ABSENT) == ServerFault("unverified")
    assert lab.state(lab.seat()) == "active"


async def test_what_somebody_else_did_meanwhile_is_not_covered_up(lab: MoodleShapedLab) -> None:
    """The read decides, not that the change was ours."""
    seat = lab.seat()
    lab.app.after_change = lambda: lab.lms.enrol(lab.place(seat), "student", status=SUSPENDED)
    assert await lab.target.write(seat, "active", ABSENT) == ServerFault("no_effect")


async def test_not_seeing_anybody_is_not_taken_for_nobody_being_there(lab: MoodleShapedLab) -> None:
    """Lookups of what the account may not see are answered with an empty list."""
    seat = lab.seat()
    lab.lms.may_see_people = False
    assert await lab.target.read(seat) == NoPermission(whole_token=True)
    assert await lab.target.write(seat, "deleted", Observation("active")) == NoPermission(whole_token=True)
    assert await lab.target.probe("user", seat.lms_user) == NoPermission(whole_token=True)


async def test_not_seeing_any_course_is_not_taken_for_none_being_there(lab: MoodleShapedLab) -> None:
    seat = lab.seat_without("section")
    lab.lms.courses.clear()
    assert await lab.target.read(seat) == NoPermission(whole_token=True)


async def test_two_accounts_with_one_idnumber_are_not_guessed_at(lab: MoodleShapedLab) -> None:
    seat = lab.seat()
    lab.lms.add_user(seat.lms_user)
    assert await lab.target.read(seat) == IdentityMismatch("user")
    assert await lab.target.write(seat, "active", ABSENT) == IdentityMismatch("user")
    assert lab.changes() == 0


async def test_a_role_that_is_there_already_costs_no_change(lab: MoodleShapedLab) -> None:
    seat = lab.seat()
    lab.lms.enrol(lab.place(seat), "student")
    assert isinstance(await lab.target.write(seat, "active", ABSENT), AlreadySo)
    assert lab.changes() == 0


async def test_the_status_that_another_role_shares_is_left_alone(lab: MoodleShapedLab) -> None:
    student, teacher = lab.seat(), lab.seat_in_another_role()
    await brought_to(lab, student, "active")
    seen = await brought_to(lab, teacher, "active")
    assert await lab.target.write(teacher, "inactive", seen) == Refused("shared_status")
    await brought_to(lab, teacher, "deleted")
    await brought_to(lab, student, "inactive")
    assert await lab.target.write(teacher, "active", ABSENT) == Refused("shared_status")
    assert (lab.state(student), lab.state(teacher)) == ("inactive", "absent")


async def test_an_unknown_role_is_refused_without_a_call(lab: MoodleShapedLab) -> None:
    outcome = await lab.target.write(lab.seat(role="ghost"), "active", ABSENT)
    assert outcome == Refused("unknown_role")
    assert outcome.usage.calls == 0


async def test_a_course_that_takes_nobody_from_us_is_refused(lab: MoodleShapedLab) -> None:
    seat = lab.seat()
    lab.lms.without_manual_method.add(lab.place(seat).course)
    assert await lab.target.write(seat, "active", ABSENT) == Refused("no_manual_method")


async def test_a_course_that_was_made_anew_is_found_by_its_idnumber(lab: MoodleShapedLab) -> None:
    """What the ledger knows of the old one names a course that is gone."""
    seat = lab.seat()
    seen = await brought_to(lab, seat, "active")
    del lab.lms.courses[lab.place(seat).course]
    lab.seat()
    outcome = await lab.target.write(seat, "inactive", seen)
    assert isinstance(outcome, Done)
    assert outcome.observation.lms_course == str(lab.place(seat).course) != seen.lms_course


@pytest.mark.parametrize("unknown", ["userid", "courseid"])
async def test_an_id_that_is_gone_when_the_change_arrives_is_looked_up_again(lab: MoodleShapedLab, unknown: str) -> None:
    """The LMS has a code of its own for either, in each function another one, and none says which object it means."""
    place = lab.place(lab.seat())
    ids = {"userid": place.user, "courseid": place.course} | {unknown: 999}
    rows = {f"enrolments[0][{name}]": value for name, value in ids.items()}
    operation = Operation(5)
    enrolled = await lab.client.change("enrol_manual_enrol_users", rows | {"enrolments[0][roleid]": ROLES["student"]}, operation)
    removed = await lab.client.change("enrol_manual_unenrol_users", rows, operation)
    assert [enrolled, removed] == [NotThere("elsewhere")] * 2
    assert lab.changes() == 0


async def test_the_roster_does_not_tell_who_is_suspended(lab: MoodleShapedLab) -> None:
    """So a read takes a second call, and a target that trusted the first would see access where there is none."""
    seat = lab.seat()
    await brought_to(lab, seat, "inactive")
    roster = await lab.client.read(
        "core_enrol_get_enrolled_users",
        {"courseid": lab.place(seat).course, "options[0][name]": "userfields", "options[0][value]": "id"},
        Operation(5),
    )
    assert roster == Said([{"id": lab.place(seat).user}])
    seen = await lab.target.read(seat)
    assert isinstance(seen, Observation)
    assert seen.state == "inactive"


async def test_two_changes_of_one_person_at_once_are_noted(lab: MoodleShapedLab) -> None:
    """The target does not order them; that is the driver's promise, and here is what would give it away."""
    lab.app.seconds_per_change = 0.2
    await asyncio.gather(*(lab.target.write(lab.seat("p1", section), "active", ABSENT) for section in ("S-1", "S-2")))
    assert len(lab.violations()) == 1
    await asyncio.gather(*(lab.target.write(lab.seat(person), "active", ABSENT) for person in ("p2", "p3")))
    assert len(lab.violations()) == 1


async def test_calls_are_counted_and_nothing_is_known_of_costs(lab: MoodleShapedLab) -> None:
    usage = (await lab.target.write(lab.seat(), "active", ABSENT)).usage
    # Two lookups, two to see the person's entry, the change, two to read it back.
    assert (usage.calls, usage.cost, usage.remaining) == (7, None, None)
