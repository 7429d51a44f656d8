"""What once stood in the way of an object must not keep it, and those who wait for it, waiting when it is gone."""

from __future__ import annotations

from typing import Any

import pytest

from services.consumer.drive.settings import send_window_seconds
from services.consumer.ledger import writing
from tests.integration.consumer.drive.drive_support import TARGET, eventually
from tests.integration.consumer.drive.provision_support import ALL, COURSE, PERSON, SECTION, TIMING, Campus

OTHER = "9000002"


@pytest.mark.parametrize("said", [{"merged_into": OTHER}, {}], ids=["merged", "removed"])
async def test_the_first_that_is_heard_of_somebody_may_be_that_they_are_gone(campus: Campus, said: dict[str, str]) -> None:
    """Until then their account waits for that very event."""
    campus.enroll()
    async with campus.driving():
        await campus.state(PERSON, "waiting", "untold:person")
    campus.person(name=None, status="removed", **said)
    told = campus.ledger.one("select suspends, moves_to from lms_object where object = %s", PERSON)
    assert told == (not said, said.get("merged_into"))


async def test_what_was_off_for_a_while_is_made_when_it_is_on_again(campus: Campus) -> None:
    campus.term()
    campus.course()
    campus.person()
    campus.enroll()
    async with campus.driving():
        await campus.state(SECTION, "waiting", "untold:section")
        campus.policy("terms", "courses", "people")
        campus.section()
        await campus.state(SECTION, "waiting", "off")
        campus.policy(*ALL)
        await campus.settled()
    assert campus.roster() == {PERSON: "active"}


async def test_what_changed_while_it_was_off_is_followed_when_it_is_on_again(campus: Campus) -> None:
    campus.school()
    campus.enroll()
    async with campus.driving():
        await campus.settled()
        campus.policy("terms", "sections", "people")
        campus.course(catalog_number="202")
        await campus.state(COURSE, "settled", "off")
        campus.policy(*ALL)
        await eventually(lambda: campus.row("courses", COURSE)["name"] == "MUS 202")


async def test_people_who_are_in_shadow_alone_hold_up_no_suspension(campus: Campus) -> None:
    campus.policy(*ALL, people="{when_removed: suspend, most_suspended: 1}")
    campus.school()
    ghosts = [f"90000{number:02}" for number in range(10, 14)]
    for person in ghosts:
        campus.person(person, f"Student {person}")
    of = {"institution": "PSUNV", "term": "1253", "section": "1", "role_family": "learner", "role": "student"}
    campus.tell_all(*({"kind": "enrollment", "status": "enrolled", "person": person, **of} for person in ghosts))
    writing.shadow(campus.ledger.connection, TARGET, "PSUNV/1253", "last term", "somebody")
    campus.enroll()
    async with campus.driving():
        await eventually(lambda: campus.control.roster(SECTION) != [])
        campus.tell_all(*({"kind": "person", "person": person, "status": "removed"} for person in [*ghosts, PERSON]))
        await eventually(lambda: campus.row("logins", PERSON)["state"] == "suspended")


async def test_a_class_that_is_cancelled_does_not_keep_the_others_of_its_course_waiting(campus: Campus) -> None:
    campus.policy(*ALL, sections="{name: '{section}'}")
    campus.term()
    campus.section("1001")
    campus.section("1002")
    campus.person()
    campus.person(OTHER, "Robert Schumann")
    campus.enroll(PERSON, "1001")
    async with campus.driving():
        await campus.state(COURSE, "waiting", "untold:course")
        campus.enroll(OTHER, "1002")
        await campus.state("PSUNV-1259-1002", "waiting", "no_course")
        campus.section("1001", status="cancelled")
        campus.course()
        await eventually(lambda: campus.control.roster("PSUNV-1259-1002") != [])
    assert campus.roster("PSUNV-1259-1002") == {OTHER: "active"}


@pytest.mark.parametrize("said", [{"status": "cancelled"}, {"status": "removed", "course": None}, {"course": "ART101"}])
async def test_a_course_follows_its_own_events_whatever_becomes_of_the_class_it_was_wanted_for(
    campus: Campus, said: dict[str, Any]
) -> None:
    campus.school()
    campus.enroll()
    async with campus.driving():
        await campus.settled()
        campus.course(course="ART101", subject="ART", catalog_number="101")
        campus.section(**said)
        campus.course(catalog_number="202")
        await eventually(lambda: campus.row("courses", COURSE)["name"] == "MUS 202")


async def test_a_call_that_lands_late_before_the_next_one_is_no_refusal(campus: Campus) -> None:
    """The next one looked for the object before it landed, and is told that the id is taken."""
    given_up = (send_window_seconds(TIMING) + TIMING.call_timeout_seconds) * 1000
    campus.control.objects(courses=[{"sis_course_id": COURSE, "name": "By the other feed"}])
    campus.school()
    campus.enroll()
    campus.control.fault("latency", endpoints=["sections.create"], count=1, ms=given_up + 400)
    async with campus.driving():
        await eventually(lambda: campus.ledger.one("select call from lms_object where object = %s", SECTION) == "make")
        campus.control.fault("latency", endpoints=["sections.create"], count=1, ms=800)
        await campus.settled()
    assert campus.ledger.one("select origin from lms_object where object = %s", SECTION) == "ours"


async def test_what_another_feed_makes_in_the_same_second_is_no_refusal(campus: Campus) -> None:
    """It was not there when we looked, and the id is taken when we make it."""
    campus.school()
    campus.enroll()
    campus.control.fault("latency", endpoints=["sections.create"], count=1, ms=600)
    async with campus.driving():
        await eventually(lambda: campus.ledger.one("select call from lms_object where object = %s", SECTION) == "make")
        campus.control.sections(SECTION, course=COURSE)
        await campus.settled()
    assert campus.roster() == {PERSON: "active"}
    assert campus.ledger.one("select origin from lms_object where object = %s", SECTION) == "found"
