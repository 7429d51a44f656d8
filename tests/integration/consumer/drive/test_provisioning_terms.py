"""Courses: for which classes and terms one is, is what its id says."""

from __future__ import annotations

from services.consumer.ledger import policies, writing
from tests.integration.consumer.drive.drive_support import TARGET, eventually
from tests.integration.consumer.drive.provision_support import ALL, COURSE, PERSON, Campus
from tests.policies import making

SPRING = "1261"


def in_spring(campus: Campus) -> None:
    """The course is taught again, and the same person is in it."""
    campus.term(term=SPRING)
    campus.section(term=SPRING)
    campus.enroll(PERSON, term=SPRING)


def term_of(campus: Campus, course: str) -> str:
    """SIS id."""
    terms = {row["id"]: str(row["sis_term_id"]) for row in campus.control.dump("terms")}
    return terms[campus.row("courses", course)["term"]]


async def test_an_id_with_the_term_in_it_is_one_course_for_each_term(campus: Campus) -> None:
    text = making(*ALL, courses="{name: '{subject} {catalog_number} ({term})'}")
    text = text.replace('"{institution}-{course}"', '"{institution}-{term}-{course}"', 1)
    policies.store(campus.ledger.connection, "main", text, "registrar")
    campus.school()
    campus.enroll()
    async with campus.driving():
        in_spring(campus)
        await campus.settled()
    assert [term_of(campus, f"PSUNV-{term}-MUS201") for term in ("1259", SPRING)] == ["PSUNV-1259", "PSUNV-1261"]
    assert campus.row("courses", f"PSUNV-{SPRING}-MUS201")["name"] == f"MUS 201 ({SPRING})"


async def test_an_id_without_it_is_one_course_that_stays_in_the_term_it_was_made_for(campus: Campus) -> None:
    campus.school()
    campus.enroll()
    async with campus.driving():
        await campus.settled()
        in_spring(campus)
        await campus.settled()
        campus.course(catalog_number="202")
        await eventually(lambda: campus.row("courses", COURSE)["name"] == "MUS 202")
    assert len(campus.control.dump("courses")) == 1
    assert term_of(campus, COURSE) == "PSUNV-1259"


async def test_a_course_that_a_term_in_shadow_wanted_is_made_for_the_one_that_is_live(campus: Campus) -> None:
    campus.policy(*ALL, sections="{name: '{section}'}")
    campus.term()
    campus.section()
    campus.person()
    campus.enroll()
    async with campus.driving():
        await campus.state(COURSE, "waiting", "untold:course")
        writing.shadow(campus.ledger.connection, TARGET, "PSUNV/1259", "not yet", "somebody")
        campus.course()
        in_spring(campus)
        await eventually(lambda: campus.roster(f"PSUNV-{SPRING}-1001") == {PERSON: "active"})
    assert term_of(campus, COURSE) == f"PSUNV-{SPRING}"


async def test_a_course_of_one_class_is_called_after_the_course_that_the_student_system_names_later(campus: Campus) -> None:
    text = making(*ALL).replace('"{institution}-{course}"', '"{institution}-{term}-{section}-c"', 1)
    policies.store(campus.ledger.connection, "main", text, "registrar")
    shell = "PSUNV-1259-1001-c"
    campus.school()
    campus.section(course=None)
    campus.enroll()
    async with campus.driving():
        await campus.settled()
        assert campus.row("courses", shell)["name"] == shell
        campus.section()
        await eventually(lambda: campus.row("courses", shell)["name"] == "MUS 201")
        campus.course(catalog_number="202")
        await eventually(lambda: campus.row("courses", shell)["name"] == "MUS 202")
