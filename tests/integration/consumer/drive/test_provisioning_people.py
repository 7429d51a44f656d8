"""People in Canvas as the student system has them: renamed, suspended, back again, and nobody's own word overruled."""

from __future__ import annotations

import pytest

from services.consumer.ledger import policies
from tests.integration.consumer.drive.drive_support import eventually
from tests.integration.consumer.drive.provision_support import ALL, PERSON, SECTION, Campus
from tests.policies import making

SUSPENDING = {"people": "{when_removed: suspend, most_suspended: 3}"}


@pytest.fixture
def campus(campus: Campus) -> Campus:
    """With a class in it, and a policy that suspends."""
    campus.policy(*ALL, **SUSPENDING)
    campus.control.sections(SECTION, course="PSUNV-MUS201")
    campus.school()
    return campus


def login(campus: Campus, person: str = PERSON) -> str:
    return str(campus.row("logins", person)["state"])


async def enrolled(campus: Campus) -> None:
    campus.enroll()
    await campus.settled()
    assert campus.roster() == {PERSON: "active"}


@pytest.mark.parametrize("made_by", ["us", "another feed"])
async def test_a_person_is_renamed_again_and_again(campus: Campus, made_by: str) -> None:
    if made_by != "us":
        campus.control.objects(users=[{"sis_user_id": PERSON, "name": "Clara Wieck", "login": "cwieck"}])
    async with campus.driving():
        await enrolled(campus)
        for name in ("Clara Schumann", "Clara Wieck-Schumann", "Clara Schumann"):
            campus.person(name=name)
            await campus.settled()
            await eventually(lambda name=name: campus.user()["name"] == name)  # type: ignore[misc]
    assert campus.row("logins", PERSON)["unique_id"] == (PERSON if made_by == "us" else "cwieck")


@pytest.mark.parametrize("made_by", ["us", "another feed"])
async def test_a_name_that_was_set_by_hand_stays(campus: Campus, made_by: str) -> None:
    if made_by != "us":
        campus.control.objects(users=[{"sis_user_id": PERSON, "name": "Clara Wieck"}])
    async with campus.driving():
        await enrolled(campus)
        await campus.by_hand(f"users/sis_user_id:{PERSON}", {"user[name]": "Clara S."})
        campus.person(name="Clara Schumann")
        await campus.settled()
        await eventually(lambda: campus.ledger.one("select kept from lms_object where object = %s", PERSON) == ["name"])
    assert campus.user()["name"] == "Clara S."


async def test_names_are_left_alone_where_the_policy_says_so(campus: Campus) -> None:
    campus.policy(*ALL, people="{rename: false}")
    async with campus.driving():
        await enrolled(campus)
        campus.person(name="Clara Schumann")
        await campus.settled()
    assert campus.user()["name"] == "Clara Wieck"


async def test_a_republish_of_everybody_writes_nothing(campus: Campus) -> None:
    async with campus.driving():
        await enrolled(campus)
        campus.control.forget_calls()
        for _ in range(3):
            campus.school()
        await campus.settled()
    assert [name for name in campus.calls() if name.endswith((".create", ".update"))] == []


@pytest.mark.parametrize("made_by", ["us", "another feed"])
async def test_a_removed_person_is_suspended_and_comes_back(campus: Campus, made_by: str) -> None:
    """The account and its enrollments stay."""
    if made_by != "us":
        campus.control.objects(users=[{"sis_user_id": PERSON, "name": "Clara Wieck"}])
    async with campus.driving():
        await enrolled(campus)
        campus.person(name=None, status="removed")
        await campus.settled()
        await eventually(lambda: login(campus) == "suspended")
        assert campus.roster() == {PERSON: "active"}
        campus.person()
        await campus.settled()
        await eventually(lambda: login(campus) == "active")
    assert campus.calls()["logins.delete"] == campus.calls()["users.delete"] == 0


async def test_whom_somebody_else_suspended_stays_so(campus: Campus) -> None:
    async with campus.driving():
        await enrolled(campus)
        campus.control.objects(users=[{"sis_user_id": PERSON, "login_state": "suspended"}])
        campus.person(name="Clara Schumann")
        await campus.settled()
    assert (login(campus), campus.user()["name"]) == ("suspended", "Clara Schumann")


async def test_removed_people_are_left_alone_unless_the_policy_suspends_them(campus: Campus) -> None:
    campus.policy(*ALL)
    async with campus.driving():
        await enrolled(campus)
        campus.person(name=None, status="removed")
        await campus.settled()
    assert login(campus) == "active"


async def test_a_feed_that_removes_too_many_suspends_nobody_before_a_person_has_looked(campus: Campus) -> None:
    people = [f"90000{number:02}" for number in range(10, 14)]
    async with campus.driving():
        for person in people:
            campus.person(person, f"Student {person}")
            campus.enroll(person)
        await campus.settled()
        campus.tell_all(*({"kind": "person", "person": person, "status": "removed"} for person in people))
        held = "select count(*) from lms_object where state = 'held' and reason = 'too_many_suspensions'"
        await eventually(lambda: campus.ledger.one(held) == len(people))
        assert {login(campus, person) for person in people} == {"active"}

        # The next extract has one of them again: the others are as many as go without asking.
        campus.person(people[0], "Back Again")
        await campus.settled()
    assert [login(campus, person) for person in people] == ["active", "suspended", "suspended", "suspended"]


async def test_each_tenant_has_its_own_limit(campus: Campus) -> None:
    """What another one's feed does uses up nothing of it."""
    policies.ensure(campus.ledger.connection, "other", making(*ALL, **SUSPENDING))
    others = [f"80000{number:02}" for number in range(10, 14)]
    async with campus.driving():
        of = {"institution": "PSUNV", "term": "1259", "section": "1001", "role_family": "learner", "role": "student"}
        for person in others:
            campus.tell("person", tenant="other", person=person, status="active", display_name=f"Student {person}")
            campus.tell("enrollment", tenant="other", person=person, status="enrolled", **of)
        campus.enroll()
        await campus.settled()
        campus.tell_all(
            *({"kind": "person", "tenant": "other", "person": person, "status": "removed"} for person in others),
        )
        await eventually(lambda: campus.ledger.one("select count(*) from lms_object where state = 'held'") == len(others))
        campus.person(name=None, status="removed")
        await eventually(lambda: login(campus) == "suspended")
    assert {login(campus, person) for person in others} == {"active"}


async def test_a_larger_limit_lets_them_through(campus: Campus) -> None:
    people = [f"90000{number:02}" for number in range(10, 14)]
    async with campus.driving():
        for person in people:
            campus.person(person, f"Student {person}")
            campus.enroll(person)
        await campus.settled()
        campus.tell_all(*({"kind": "person", "person": person, "status": "removed"} for person in people))
        await eventually(lambda: campus.ledger.one("select count(*) from lms_object where state = 'held'") == len(people))
        campus.policy(*ALL, people="{when_removed: suspend, most_suspended: 4}")
        await campus.settled()
    assert {login(campus, person) for person in people} == {"suspended"}


async def test_who_was_removed_while_nobody_was_to_be_suspended_counts_when_it_is_on_again(campus: Campus) -> None:
    people = [f"90000{number:02}" for number in range(10, 14)]
    async with campus.driving():
        for person in people:
            campus.person(person, f"Student {person}")
            campus.enroll(person)
        await campus.settled()
        campus.policy("terms", "courses", "sections")
        campus.tell_all(*({"kind": "person", "person": person, "status": "removed"} for person in people))
        await eventually(lambda: campus.ledger.one("select count(*) from lms_object where reason = 'off'") == len(people))
        campus.policy(*ALL, **SUSPENDING)
        await eventually(lambda: campus.ledger.one("select count(*) from lms_object where state = 'held'") == len(people))
    assert {login(campus, person) for person in people} == {"active"}


async def test_a_removed_person_without_an_account_gets_none_and_counts_as_no_suspension(campus: Campus) -> None:
    campus.person(name=None, status="removed")
    campus.enroll()
    campus.person(name=None, status="removed")
    async with campus.driving():
        await campus.state(PERSON, "waiting", "removed")
        assert campus.calls()["users.create"] == 0
        assert campus.ledger.one("select suspends from lms_object where object = %s", PERSON) is False
        campus.person()
        await campus.settled()
    assert campus.roster() == {PERSON: "active"}


async def test_who_has_no_seat_is_nobody_of_ours(campus: Campus) -> None:
    async with campus.driving():
        campus.person("9000099", "Applicant")
        await enrolled(campus)
        campus.person("9000099", "Another Applicant")
        await campus.settled()
    assert campus.ledger.one("select count(*) from lms_object where object = '9000099'") == 0


@pytest.mark.parametrize("made_by", ["us", "another feed"])
async def test_a_login_that_the_student_system_tells_is_followed_unless_somebody_set_it_here(
    campus: Campus, made_by: str
) -> None:
    campus.policy(*ALL, people="{login: '{login}'}")
    if made_by != "us":
        campus.control.objects(users=[{"sis_user_id": PERSON, "name": "Clara Wieck", "login": "cwieck"}])

    def unique_id() -> str:
        return str(campus.row("logins", PERSON)["unique_id"])

    async with campus.driving():
        campus.person(login="cwieck")
        await enrolled(campus)
        for login in ("cschumann", "clara.schumann"):
            campus.person(login=login)
            await campus.settled()
            await eventually(lambda login=login: unique_id() == login)  # type: ignore[misc]
        await campus.by_hand(f"accounts/self/logins/{campus.row('logins', PERSON)['id']}", {"login[unique_id]": "clara"})
        campus.person(login="cws")
        await campus.settled()
        await eventually(lambda: campus.ledger.one("select kept from lms_object where object = %s", PERSON) == ["login"])
    assert unique_id() == "clara"


async def test_an_address_that_the_student_system_tells_is_followed(campus: Campus) -> None:
    campus.policy(*ALL, people="{email: '{email}'}")
    async with campus.driving():
        campus.enroll()
        await campus.state(PERSON, "waiting", "untold:person")
        for email in ("clara@example.edu", "clara.schumann@example.edu", "cs@example.edu"):
            campus.person(email=email)
            await campus.settled()
            await eventually(lambda email=email: campus.address() == email)  # type: ignore[misc]
    assert campus.control.mails() == []


async def test_an_address_that_the_person_prefers_stays(campus: Campus) -> None:
    campus.policy(*ALL, people="{email: '{email}'}")
    async with campus.driving():
        campus.person(email="clara@example.edu")
        campus.enroll()
        await enrolled(campus)
        await campus.by_hand(f"users/{campus.user()['id']}", {"user[email]": "clara@example.org"})
        campus.person(email="cs@example.edu")
        await campus.settled()
        await eventually(lambda: campus.ledger.one("select kept from lms_object where object = %s", PERSON) == ["email"])
    assert campus.address() == "clara@example.org"
