"""Classes that are one section of the LMS: the first of the policy's list that takes place says what it is, whoever came."""

from __future__ import annotations

import pytest

from services.consumer.ledger import policies
from tests.integration.consumer.drive.drive_support import eventually
from tests.integration.consumer.drive.provision_support import ALL, COURSE, PERSON, Campus
from tests.policies import making

COMBINED = "PSUNV-1259-C0018"
FIRST, SECOND = "1001", "1002"
ART, MUSIC = "PSUNV-ART101", COURSE
OTHER = "9000002"
_AGED = "update lms_object set created_at = created_at - interval '1 hour', next_at = clock_timestamp()"


@pytest.fixture
def campus(campus: Campus) -> Campus:
    """Two courses, of which the classes 1001 and 1002 are one section of the LMS, and two people."""
    combine(campus)
    campus.term()
    campus.course(course="ART101", subject="ART", catalog_number="101")
    campus.course()
    campus.person()
    campus.person(OTHER, "Robert Schumann")
    return campus


def combine(campus: Campus, **rules: str) -> None:
    """In this order: 1001, 1002."""
    ids = '\nsis_ids:\n  combined: "{institution}-{term}-C{combined}"\n'
    text = making(*ALL, **rules).replace("\nsis_ids:\n", ids, 1)
    text += f'\ncombined:\n  - {{institution: PSUNV, term: "1259", combined: "0018", sections: ["{FIRST}", "{SECOND}"]}}\n'
    policies.ensure(campus.ledger.connection, "main", text)
    policies.store(campus.ledger.connection, "main", text, "registrar")


def first(campus: Campus, status: str = "active") -> None:
    campus.section(FIRST, course="ART101", status=status)


def second(campus: Campus, status: str = "active") -> None:
    campus.section(SECOND, status=status)


def is_in(campus: Campus, course: str, name: str) -> bool:
    row = campus.row("sections", COMBINED)
    return (row["course"], row["name"]) == (campus.row("courses", course)["id"], name)


@pytest.mark.parametrize("order", [(FIRST, SECOND), (SECOND, FIRST)], ids=["first wanted first", "second wanted first"])
async def test_the_first_of_the_list_says_where_it_lies_whichever_was_wanted_first(
    campus: Campus, order: tuple[str, str]
) -> None:
    first(campus)
    second(campus)
    campus.enroll(PERSON, order[0])
    async with campus.driving():
        await campus.settled()
        campus.enroll(OTHER, order[1])
        await campus.settled()
    assert is_in(campus, ART, "ART 101 1001")
    assert campus.roster(COMBINED) == {PERSON: "active", OTHER: "active"}
    assert len(campus.control.dump("courses")) == 1


async def test_who_comes_first_in_the_list_is_waited_for_a_while(campus: Campus) -> None:
    second(campus)
    campus.enroll(PERSON, SECOND)
    async with campus.driving():
        await campus.state(COMBINED, "waiting", "untold:section")
        lacks = campus.ledger.one("select lacks_key from lms_object where object = %s", COMBINED)
        assert lacks == f"PSUNV/1259/{FIRST}", "the publisher is asked for it"
        first(campus)
        await campus.settled()
    assert is_in(campus, ART, "ART 101 1001")


async def test_a_class_that_the_student_system_does_not_know_keeps_nobody_waiting_for_ever(campus: Campus) -> None:
    second(campus)
    campus.enroll(PERSON, SECOND)
    async with campus.driving():
        await campus.state(COMBINED, "waiting", "untold:section")
        campus.ledger.connection.execute(_AGED)
        await campus.settled()
    assert is_in(campus, MUSIC, "MUS 201 1002")


async def test_a_class_that_is_cancelled_lets_the_next_one_say_it(campus: Campus) -> None:
    first(campus, status="cancelled")
    second(campus)
    campus.enroll(PERSON, FIRST)
    campus.enroll(OTHER, SECOND)
    async with campus.driving():
        await eventually(lambda: campus.roster(COMBINED).get(OTHER) == "active")
    assert is_in(campus, MUSIC, "MUS 201 1002")


async def test_a_section_that_is_there_is_called_after_the_next_one_when_the_first_is_cancelled(campus: Campus) -> None:
    """It stays in its course: that people see to, on purpose."""
    first(campus)
    second(campus)
    campus.enroll(PERSON, SECOND)
    async with campus.driving():
        await campus.settled()
        first(campus, status="cancelled")
        await eventually(lambda: is_in(campus, ART, "MUS 201 1002"))
        first(campus)
        await eventually(lambda: is_in(campus, ART, "ART 101 1001"))


async def test_a_class_that_is_cancelled_while_its_course_is_waited_for_keeps_nobody_waiting(campus: Campus) -> None:
    combine(campus, sections="{name: '{section}'}")
    campus.section(FIRST, course="DAN301")
    campus.section(SECOND, course="DAN301")
    campus.enroll(PERSON, FIRST)
    campus.enroll(OTHER, SECOND)
    async with campus.driving():
        await campus.state("PSUNV-DAN301", "waiting", "untold:course")
        await campus.state(COMBINED, "waiting", "no_course")
        campus.section(FIRST, course="DAN301", status="cancelled")
        campus.course(course="DAN301", subject="DAN", catalog_number="301")
        await eventually(lambda: campus.roster(COMBINED).get(OTHER) == "active")
    assert is_in(campus, "PSUNV-DAN301", "1002")
