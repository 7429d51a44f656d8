"""What somebody did in the LMS and the policy adopts becomes an override, and is followed until its end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.consumer.ledger import database, overruling, writing
from services.consumer.ledger.deciding import lock_persons
from services.consumer.ledger.entities import take
from services.consumer.ledger.overruling import Asked, Filter, InForce, Told
from services.consumer.nouns import PersonRef, seat_key
from services.consumer.rosters import adopting, adoptions
from services.consumer.rosters.adopting import Adopted
from services.consumer.targets.port import Observation, RosterRow
from services.kit.postgres import Connection, prefer_indexes
from tests.integration.consumer.ledger_support import START, TENANT, Ledger, arrivals, enrollment
from tests.integration.consumer.test_rosters import (
    TARGET,
    TERM,
    Lms,
    confirmed,
    kinds,
    ref,
    row,
    with_policy,
)
from tests.policies import unguarded

TA = "TaEnrollment"
ADOPTED = (
    unguarded()
    .replace("extra_manual: report", "extra_manual: {adopt_for_days: 120}")
    .replace("wrong_state: repair", "wrong_state: {adopt_for_days: 30}")
    .replace("wrong_role: repair", "wrong_role: {adopt_for_days: 30}")
)


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    ledger = Ledger(database_url)
    with_policy(ledger, ADOPTED)
    yield ledger
    ledger.check()
    ledger.close()


@pytest.fixture
def lms(ledger: Ledger) -> Lms:
    return Lms(ledger)


def adopt(ledger: Ledger) -> int:
    """What the driver does about everything that is marked; how many seats."""
    adopted = 0
    for section in adoptions.due(ledger.connection, TARGET):
        adopted += adopting.adopt(ledger.connection, TARGET, section, ledger.policies, lambda _: True).seats
    ledger.check()
    return adopted


def overrides(ledger: Ledger) -> list[Told]:
    return overruling.find(ledger.connection, TENANT, Filter(state="in_force"), 2**62, 100)


def seat_row(ledger: Ledger, person: str, role: str = "StudentEnrollment") -> tuple[Any, ...]:
    (found,) = ledger.rows(
        "select desired, applied, applied_version = version from seat where (person, role) = (%s, %s)", person, role
    )
    return found


def days_later(ledger: Ledger, days: int) -> None:
    """So much later for overrides and seats; whose time is over ends."""
    ledger.connection.execute(
        """update override set made_at = made_at - %(days)s * interval '1 day',
                               ends_at = ends_at - %(days)s * interval '1 day'""",
        {"days": days},
    )
    ledger.connection.execute("update seat set applied_at = applied_at - %s * interval '1 day'", [days])
    while overruling.end_due(ledger.connection, ledger.policies).more:
        pass


def override(ledger: Ledger, person: str) -> None:
    """What a registrar does, and the driver then."""
    ends_at = datetime.now(UTC) + timedelta(days=9)
    asked = Asked(PersonRef(TENANT, person), "PSUNV/1259/1001", "student", "inactive", ends_at, "a word", "registrar")
    with ledger.connection.transaction():
        overruling.make(ledger.connection, ledger.policies, asked)
    ledger.settle()


# --- what is adopted ---


def test_a_guest_who_was_put_there_by_hand_is_a_seat_of_ours_from_then_on(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1")
    lms.put(row("guest"))
    lms.compare()
    assert adopt(ledger) == 1

    (told,) = overrides(ledger)
    assert (told.person, told.section, told.role, told.gives) == ("guest", "PSUNV/1259/1001", "student", "active")
    assert (told.actor, round((told.ends_at - told.made_at) / timedelta(days=1))) == ("policy:drift", 120)
    (run,) = ledger.rows("select run, repairs from roster_run")
    assert str(run[0]) in told.reason
    assert run[1] == 1
    assert (ledger.work(), kinds(ledger), seat_row(ledger, "guest")) == ({}, {}, ("active", "active", True))
    lms.compare()
    assert (kinds(ledger), adopt(ledger), len(overrides(ledger))) == ({}, 0, 1)


def test_at_its_end_the_student_system_decides_again(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1", "p2")
    lms.show(row("p1", "completed"), row("p2"), row("guest"))
    lms.compare()
    assert adopt(ledger) == 2
    days_later(ledger, 30)
    assert ledger.work() == {ref("p1"): "pending"}
    days_later(ledger, 90)
    assert ledger.work() == {ref("p1"): "pending", ref("guest"): "guarded"}


def test_a_student_who_was_concluded_stays_so(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1", "p2")
    lms.show(row("p1", "completed"), row("p2"))
    lms.compare()
    assert (ledger.work(), adopt(ledger)) == ({}, 1)
    assert (ledger.work(), kinds(ledger), seat_row(ledger, "p1")) == ({}, {}, ("completed", "completed", True))


def test_of_a_wrong_role_both_seats_are_adopted(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1", "p2")
    lms.show(row("p1", role=TA), row("p2"))
    lms.compare()
    assert adopt(ledger) == 2
    assert sorted((one.role, one.gives) for one in overrides(ledger)) == [("assistant", "active"), ("student", "deleted")]
    assert (seat_row(ledger, "p1")[:2], seat_row(ledger, "p1", TA)[:2]) == (("deleted", "absent"), ("active", "active"))
    assert (ledger.work(), kinds(ledger)) == ({}, {})


def test_of_two_seats_that_became_one_in_another_role_all_three_are_adopted(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1", "p2")
    ledger.take(enrollment(person="p1", role="instructor_primary"))
    ledger.settle()
    ledger.connection.execute("update seat set applied_at = clock_timestamp() - interval '1 hour', applied_version = version")
    lms.show(row("p1", role=TA), row("p2"))
    lms.compare()
    assert adopt(ledger) == 3
    assert {one.role: one.gives for one in overrides(ledger)} == {
        "assistant": "active",
        "instructor_primary": "deleted",
        "student": "deleted",
    }
    assert (ledger.work(), kinds(ledger)) == ({}, {})


def test_a_guest_whom_the_lms_shows_twice_is_adopted_once(ledger: Ledger, lms: Lms) -> None:
    """Two roles of the LMS may be called alike."""
    confirmed(ledger, lms, "p1")
    lms.put(row("guest", enrollment_id="e-1"), row("guest", enrollment_id="e-2"))
    lms.compare()
    assert (adopt(ledger), len(overrides(ledger)), kinds(ledger)) == (1, 1, {})


def test_of_roles_that_are_one_in_the_lms_the_policys_first_is_meant(ledger: Ledger, lms: Lms) -> None:
    with_policy(ledger, ADOPTED.replace("extra_roles: [StudentEnrollment]", "extra_roles: [TeacherEnrollment]"))
    confirmed(ledger, lms, "p1")
    lms.put(row("guest", role="TeacherEnrollment"))
    lms.compare()
    adopt(ledger)
    assert [one.role for one in overrides(ledger)] == ["instructor_primary"]


def test_many_are_adopted_in_turns(ledger: Ledger, lms: Lms) -> None:
    """A transaction holds the lease, which its renewal waits for."""
    guests = [f"guest{number}" for number in range(250)]
    confirmed(ledger, lms, "p1")
    lms.put(*(row(guest) for guest in guests))
    lms.compare()
    assert [adopt(ledger) for _ in range(3)] == [200, 50, 0]
    lms.show(row("p1"), *(row(guest, "inactive") for guest in guests))
    lms.compare()
    assert [adopt(ledger) for _ in range(3)] == [200, 50, 0]
    assert (kinds(ledger), ledger.work()) == ({}, {})
    assert ledger.rows("select state, count(*) from override where ended_at is null group by state") == [("inactive", 250)]


def test_among_many_overrides_only_those_of_the_seats_are_read(ledger: Ledger, lms: Lms) -> None:
    """Also by a plan for tables that nobody has counted yet."""
    for table in ("override", "entitlement"):
        ledger.connection.execute(f"alter table {table} set (autovacuum_enabled = off)".encode())
    confirmed(ledger, lms, "p1")
    lms.put(*(row(f"guest{number}") for number in range(450)))
    lms.compare()
    while adopt(ledger):
        pass
    with database.connect(ledger.url) as connection, connection.transaction():
        prefer_indexes(connection)
        seats = [seat_key("PSUNV-1259-1001", f"guest{number}", "StudentEnrollment") for number in range(450)]
        assert len(overruling.of_seats(connection, TARGET, seats)) == 450
        (read,) = connection.execute(
            """select sum(seq_tup_read + idx_tup_fetch) from pg_stat_xact_user_tables
                where relname in ('override', 'entitlement')"""
        ).fetchall()
    assert read[0] < 10 * len(seats)


# --- what is not ---


@pytest.mark.parametrize(
    ("stranger", "template"),
    [
        (row("guest", "other"), "{person}"),
        (RosterRow("guest", "Visitor", "StudentEnrollment", Observation("active", "e-1", "c1")), "{person}"),
        (row("guest"), "p{person}"),
    ],
    ids=["invited", "a role of its own", "another kind of id"],
)
def test_what_no_override_could_say_stays_listed(ledger: Ledger, lms: Lms, stranger: RosterRow, template: str) -> None:
    with_policy(ledger, ADOPTED.replace('user: "{person}"', f'user: "{template}"'))
    lms.put(stranger)
    ledger.take(enrollment("dropped", person="1"))
    ledger.settle()
    lms.compare()
    assert (list(kinds(ledger).values()), adopt(ledger), overrides(ledger)) == (["extra_manual"], 0, [])


def test_in_shadow_nothing_is_adopted(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1")
    lms.put(row("guest"))
    writing.shadow(ledger.connection, TARGET, TERM, "a trial", "ops")
    lms.compare()
    assert (kinds(ledger), adoptions.due(ledger.connection, TARGET)) == ({"guest": "extra_manual"}, [])


def test_a_comparison_that_only_tells_adopts_nothing(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1")
    lms.put(row("guest"))
    lms.compare(repair=False)
    assert (kinds(ledger), adopt(ledger)) == ({"guest": "extra_manual"}, 0)


def test_what_cannot_be_followed_takes_no_others_place(ledger: Ledger, lms: Lms) -> None:
    with_policy(ledger, ADOPTED.replace("most_repairs: 500", "most_repairs: 2"))
    confirmed(ledger, lms, "p1")
    lms.put(row("guest1"), row("guest2"))
    lms.compare()
    assert adopt(ledger) == 2
    lms.show(row("p1"), row("guest1", "other"), row("guest2", "other"), row("guest3"))
    lms.compare()
    assert (adopt(ledger), list(kinds(ledger))) == (1, ["guest1", "guest2"])


def test_adoptions_stop_at_the_bound_of_repairs(ledger: Ledger, lms: Lms) -> None:
    with_policy(ledger, ADOPTED.replace("most_repairs: 500", "most_repairs: 2"))
    confirmed(ledger, lms, "p1")
    lms.put(*(row(f"guest{number}") for number in range(3)))
    lms.compare()
    assert (adopt(ledger), len(kinds(ledger))) == (2, 1)


def test_a_registrars_override_is_not_outranked_by_a_teacher(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1", "p2")
    override(ledger, "p1")
    lms.compare()
    assert (kinds(ledger), adoptions.due(ledger.connection, TARGET)) == ({"p1": "wrong_state"}, [])


def test_a_roster_that_lacks_half_of_a_section_is_not_believed_enough_to_adopt_it(ledger: Ledger, lms: Lms) -> None:
    with_policy(ledger, ADOPTED.replace("missing: repair", "missing: {adopt_for_days: 30}"))
    people = [f"p{number}" for number in range(30)]
    confirmed(ledger, lms, *people)
    lms.show(*(row(person) for person in people[15:]))
    lms.compare()
    assert (len(kinds(ledger)), adopt(ledger)) == (15, 0)
    lms.show(*(row(person) for person in people[14:]))
    lms.compare()
    assert (adopt(ledger), {one.gives for one in overrides(ledger)}) == (14, {"deleted"})


def test_who_has_lost_their_account_was_not_taken_out_by_a_teacher(ledger: Ledger, lms: Lms) -> None:
    with_policy(ledger, ADOPTED.replace("missing: repair", "missing: {adopt_for_days: 30}"))
    confirmed(ledger, lms, "p1", "p2", "p3")
    lms.show(row("p3"))
    lms.accountless = {"p1"}
    lms.compare()
    assert (adopt(ledger), [(one.person, one.gives) for one in overrides(ledger)]) == (1, [("p2", "deleted")])
    assert kinds(ledger) == {"p1": "missing"}


def test_an_empty_roster_of_a_small_section_is_not_believed_enough_to_adopt_it(ledger: Ledger, lms: Lms) -> None:
    with_policy(ledger, ADOPTED.replace("missing: repair", "missing: {adopt_for_days: 30}"))
    confirmed(ledger, lms, "p1", "p2")
    lms.show()
    lms.compare()
    assert (adopt(ledger), kinds(ledger)) == (0, {"p1": "missing", "p2": "missing"})


# --- between recording and adopting ---


def test_what_the_policy_does_not_adopt_any_more_at_the_next_roster_is_not_adopted(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1")
    lms.put(row("guest"))
    lms.compare()
    with_policy(ledger, unguarded())
    lms.compare()
    assert (kinds(ledger), adopt(ledger)) == ({"guest": "extra_manual"}, 0)


def test_what_the_policy_does_not_adopt_any_more_by_then_is_not_adopted(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1")
    lms.put(row("guest"))
    lms.compare()
    with_policy(ledger, unguarded())
    assert (adopt(ledger), kinds(ledger)) == (0, {"guest": "extra_manual"})


def test_what_was_adopted_is_followed_whatever_the_policy_says_by_then(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1")
    lms.put(row("guest"))
    lms.compare()
    adopt(ledger)
    with_policy(ledger, unguarded())
    lms.show(row("p1"), row("guest", "inactive"))
    lms.compare()
    assert (adopt(ledger), [one.gives for one in overrides(ledger)]) == (1, ["inactive"])


def test_a_mark_is_not_older_than_the_roster_is_news(ledger: Ledger, lms: Lms) -> None:
    """No process was there for hours, or a backup has brought it back: everything may have changed since."""
    confirmed(ledger, lms, "p1")
    lms.put(row("guest"))
    lms.compare()
    ledger.connection.execute("update roster_finding set read_at = read_at - interval '2 hours'")
    assert (adopt(ledger), kinds(ledger)) == (0, {"guest": "extra_manual"})


def test_a_difference_that_is_gone_by_then_is_not_adopted(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1")
    lms.put(row("guest"))
    lms.compare()
    lms.show(row("p1"))
    lms.compare()
    assert (adopt(ledger), overrides(ledger), ledger.rows("select count(*) from seat")) == (0, [], [(1,)])


def test_a_section_that_is_gone_by_then_has_nothing_adopted(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1")
    lms.put(row("guest"))
    lms.compare()
    ledger.connection.execute("delete from roster_finding")
    assert adoptions.due(ledger.connection, TARGET) == []


@pytest.mark.parametrize(
    "meanwhile",
    [
        "update seat set applied_at = clock_timestamp() where person = 'p1'",
        "update seat set suspect_until = clock_timestamp() where person = 'p1'",
        """insert into work (target, seat, tenant, person, state, priority, next_at, read_first)
           select target, seat, tenant, person, 'pending', 4, clock_timestamp(), true from seat where person = 'p1'""",
        "insert into writing values ('canvas', '', false, 'a doubt', 'ops')",
        "update roster_adoption set until = clock_timestamp()",
    ],
    ids=["confirmed", "suspect", "at work", "in shadow", "over"],
)
def test_a_seat_that_has_moved_since_is_left_to_the_next_roster(ledger: Ledger, lms: Lms, meanwhile: str) -> None:
    confirmed(ledger, lms, "p1", "p2")
    lms.show(row("p1", "completed"), row("p2"))
    lms.compare()
    ledger.connection.execute(meanwhile.encode())
    adopted = [
        adopting.adopt(ledger.connection, TARGET, section, ledger.policies, lambda _: True).seats
        for section in adoptions.due(ledger.connection, TARGET)
    ]
    assert (adopted, adoptions.due(ledger.connection, TARGET), overrides(ledger)) == ([0], [], [])
    assert kinds(ledger) == {"p1": "wrong_state"}
    assert ledger.desired()[ref("p1")] == "active"
    ledger.connection.execute("update seat set suspect_until = null")


def test_who_enrolls_meanwhile_is_the_student_systems(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1")
    lms.put(row("guest"))
    lms.compare()
    ledger.take(enrollment(person="guest"))
    assert (adopt(ledger), overrides(ledger)) == (0, [])
    assert ledger.work() == {ref("guest"): "pending"}


def test_who_decides_the_person_at_that_moment_is_waited_for_without_the_lease(ledger: Ledger, lms: Lms) -> None:
    """People come before seats, and the lease after the people: no deadlock, and its renewal does not wait."""
    confirmed(ledger, lms, "p1", "p2")
    lms.show(row("p1", "completed"), row("p2"))
    lms.compare()
    asked_for_lease = []

    def holds_lease(_: Connection) -> bool:
        asked_for_lease.append(True)
        return True

    def work(connection: Connection) -> Adopted:
        return adopting.adopt(connection, TARGET, "PSUNV-1259-1001", ledger.policies, holds_lease)

    with database.connect(ledger.url) as adopters, ThreadPoolExecutor(1) as thread:
        with ledger.connection.transaction():
            lock_persons(ledger.connection, [PersonRef(TENANT, "p1")])
            adopting_it = thread.submit(work, adopters)
            wait_until_it_waits(ledger)
            assert asked_for_lease == []
            take(ledger.connection, arrivals(enrollment("dropped", person="p1", version=2)), ledger.policies)
            ledger.decide(ledger.connection, {PersonRef(TENANT, "p1")})
        assert adopting_it.result(20).seats == 0
    assert (overrides(ledger), ledger.desired()[ref("p1")]) == ([], "deleted")


def wait_until_it_waits(ledger: Ledger) -> None:
    deadline = time.monotonic() + 20
    while not ledger.rows("select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_of_a_wrong_role_none_is_adopted_when_one_of_the_seats_has_moved(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1", "p2")
    lms.show(row("p1", role=TA), row("p2"))
    lms.compare()
    ledger.take(enrollment(person="p1", role="assistant"))
    assert (adopt(ledger), overrides(ledger), kinds(ledger)) == (0, [], {"p1": "wrong_role"})


def test_a_registrar_who_overrides_meanwhile_is_not_outranked(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1", "p2")
    lms.show(row("p1", "completed"), row("p2"))
    lms.compare()
    override(ledger, "p1")
    assert (adopt(ledger), [one.actor for one in overrides(ledger)]) == (0, ["registrar"])


def test_a_row_that_is_known_to_be_a_seat_of_ours_by_then_is_not_adopted(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1")
    lms.put(row("guest", enrollment_id="e-7"))
    lms.compare()
    ledger.connection.execute("update seat set lms_enrollment = 'e-7' where person = 'p1'")
    assert (adopt(ledger), overrides(ledger)) == (0, [])


def test_who_lost_the_lease_adopts_nothing_and_whoever_has_it_does(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1")
    lms.put(row("guest"))
    lms.compare()
    (section,) = adoptions.due(ledger.connection, TARGET)
    assert adopting.adopt(ledger.connection, TARGET, section, ledger.policies, lambda _: False).seats == 0
    assert overrides(ledger) == []
    assert adopt(ledger) == 1


def test_under_another_policy_that_cannot_say_it_nothing_is_adopted(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1")
    lms.put(row("guest"))
    lms.compare()
    with_policy(ledger, ADOPTED.replace('section: "{institution}-{term}-{section}"', 'section: "{section}"'))
    (section,) = adoptions.due(ledger.connection, TARGET)
    assert adopting.adopt(ledger.connection, TARGET, section, ledger.policies, lambda _: True).seats == 0
    with_policy(ledger, ADOPTED)


# --- afterwards ---


def test_a_guest_who_was_sent_away_is_not_given_back(ledger: Ledger, lms: Lms) -> None:
    """The policy repairs what is missing; what was adopted is not the student system's."""
    confirmed(ledger, lms, "p1")
    lms.put(row("guest"))
    lms.compare()
    adopt(ledger)
    lms.show(row("p1"))
    lms.compare()
    assert (ledger.work(), kinds(ledger), adopt(ledger)) == ({}, {"guest": "missing"}, 1)
    assert (overrides(ledger), kinds(ledger), ledger.work()) == ([], {}, {})
    assert seat_row(ledger, "guest")[:2] == ("deleted", "absent")


def test_an_adoption_follows_until_its_own_end(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1")
    lms.put(row("guest"))
    lms.compare()
    adopt(ledger)
    (first,) = overrides(ledger)
    lms.show(row("p1"), row("guest", "inactive"))
    lms.compare()
    assert adopt(ledger) == 1
    (second,) = overrides(ledger)
    assert (second.gives, second.ends_at, second.number > first.number) == ("inactive", first.ends_at, True)
    assert (ledger.work(), seat_row(ledger, "guest")) == ({}, ("inactive", "inactive", True))


@pytest.mark.parametrize("repair", [True, False])
def test_in_shadow_an_adoption_follows_as_well(ledger: Ledger, lms: Lms, *, repair: bool) -> None:
    """When the term goes live nobody is given back, and nobody is concluded who was let in again."""
    confirmed(ledger, lms, "p1", "p2", "p3")
    lms.show(row("p1", "completed"), row("p2"), row("p3"), row("guest1"), row("guest2"))
    lms.compare()
    assert adopt(ledger) == 3
    writing.shadow(ledger.connection, TARGET, TERM, "a trial", "ops")
    lms.show(row("p1"), row("p2", "completed"), row("p3"), row("guest2", "inactive"), row("guest3"))
    for _ in range(2):
        lms.compare(repair=repair)
        assert adopt(ledger) in (3, 0)
    assert [(one.person, one.gives) for one in overrides(ledger)] == [("guest2", "inactive")]
    assert kinds(ledger) == {"p2": "wrong_state", "guest3": "extra_manual"}
    assert ledger.desired() == {
        ref("guest1"): "deleted",
        ref("guest2"): "inactive",
        ref("p1"): "active",
        ref("p2"): "active",
        ref("p3"): "active",
    }
    unsettled = "select person from seat where applied <> desired and (desired, applied) <> ('deleted', 'absent')"
    assert ledger.rows(unsettled) == [("p2",)]


def test_who_is_let_in_again_is_as_the_student_system_says(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1", "p2")
    for state, gives in (("completed", ["completed"]), ("active", [])):
        lms.show(row("p1", state), row("p2"))  # type: ignore[arg-type]
        lms.compare()
        assert adopt(ledger) == 1
        assert ([one.gives for one in overrides(ledger)], ledger.work()) == (gives, {})
    assert seat_row(ledger, "p1") == ("active", "active", True)


def test_who_was_concluded_and_then_sent_away_is_gone(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1", "p2")
    for gives, shown in (("completed", [row("p1", "completed")]), ("deleted", [])):
        lms.show(row("p2"), *shown)
        lms.compare()
        assert (adopt(ledger), [one.gives for one in overrides(ledger)]) == (1, [gives])


def test_a_guest_who_enrolls_is_the_student_systems_from_then_on(ledger: Ledger, lms: Lms) -> None:
    """A teacher lets a student in before they register; when they drop they must not stay."""
    confirmed(ledger, lms, "p1")
    lms.put(row("guest"))
    lms.compare()
    adopt(ledger)

    ledger.take(enrollment("waitlisted", person="guest"))
    assert len(overrides(ledger)) == 1, "that says nothing of the seat"
    ledger.take(enrollment(person="guest", version=2))
    (ended,) = overruling.find(ledger.connection, TENANT, Filter(person="guest"), 2**62, 100)
    assert (overrides(ledger), ledger.work(), seat_row(ledger, "guest")[:2]) == ([], {}, ("active", "active"))
    assert (ended.state, ended.withdrawn_by) == ("withdrawn", "policy:drift")
    assert ended.withdrawn_reason == "the student system says the same"

    ledger.take(enrollment("dropped", person="guest", version=3))
    assert (ledger.desired()[ref("guest")], ledger.work()) == ("deleted", {ref("guest"): "guarded"})


def test_a_student_who_was_concluded_and_drops_is_as_the_student_system_says(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1", "p2")
    lms.show(row("p1", "completed"), row("p2"))
    lms.compare()
    adopt(ledger)
    ledger.take(enrollment(person="p1", version=2))
    assert [one.gives for one in overrides(ledger)] == ["completed"], "still enrolled, by the student system"
    ledger.connection.execute("update override set made_at = %s", [START])  # the events of tests are of an earlier day

    ledger.take(enrollment("dropped", person="p1", version=3))

    assert (overrides(ledger), ledger.desired()[ref("p1")]) == ([], "deleted")
    ledger.take(enrollment(person="p1", version=4))
    assert ledger.desired()[ref("p1")] == "active", "whoever registers anew gets in"


def test_a_drop_from_before_does_not_end_what_is_adopted_after_it(ledger: Ledger, lms: Lms) -> None:
    """Otherwise it would be adopted and ended again every night."""
    confirmed(ledger, lms, "p1", "p2")
    ledger.take(enrollment("dropped", person="p1", version=2))
    ledger.settle()
    lms.show(row("p1", "completed"), row("p2"))
    lms.compare()
    assert adopt(ledger) == 1
    ledger.take(enrollment("dropped", person="p1", section="1002", version=3))
    assert [one.gives for one in overrides(ledger)] == ["completed"]


def test_an_adoption_that_cannot_be_followed_is_not_repaired(ledger: Ledger, lms: Lms) -> None:
    with_policy(ledger, ADOPTED.replace("wrong_state: {adopt_for_days: 30}", "wrong_state: repair"))
    confirmed(ledger, lms, "p1")
    lms.put(row("guest"))
    lms.compare()
    adopt(ledger)
    lms.show(row("p1"), row("guest", "other"))
    lms.compare()
    assert (kinds(ledger), ledger.work(), adopt(ledger)) == ({"guest": "wrong_state"}, {}, 0)


def test_an_adoption_can_be_withdrawn(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1", "p2")
    lms.show(row("p1", "completed"), row("p2"))
    lms.compare()
    adopt(ledger)
    (told,) = overrides(ledger)
    with ledger.connection.transaction():
        overruling.withdraw(ledger.connection, ledger.policies, TENANT, told.number, "registrar", "a mistake of the teacher")
    assert ledger.work() == {ref("p1"): "pending"}


def test_what_was_withdrawn_is_not_adopted_again_before_it_is_undone(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1", "p2")
    lms.show(row("p1", "completed"), row("p2"), row("guest"))
    lms.compare()
    adopt(ledger)
    for told in overrides(ledger):
        with ledger.connection.transaction():
            overruling.withdraw(ledger.connection, ledger.policies, TENANT, told.number, "registrar", "a mistake of the teacher")
    work = {ref("p1"): "pending", ref("guest"): "guarded"}
    for state in ("guarded", "held", "dead"):
        ledger.connection.execute("update work set state = %s where person = 'guest'", [state])
        lms.compare()
        assert (adopt(ledger), overrides(ledger)) == (0, [])
        assert ledger.work() == work | {ref("guest"): state}


def test_a_mark_goes_with_the_adoption_that_was_withdrawn_meanwhile(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1")
    lms.put(row("guest"))
    lms.compare()
    adopt(ledger)
    lms.show(row("p1"), row("guest", "inactive"))
    lms.compare()
    (told,) = overrides(ledger)
    with ledger.connection.transaction():
        overruling.withdraw(ledger.connection, ledger.policies, TENANT, told.number, "registrar", "a mistake of the teacher")
    assert (adopt(ledger), overrides(ledger), ledger.desired()[ref("guest")]) == (0, [], "deleted")


def test_a_registrars_override_takes_the_place_of_an_adoption(ledger: Ledger, lms: Lms) -> None:
    confirmed(ledger, lms, "p1", "p2")
    lms.show(row("p1", "completed"), row("p2"))
    lms.compare()
    adopt(ledger)
    override(ledger, "p1")
    assert [(one.actor, one.gives) for one in overrides(ledger)] == [("registrar", "inactive")]
    assert ledger.desired()[ref("p1")] == "inactive"
    with pytest.raises(InForce):
        override(ledger, "p1")
