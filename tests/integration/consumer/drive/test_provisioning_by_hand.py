"""What an administrator deletes or takes the SIS id off in Canvas, and what becomes of those who want it again."""

from __future__ import annotations

from typing import Any

import pytest

from tests.integration.consumer.drive.drive_support import eventually
from tests.integration.consumer.drive.provision_support import COURSE, PERSON, SECTION, Campus

OTHER = "9000002"


@pytest.fixture
def campus(campus: Campus) -> Campus:
    """With a person, and another one who comes later."""
    campus.school()
    campus.person(OTHER, "Robert Schumann")
    campus.enroll()
    return campus


async def take_id_off(campus: Campus, kind: str, sis_id: str, form: str) -> dict[str, Any]:
    """The object stays, and is nobody's of the student system; returns it."""
    row = campus.row(kind, sis_id)
    await campus.by_hand(f"{kind}/{row['id']}", {form: ""})
    return row


async def test_a_course_that_lost_its_id_is_made_again_for_a_class_that_takes_place(campus: Campus) -> None:
    async with campus.driving():
        await campus.settled()
        campus.section(status="cancelled")
        await campus.settled()
        before = await take_id_off(campus, "courses", COURSE, "course[sis_course_id]")
        campus.section("1002")
        campus.enroll(OTHER, "1002")
        await eventually(lambda: campus.control.roster("PSUNV-1259-1002") != [])
    assert campus.row("courses", COURSE)["id"] != before["id"]
    assert campus.row("sections", "PSUNV-1259-1002")["course"] == campus.row("courses", COURSE)["id"]


async def test_a_section_that_was_deleted_is_refused_and_whoever_comes_waits(campus: Campus) -> None:
    """Somebody may have meant it; Canvas keeps the id."""
    async with campus.driving():
        await campus.settled()
        campus.enroll(status="dropped")
        await campus.settled()
        await campus.delete_by_hand(f"sections/sis_section_id:{SECTION}")
        campus.enroll(OTHER)
        await campus.state(SECTION, "refused", "refused:sis_id_taken")
        assert campus.ledger.one("select state from work where person = %s", OTHER) == "waiting"


async def test_a_person_whose_account_lost_its_id_gets_one_again(campus: Campus) -> None:
    async with campus.driving():
        await campus.settled()
        login = campus.row("logins", PERSON)
        await campus.by_hand(f"accounts/self/logins/{login['id']}", {"login[sis_user_id]": "", "login[unique_id]": "gone"})
        campus.section("1002")
        campus.enroll(PERSON, "1002")
        await eventually(lambda: campus.control.roster("PSUNV-1259-1002") != [])
    assert campus.row("logins", PERSON)["user"] != login["user"]
