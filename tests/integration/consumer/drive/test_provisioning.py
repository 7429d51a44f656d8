"""Events, ledger, driver and Canvas together: what the LMS lacks is made, and kept as the student system has it."""

from __future__ import annotations

from collections import Counter

import pytest

from services.consumer.ledger import writing
from services.consumer.provision import queue, taking_up
from services.consumer.provision.steps import Verdict
from tests.integration.consumer.drive.drive_support import TARGET, eventually
from tests.integration.consumer.drive.provision_support import ALL, COURSE, PERSON, SECTION, TERM, Campus


async def test_a_seat_goes_through_an_empty_canvas(campus: Campus) -> None:
    campus.school()
    campus.enroll()
    async with campus.driving():
        await campus.settled()

    assert campus.roster() == {PERSON: "active"}
    section, course = campus.row("sections", SECTION), campus.row("courses", COURSE)
    assert (section["name"], section["course"]) == ("MUS 201 1001", course["id"])
    assert (course["name"], course["course_code"], course["state"]) == ("MUS 201", "MUS 201", "created")
    assert course["term"] == campus.row("terms", TERM)["id"]
    assert campus.user()["name"] == "Clara Wieck"
    assert campus.control.violations() == []
    assert campus.control.mails() == []


async def test_many_sections_of_one_course_are_made_in_it_and_each_object_once(campus: Campus) -> None:
    campus.school()
    sections, people = [f"10{number:02}" for number in range(1, 13)], [f"90000{number:02}" for number in range(1, 7)]
    for person in people:
        campus.person(person)
    for section in sections:
        campus.section(section)
    for number, section in enumerate(sections):
        for person in people[number % 3 :]:
            campus.enroll(person, section)
    async with campus.driving():
        await campus.settled(40)

    calls = campus.calls()
    assert (calls["terms.create"], calls["courses.create"]) == (1, calls["courses.create"])
    assert len(campus.control.dump("courses")) == 1
    assert len(campus.control.dump("sections")) == len(sections)
    assert {row["course"] for row in campus.control.dump("sections")} == {campus.row("courses", COURSE)["id"]}
    assert calls["users.create"] == len(people)


@pytest.mark.parametrize("off", ALL)
async def test_what_is_off_is_not_made_and_is_waited_for(campus: Campus, off: str) -> None:
    campus.policy(*(kind for kind in ALL if kind != off))
    campus.school()
    campus.enroll()
    endpoint = {"people": "users"}.get(off, off) + ".create"
    waiting = {"terms": (COURSE, "no_term"), "courses": (SECTION, "no_course")}
    async with campus.driving():
        if off in waiting:
            await campus.state(waiting[off][0], "waiting", waiting[off][1])
        await eventually(lambda: campus.ledger.one("select count(*) from work where state = 'waiting'") == 1)
        await eventually(lambda: campus.ledger.one("select max(probes) from dependency") >= 2)
        assert campus.calls()[endpoint] == 0
        campus.policy(*ALL)
        await campus.settled()
    assert campus.roster() == {PERSON: "active"}


async def test_without_that_part_of_the_target_everything_waits_as_before(campus: Campus) -> None:
    campus.school()
    campus.enroll()
    async with campus.driving(objects=False):
        await eventually(lambda: campus.ledger.one("select count(*) from work where state = 'waiting'") == 1)
    assert campus.ledger.one("select count(*) from lms_object") == 0


async def test_nothing_is_made_for_a_term_in_shadow(campus: Campus) -> None:
    """Also not what was asked for before it was put there."""
    campus.school()
    campus.enroll()
    async with campus.driving():
        await campus.settled()
        campus.section("1002")
        campus.person("9000002", "Robert Schumann")
        writing.shadow(campus.ledger.connection, TARGET, "", "a trial", "somebody")
        campus.enroll("9000002", "1002")
        campus.ledger.connection.execute(
            "update work set state = 'waiting', waits_kind = 'section', waits_object = 'PSUNV-1259-1002'"
        )
        campus.ledger.connection.execute(
            "insert into dependency (target, kind, object, state, next_probe_at)"
            " values (%s, 'section', 'PSUNV-1259-1002', 'missing', clock_timestamp())",
            [TARGET],
        )
        campus.control.forget_calls()
        campus.person(name="Clara Schumann")
        await eventually(lambda: campus.ledger.one("select count(*) from lms_object where object = 'PSUNV-1259-1002'") == 1)
        await eventually(lambda: campus.ledger.one("select max(probes) from dependency") >= 2)
        assert [name for name in campus.calls() if name.endswith((".create", ".update"))] == []
        writing.go_live(campus.ledger.connection, TARGET, "", "ready", "somebody", compared=None)
        await campus.settled()
    assert campus.roster("PSUNV-1259-1002") == {"9000002": "active"}
    assert campus.user()["name"] == "Clara Schumann"


async def test_what_nobody_waits_for_any_more_is_not_made(campus: Campus) -> None:
    campus.term()
    campus.course()
    campus.person()
    campus.enroll()
    async with campus.driving():
        await campus.state(SECTION, "waiting", "untold:section")
        campus.enroll(status="dropped")
        await eventually(lambda: campus.ledger.one("select count(*) from dependency where kind = 'section'") == 0)
        campus.section()
        await eventually(lambda: campus.ledger.one("select count(*) from lms_object where object = %s", SECTION) == 0)
        await campus.settled()
    assert campus.calls()["sections.create"] == 0


async def test_who_waits_goes_on_as_soon_as_it_is_made(campus: Campus) -> None:
    """No schedule of anybody is needed for it."""
    campus.policy(*ALL, sections="{name: '{section}'}")
    campus.term()
    campus.section()
    campus.person()
    campus.enroll()
    async with campus.driving():
        await campus.state(COURSE, "waiting", "untold:course")
        await campus.state(SECTION, "waiting", "no_course")
        for later in (
            "update lms_object set next_at = clock_timestamp() + interval '1 hour'",
            "update dependency set next_probe_at = clock_timestamp() + interval '1 hour'",
            "update work set next_at = clock_timestamp() + interval '1 hour' where state = 'waiting'",
        ):
            campus.ledger.connection.execute(later)
        campus.course()
        await campus.settled(8)
    assert campus.roster() == {PERSON: "active"}


async def test_what_is_heard_during_an_attempt_is_looked_at_afterwards(campus: Campus) -> None:
    campus.school()
    campus.enroll()
    async with campus.driving():
        await campus.settled()
    connection = campus.ledger.connection
    campus.course(catalog_number="202")
    (row,) = (one for one in queue.due(connection, TARGET, 10, 1.0, awaited=False).rows if one.subject.object == COURSE)
    campus.course(catalog_number="203")
    lease = campus.ledger.lease()
    assert not queue.begin(connection, lease, row, "change", 1.0), "a call for what was wanted before"
    assert queue.record(connection, lease, row, Verdict("settled", exists=True), 1.0)
    assert campus.ledger.one("select state, next_at <= clock_timestamp() from lms_object where object = %s", COURSE) == (
        "pending",
        True,
    )


async def test_who_misses_an_object_during_an_attempt_is_whom_it_is_made_for(campus: Campus) -> None:
    """Not the class that the attempt was for."""
    campus.school()
    campus.enroll()
    async with campus.driving():
        await campus.settled()
    connection = campus.ledger.connection
    campus.course(catalog_number="202")
    (row,) = (one for one in queue.due(connection, TARGET, 10, 1.0, awaited=False).rows if one.subject.object == COURSE)
    taking_up.add(connection, TARGET, [row.subject._replace(section="PSUNV/1261/2002")])
    assert queue.record(connection, campus.ledger.lease(), row, Verdict("settled", exists=True), 1.0)
    found = campus.ledger.one("select section, state, awaited from lms_object where object = %s", COURSE)
    assert found == ("PSUNV/1261/2002", "pending", True)


async def test_a_cancelled_class_is_not_made(campus: Campus) -> None:
    campus.school()
    campus.section(status="cancelled")
    campus.enroll()
    async with campus.driving():
        await campus.settled()
    assert campus.calls()["sections.create"] == 0


async def test_what_another_feed_makes_meanwhile_is_found(campus: Campus) -> None:
    """And nothing of it is changed."""
    campus.control.objects(courses=[{"sis_course_id": COURSE, "name": "By the other feed"}])
    campus.control.objects(sections=[{"sis_section_id": SECTION, "course": COURSE, "name": "By the other feed"}])
    campus.school()
    campus.enroll()
    async with campus.driving():
        await campus.settled()
        campus.course(catalog_number="202")
        await campus.settled()
    assert campus.roster() == {PERSON: "active"}
    assert campus.row("sections", SECTION)["name"] == "By the other feed"
    assert campus.row("courses", COURSE)["name"] == "By the other feed"


async def test_what_the_student_system_has_not_told_is_waited_for_and_the_publisher_is_to_be_asked(campus: Campus) -> None:
    campus.term()
    campus.course()
    campus.person()
    campus.enroll()
    async with campus.driving():
        await campus.state(SECTION, "waiting", "untold:section")
        lacks = campus.ledger.one("select lacks_kind, lacks_key, ask_at is not null from lms_object where object = %s", SECTION)
        assert lacks == ("section", "PSUNV/1259/1001", True)
        campus.section()
        await campus.settled()
    assert campus.roster() == {PERSON: "active"}


@pytest.mark.parametrize(
    ("kind", "limits"),
    [
        ("reset", {"apply": True}),
        ("reset", {"apply": False}),
        ("hang", {}),
        ("html", {"apply": True}),
        ("status", {"status": 503}),
        ("status", {"status": 502, "apply": True}),
        ("truncated", {}),
        ("throttled", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_whatever_befalls_the_calls_each_object_is_made_once(campus: Campus, kind: str, limits: dict[str, object]) -> None:
    campus.school()
    campus.enroll()
    campus.control.fault(kind, methods=["POST"], count=4, **limits)
    async with campus.driving():
        await campus.settled(60)
    assert campus.roster() == {PERSON: "active"}
    assert Counter(row["name"] for row in campus.control.dump("sections")) == {"MUS 201 1001": 1}
    assert len(campus.control.dump("courses")) == 1
    assert campus.ledger.one("select count(*) from lms_object where origin = 'ours'") == 4


async def test_a_refusal_stands_with_its_reason_and_the_others_go_on(campus: Campus) -> None:
    campus.control.objects(users=[{"sis_user_id": "9", "login": PERSON}])
    campus.school()
    campus.person("9000002", "Robert Schumann")
    campus.enroll()
    campus.enroll("9000002")
    async with campus.driving():
        await campus.state(PERSON, "refused", "refused:login_taken")
        await eventually(lambda: campus.roster() == {"9000002": "active"})
    told = campus.ledger.one("select detail ->> 'reason' from history where what = 'object' and person = %s", PERSON)
    assert told == "refused:login_taken"


async def test_no_name_stands_in_what_the_ledger_says_of_objects(campus: Campus) -> None:
    campus.school()
    campus.enroll()
    async with campus.driving():
        await campus.settled()
        campus.person(name="Clara Schumann")
        await campus.settled()
    rows = "select lms_object::text from lms_object union all select history::text from history"
    assert campus.ledger.one(f"select count(*) from ({rows}) as row (said) where said ~ 'Clara|Wieck|Schumann'") == 0  # noqa: S608


async def test_what_a_dead_driver_was_about_to_make_is_waited_out_and_looked_for(campus: Campus) -> None:
    """Its call may land until its time is over; what is found then was ours, and is looked at once more when nothing can land."""
    campus.policy("people", "sections")
    campus.control.objects(courses=[{"sis_course_id": COURSE}])
    campus.school()
    campus.enroll()
    async with campus.driving():
        await campus.settled()
    campus.ledger.connection.execute(
        """update lms_object
              set state = 'pending', next_at = clock_timestamp(), origin = null, lms_id = null, confirmed = '{}',
                  call = 'make', call_until = clock_timestamp() + interval '2 seconds' where object = %s""",
        [SECTION],
    )
    campus.control.forget_calls()
    async with campus.driving():
        await eventually(lambda: campus.ledger.one("select call from lms_object where object = %s", SECTION) is None)
        assert campus.ledger.one("select suspect_until > clock_timestamp() from lms_object where object = %s", SECTION)
        await campus.state(SECTION, "suspect")
        await campus.settled()
    found = campus.ledger.one("select origin, confirmed ? 'name', suspect_until from lms_object where object = %s", SECTION)
    assert found == ("ours", True, None)
    assert campus.calls()["sections.create"] == 0


async def test_what_is_renamed_in_the_student_system_is_renamed_unless_somebody_did_it_here(campus: Campus) -> None:
    campus.school()
    campus.enroll()
    async with campus.driving():
        await campus.settled()
        campus.course(catalog_number="202")
        campus.term(end_date="2026-12-18")
        await campus.settled()
        await eventually(lambda: campus.row("courses", COURSE)["name"] == "MUS 202")
        await campus.by_hand(f"courses/sis_course_id:{COURSE}", {"course[name]": "Baroque Music"})
        campus.course(catalog_number="203")
        await campus.settled()
        await eventually(lambda: campus.row("courses", COURSE)["course_code"] == "MUS 203")
    assert campus.row("courses", COURSE)["name"] == "Baroque Music"
    assert campus.ledger.one("select kept from lms_object where object = %s", COURSE) == ["name"]


async def test_a_term_gets_the_days_of_the_student_system(campus: Campus) -> None:
    campus.policy(*ALL, terms="{name: 'Term {term}', dates_in: America/New_York}")
    campus.course()
    campus.section()
    campus.person()
    campus.enroll()
    async with campus.driving():
        await campus.state(TERM, "waiting", "untold:term")
        campus.term(start_date="2026-08-24", end_date="2026-12-18")
        await campus.settled()
    term = campus.row("terms", TERM)
    assert (term["name"], term["start_at"], term["end_at"]) == ("Term 1259", "2026-08-24T04:00:00Z", "2026-12-19T04:59:59Z")
