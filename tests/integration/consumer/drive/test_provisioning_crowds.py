"""Whatever there is much of does not hold up the one who enrolls now: new names, suspensions that are held, people in shadow."""

from __future__ import annotations

from services.consumer.ledger import writing
from services.consumer.provision import queue
from tests.integration.consumer.drive.drive_support import TARGET, eventually
from tests.integration.consumer.drive.provision_support import ALL, PERSON, SECTION, Campus

CROWD = [f"91000{number:02}" for number in range(80)]
LAST_TERM = "1253"


def enroll_the_crowd(campus: Campus, term: str = "1259") -> None:
    """With accounts of another feed."""
    campus.control.sections(f"PSUNV-{term}-2001", course="PSUNV-ART101")
    campus.control.objects(users=[{"sis_user_id": person, "name": "As It Was"} for person in CROWD])
    of = {"institution": "PSUNV", "term": term, "section": "2001", "role_family": "learner", "role": "student"}
    campus.tell_all(*({"kind": "enrollment", "status": "enrolled", "person": person, **of} for person in CROWD))


def tell_the_crowd(campus: Campus, **said: str) -> None:
    campus.tell_all(*({"kind": "person", "person": person, **said} for person in CROWD))


def look_ups(campus: Campus) -> int:
    return campus.calls()["users.get"] + campus.calls()["logins.list"]


async def test_whom_somebody_waits_for_does_not_queue_behind_those_who_are_only_kept_in_step(campus: Campus) -> None:
    enroll_the_crowd(campus)
    async with campus.driving():
        await campus.settled()
        campus.control.fault("latency", endpoints=["users.get"], ms=100)
        tell_the_crowd(campus, status="active", display_name="Renamed")
        campus.school()
        campus.enroll()
        await eventually(lambda: campus.control.roster(SECTION) != [], within=20)
        assert campus.ledger.one("select count(*) from lms_object where kind = 'person' and state = 'pending'") > 0
        campus.control.heal()
        await campus.settled(40)
    assert campus.user(CROWD[0])["name"] == "Renamed"


async def test_those_who_are_held_are_counted_and_not_looked_at_one_by_one(campus: Campus) -> None:
    campus.policy(*ALL, people="{when_removed: suspend, most_suspended: 3}")
    enroll_the_crowd(campus)
    async with campus.driving():
        await campus.settled()
        tell_the_crowd(campus, status="removed")
        await eventually(lambda: campus.ledger.one("select count(*) from lms_object where state = 'held'") == len(CROWD), 60)
        campus.control.forget_calls()
        assert campus.ledger.one("select count(*) from lms_object where state = 'held' and next_at is not null") == 0
        tell = [{"kind": "person", "person": person, "status": "active", "display_name": "As It Was"} for person in CROWD[3:]]
        campus.tell_all(*tell)
        await campus.settled(60)
        assert look_ups(campus) <= 3 * len(CROWD)
    assert [campus.row("logins", person)["state"] for person in CROWD[:4]] == ["suspended"] * 3 + ["active"]


async def test_people_in_shadow_are_put_off_until_their_term_is_live(campus: Campus) -> None:
    writing.shadow(campus.ledger.connection, TARGET, f"PSUNV/{LAST_TERM}", "last term", "somebody")
    enroll_the_crowd(campus, LAST_TERM)
    tell_the_crowd(campus, status="active", display_name="Renamed")
    async with campus.driving():
        await eventually(
            lambda: campus.ledger.one("select count(*) from lms_object where reason = 'shadow'") == len(CROWD),
        )
        assert queue.due(campus.ledger.connection, TARGET, 10, 1.0, awaited=False) == ([], 0)
        campus.school()
        campus.enroll()
        await eventually(lambda: campus.roster() == {PERSON: "active"})
        assert look_ups(campus) <= 4
        writing.go_live(campus.ledger.connection, TARGET, f"PSUNV/{LAST_TERM}", "ready", "somebody", compared=None)
        await campus.settled(60)
    assert campus.user(CROWD[0])["name"] == "Renamed"


async def test_a_suspension_whose_answer_was_lost_counts_for_the_day(campus: Campus) -> None:
    campus.policy(*ALL, people="{when_removed: suspend, most_suspended: 3}")
    campus.control.sections(SECTION, course="PSUNV-MUS201")
    campus.school()
    campus.enroll()
    async with campus.driving():
        await campus.settled()
        campus.control.fault("reset", methods=["PUT"], count=1, apply=True)
        campus.person(name=None, status="removed")
        await eventually(lambda: campus.row("logins", PERSON)["state"] == "suspended")
        await campus.settled()
    assert campus.ledger.one("select suspended_at is not null from lms_object where object = %s", PERSON)
