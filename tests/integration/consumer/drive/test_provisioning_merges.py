"""Two ids of the student system that turn out to be one person: the account gets the new id before anything else."""

from __future__ import annotations

from typing import Any

import pytest

from services.consumer.ledger import writing
from tests.integration.consumer.drive.drive_support import TARGET, eventually
from tests.integration.consumer.drive.provision_support import ALL, SECTION, Campus

OLD, NEW = "9000001", "9000002"


@pytest.fixture
def campus(campus: Campus) -> Campus:
    """With a class in it."""
    campus.policy(*ALL)
    campus.control.sections(SECTION, course="PSUNV-MUS201")
    campus.school()
    return campus


def learner(person: str, status: str) -> dict[str, Any]:
    of = {
        "institution": "PSUNV",
        "term": "1259",
        "section": "1001",
        "person": person,
        "role_family": "learner",
        "role": "student",
    }
    return {"kind": "enrollment", "status": status, **of}


def merged() -> dict[str, Any]:
    return {"kind": "person", "person": OLD, "status": "removed", "merged_into": NEW}


def heir() -> dict[str, Any]:
    return {"kind": "person", "person": NEW, "status": "active", "display_name": "Clara Schumann"}


def everything() -> list[dict[str, Any]]:
    """What a merge makes the student system say, all at once."""
    return [merged(), heir(), learner(NEW, "enrolled"), learner(OLD, "dropped")]


async def enrolled(campus: Campus) -> int:
    """Under the old id; returns Canvas's id of the enrollment."""
    campus.enroll(OLD)
    await campus.settled()
    (row,) = campus.control.dump("enrollments")
    campus.control.forget_calls()
    return int(row["id"])


def check(campus: Campus, row: int) -> None:
    """The enrollment was never touched, and it is the new id's."""
    (found,) = campus.control.dump("enrollments")
    assert (found["id"], found["state"]) == (row, "active")
    assert campus.calls()["enrollments.delete"] == campus.calls()["enrollments.create"] == 0
    assert campus.calls()["users.create"] == 0
    applied: dict[str, str] = dict(campus.ledger.connection.execute("select lms_user, applied from seat").fetchall())
    assert applied == {OLD: "absent", NEW: "active"}
    assert campus.ledger.one("select count(*) from lms_object where moves_to is not null") == 0


async def test_the_account_gets_the_new_id_and_keeps_its_enrollments(campus: Campus) -> None:
    async with campus.driving():
        row = await enrolled(campus)
        campus.tell_all(*everything())
        await campus.settled()
        await eventually(lambda: campus.user(NEW)["name"] == "Clara Schumann")
    check(campus, row)
    (login,) = (one for one in campus.control.dump("logins") if one["sis_user_id"] in (OLD, NEW))
    assert (login["sis_user_id"], login["state"]) == (NEW, "active")


@pytest.mark.parametrize("limits", [{"apply": True}, {"apply": False}], ids=["landed", "lost"])
async def test_an_answer_that_was_lost_is_looked_for(campus: Campus, limits: dict[str, object]) -> None:
    async with campus.driving():
        row = await enrolled(campus)
        campus.control.fault("reset", methods=["PUT"], count=1, **limits)
        campus.tell_all(*everything())
        await campus.settled(30)
    check(campus, row)


async def test_an_account_that_has_both_ids_loses_the_old_one_only(campus: Campus) -> None:
    async with campus.driving():
        row = await enrolled(campus)
        campus.control.objects(users=[{"sis_user_id": NEW, "also": OLD, "login": "clara"}])
        campus.tell_all(*everything())
        await campus.settled()
    check(campus, row)
    assert {
        one["unique_id"]: one["sis_user_id"] for one in campus.control.dump("logins") if one["unique_id"] in (OLD, "clara")
    } == {
        OLD: None,
        "clara": NEW,
    }


async def test_two_accounts_are_a_persons_to_merge_and_nothing_is_taken_away_meanwhile(campus: Campus) -> None:
    async with campus.driving():
        row = await enrolled(campus)
        campus.control.objects(users=[{"sis_user_id": NEW, "name": "Clara Schumann"}])
        campus.tell_all(merged(), heir(), learner(OLD, "dropped"))
        await campus.state(OLD, "refused", "two_accounts")
        assert campus.ledger.one("select state from work where person = %s", OLD) == "guarded"
        assert campus.roster()[OLD] == "active"

        await campus.by_hand(f"users/sis_user_id:{OLD}/merge_into/sis_user_id:{NEW}", {})
        campus.tell_all(learner(NEW, "enrolled"))
        campus.ledger.connection.execute("update lms_object set next_at = clock_timestamp() where state = 'refused'")
        await campus.settled()
    check(campus, row)


async def test_no_account_is_made_for_an_id_that_another_ones_account_will_have(campus: Campus) -> None:
    async with campus.driving():
        row = await enrolled(campus)
        campus.control.fault("status", status=503, methods=["PUT"], for_seconds=2)
        campus.tell_all(*everything())
        await campus.state(NEW, "waiting", "merge")
        await campus.settled(30)
    check(campus, row)


async def test_who_never_had_an_account_gets_one_under_the_new_id(campus: Campus) -> None:
    campus.tell_all(merged(), heir(), learner(NEW, "enrolled"), learner(OLD, "dropped"))
    async with campus.driving():
        await campus.settled()
    assert campus.roster() == {NEW: "active"}


async def test_the_account_moves_though_its_old_id_is_in_shadow_alone(campus: Campus) -> None:
    """Who has the new id waits for that account."""
    campus.control.objects(users=[{"sis_user_id": OLD, "name": "Clara Wieck"}])
    writing.shadow(campus.ledger.connection, TARGET, "PSUNV/1253", "last term", "somebody")
    campus.tell_all(learner(OLD, "enrolled") | {"term": "1253"})
    campus.tell_all(merged(), heir(), learner(NEW, "enrolled"))
    async with campus.driving():
        await eventually(lambda: campus.control.roster(SECTION) != [])
    assert campus.roster() == {NEW: "active"}
    assert campus.calls()["users.create"] == 0


# What the student system should not say


async def test_an_id_that_is_kept_under_itself_keeps_its_account(campus: Campus) -> None:
    async with campus.driving():
        await enrolled(campus)
        campus.tell_all(merged() | {"merged_into": OLD})
        await campus.state(OLD, "refused", "merged_in_a_circle")
    assert campus.user(OLD)["name"] == "Clara Wieck"


async def test_ids_that_are_kept_under_each_other_change_nothing(campus: Campus) -> None:
    async with campus.driving():
        await enrolled(campus)
        campus.tell_all(merged(), heir() | {"status": "removed", "merged_into": OLD}, learner(NEW, "enrolled"))
        await campus.state(OLD, "refused", "merged_in_a_circle")
        assert campus.calls()["logins.update"] == 0
        campus.tell_all(heir(), learner(OLD, "dropped"))
        await campus.state(OLD, "settled", "merged")
        await campus.settled()
    assert campus.user(NEW)["name"] == "Clara Schumann"


async def test_the_account_goes_to_the_last_of_a_chain(campus: Campus) -> None:
    async with campus.driving():
        row = await enrolled(campus)
        third = "9000003"
        campus.tell_all(
            merged(),
            heir() | {"status": "removed", "merged_into": third},
            heir() | {"person": third},
            learner(third, "enrolled"),
            learner(OLD, "dropped"),
        )
        await campus.settled()
    assert campus.calls()["logins.update"] == 1
    (found,) = campus.control.dump("enrollments")
    assert (found["id"], found["state"], campus.roster()) == (row, "active", {third: "active"})


# People are switched off while an account is on its way

_LOOK_AGAIN = "update lms_object set next_at = clock_timestamp() where kind = 'person'"


def switch_people_off(campus: Campus) -> None:
    campus.policy("terms", "courses", "sections")
    campus.control.forget_calls()


def wrote_to_people(campus: Campus) -> list[str]:
    return [name for name in campus.calls() if name.startswith(("users.", "logins.")) and name.endswith((".create", ".update"))]


async def merging(campus: Campus, *more: dict[str, Any]) -> int:
    """Under way, and not possible yet; returns Canvas's id of the old id's enrollment."""
    row = await enrolled(campus)
    campus.control.fault("status", status=503, methods=["PUT"])
    campus.tell_all(merged(), heir(), learner(OLD, "dropped"), *more)
    await eventually(lambda: campus.ledger.one("select state from lms_object where object = %s", OLD) == "retrying")
    return row


async def test_people_who_are_off_have_two_accounts_and_what_the_student_system_took_is_taken(campus: Campus) -> None:
    """What is taken from the old id takes nothing from the new one."""
    async with campus.driving():
        await enrolled(campus)
        campus.control.objects(users=[{"sis_user_id": NEW, "name": "Clara Schumann"}])
        campus.tell_all(*everything())
        await campus.state(OLD, "refused", "two_accounts")
        switch_people_off(campus)
        await campus.state(OLD, "settled", "off")
        await eventually(lambda: campus.roster() == {NEW: "active", OLD: "deleted"})
        assert wrote_to_people(campus) == []


async def test_nothing_is_taken_through_the_old_id_of_an_account_that_has_both(campus: Campus) -> None:
    """Also while people are off. Whoever keeps the accounts then takes the old id off, and it goes on."""
    async with campus.driving():
        row = await enrolled(campus)
        campus.control.objects(users=[{"sis_user_id": NEW, "also": OLD, "login": "clara"}])
        campus.control.fault("status", status=503, methods=["PUT"])
        campus.tell_all(*everything())
        await eventually(lambda: campus.ledger.one("select state from lms_object where object = %s", OLD) == "retrying")
        switch_people_off(campus)
        await campus.state(OLD, "waiting", "off")
        await eventually(lambda: campus.ledger.one("select applied from seat where lms_user = %s", NEW) == "active")
        assert campus.ledger.one("select state from work where person = %s", OLD) == "guarded"
        assert wrote_to_people(campus) == []

        campus.control.heal()
        await campus.by_hand(f"accounts/self/logins/{campus.row('logins', OLD)['id']}", {"login[sis_user_id]": ""})
        campus.ledger.connection.execute(_LOOK_AGAIN)
        await eventually(lambda: campus.ledger.one("select count(*) from work") == 0)
    check(campus, row)


async def test_nothing_is_taken_through_the_old_id_where_people_were_never_on(campus: Campus) -> None:
    switch_people_off(campus)
    campus.control.objects(users=[{"sis_user_id": NEW, "login": "clara"}, {"sis_user_id": OLD, "also": NEW}])
    async with campus.driving():
        campus.tell_all(learner(OLD, "enrolled"))
        await eventually(lambda: campus.ledger.one("select count(*) from work") == 0)
        campus.tell_all(*everything())
        await campus.state(OLD, "waiting", "off")
        await eventually(lambda: campus.ledger.one("select applied from seat where lms_user = %s", NEW) == "active")
        assert campus.ledger.one("select state from work where person = %s", OLD) == "guarded"


async def test_an_account_that_another_feed_has_moved_while_people_were_off_is_the_new_ids(campus: Campus) -> None:
    async with campus.driving():
        row = await merging(campus, learner(NEW, "enrolled"))
    switch_people_off(campus)
    campus.control.heal()
    await campus.by_hand(f"accounts/self/logins/{campus.row('logins', OLD)['id']}", {"login[sis_user_id]": NEW})
    async with campus.driving():
        await campus.state(OLD, "settled", "merged")
        await eventually(lambda: campus.ledger.one("select count(*) from work") == 0)
    check(campus, row)


async def test_the_account_moves_when_people_are_on_again(campus: Campus) -> None:
    async with campus.driving():
        await merging(campus, learner(NEW, "enrolled"))
        switch_people_off(campus)
        campus.control.heal()
        await campus.state(OLD, "settled", "off")
        await eventually(lambda: campus.roster() == {OLD: "deleted"})
        campus.policy(*ALL)
        await campus.state(OLD, "settled", "merged")
        await campus.settled()
    assert campus.roster() == {NEW: "active"}
    assert campus.calls()["users.create"] == 0
