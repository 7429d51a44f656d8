"""A registrar's exception outranks the student system until its end, and not a moment longer, whoever looks first."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from schemas.events import EnrollmentRole
from services.consumer.guard import reviewing
from services.consumer.housekeeping import Housekeeping
from services.consumer.ledger import database, overruling, policies, redeciding
from services.consumer.ledger.overruling import Asked, Ended, InForce, Over, Refused
from services.consumer.metrics import Metrics
from services.consumer.nouns import PersonRef, SeatRef, SeatState
from services.consumer.policy.model import default_text
from services.kit.postgres import Connection
from tests.integration.consumer.ledger_support import TENANT, TIMERS, Heard, Ledger, arrivals, enrollment, seat, section_event

REASON = "appeal of Mr Miller was granted"
PERSON = PersonRef(TENANT, "9000001")


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    ledger = Ledger(database_url)
    yield ledger
    ledger.check()
    ledger.close()


def asked(
    gives: SeatState = "active",
    *,
    person: str = "9000001",
    section: str = "1001",
    role: EnrollmentRole = "student",
    lasts: timedelta = timedelta(days=1),
) -> Asked:
    ends_at = datetime.now(UTC) + lasts
    return Asked(PersonRef(TENANT, person), f"PSUNV/1259/{section}", role, gives, ends_at, REASON, "registrar")


def make(ledger: Ledger, wanted: Asked, connection: Connection | None = None) -> int:
    connection = connection or ledger.connection
    with connection.transaction():
        return overruling.make(connection, ledger.policies, wanted)[0]


def withdraw(ledger: Ledger, number: int) -> set[SeatRef] | None:
    with ledger.connection.transaction():
        return overruling.withdraw(ledger.connection, ledger.policies, TENANT, number, "registrar", "no longer needed")


def let_it_end(ledger: Ledger, seconds_ago: float = 1) -> None:
    """Time passes: all overrides end, and were made before that."""
    ledger.connection.execute(
        "update override set made_at = made_at - interval '3 days', ends_at = clock_timestamp() - %s * interval '1 second'",
        [seconds_ago],
    )


def state_of(ledger: Ledger, number: int) -> str:
    found = overruling.read(ledger.connection, TENANT, number)
    assert found is not None
    return found.state


def test_it_gives_access_to_somebody_whom_the_sis_does_not_know(ledger: Ledger) -> None:
    make(ledger, asked())

    assert ledger.desired() == {seat(): "active"}
    assert ledger.work() == {seat(): "pending"}


def test_it_takes_access_from_somebody_enrolled_by_way_of_the_guard(ledger: Ledger) -> None:
    ledger.take(enrollment())
    ledger.settle()

    make(ledger, asked("deleted"))

    assert ledger.desired() == {seat(): "deleted"}
    assert ledger.work() == {seat(): "guarded"}


@pytest.mark.parametrize("gives", ["active", "inactive", "completed", "deleted"])
def test_what_the_sis_says_meanwhile_waits_for_its_end(ledger: Ledger, gives: SeatState) -> None:
    ledger.take(enrollment())
    number = make(ledger, asked(gives))

    for version, status in enumerate(("dropped", "enrolled", "withdrawn", "completed"), 2):
        ledger.take(enrollment(status, version=version))  # type: ignore[arg-type]
        assert ledger.desired() == {seat(): gives}
    ledger.take(section_event("cancelled", version=9))
    assert ledger.desired() == {seat(): gives}

    withdraw(ledger, number)
    assert ledger.desired() == {seat(): "deleted"}, "the class was cancelled meanwhile"


def test_when_it_ends_the_sis_decides_again_by_itself(ledger: Ledger) -> None:
    ledger.take(enrollment("dropped"))
    number = make(ledger, asked())
    ledger.settle()
    woken = Heard()
    metrics = Metrics()
    housekeeping = Housekeeping(ledger.url, ledger.policies, metrics, woken.wake, TIMERS)

    assert not housekeeping.once(ledger.connection)
    assert metrics.registry.get_sample_value("sis_overrides_in_force") == 1
    assert ledger.desired() == {seat(): "active"}
    let_it_end(ledger)
    assert not housekeeping.once(ledger.connection)

    assert ledger.desired() == {seat(): "deleted"}
    assert ledger.work() == {seat(): "guarded"}
    assert woken == [seat()]
    assert metrics.registry.get_sample_value("sis_overrides_in_force") == 0
    assert state_of(ledger, number) == "ended"
    assert [row["withdrawn"] for row in ledger.history("override_ended")] == [False]


def test_a_person_without_any_enrollment_loses_the_seat_at_its_end(ledger: Ledger) -> None:
    make(ledger, asked())
    let_it_end(ledger)

    assert overruling.end_due(ledger.connection, ledger.policies) == Ended({seat()}, more=False)

    assert ledger.desired() == {seat(): "deleted"}
    assert ledger.rows("select count(*) from entitlement") == [(0,)]
    assert overruling.end_due(ledger.connection, ledger.policies) == Ended(set(), more=False)


@pytest.mark.parametrize("first", ["live", "replay", "sweep", "policy"])
def test_whoever_decides_first_after_its_end_decides_the_same(ledger: Ledger, first: str) -> None:
    ledger.take(enrollment("dropped"))
    make(ledger, asked())
    ledger.settle()
    let_it_end(ledger, seconds_ago=100)

    if first == "live":
        ledger.take(enrollment(section="2002", version=2))
    elif first == "replay":
        with ledger.connection.transaction():
            ledger.decide(ledger.connection, {PERSON}, "replay")
    elif first == "policy":
        policies.store(ledger.connection, TENANT, default_text() + "# the same in other words\n", "registrar")
        list(redeciding.redecide(ledger.connection, ledger.policies, TENANT))
    overruling.end_due(ledger.connection, ledger.policies)

    assert ledger.desired()[seat()] == "deleted"
    assert ledger.rows("select ended_at is not null from override") == [(True,)]
    assert len(ledger.history("override_ended")) == 1
    if first != "policy":
        age = ledger.rows("select extract(epoch from clock_timestamp() - accepted_at) from seat where section like '%%1001'")
        assert 99 < age[0][0] < 160, "freshness counts from its end, not from the old enrollment"


def test_a_transaction_that_began_before_its_end_does_not_bring_it_back(ledger: Ledger) -> None:
    """It has to ask what time it is after it has the lock."""
    ledger.take(enrollment("dropped"))
    make(ledger, asked())
    ready, gone_on = threading.Event(), threading.Event()

    def late(url: str) -> None:
        with database.connect(url) as connection, connection.transaction():
            connection.execute("select now()")  # the transaction's own time stands still from here on
            ready.set()
            assert gone_on.wait(20)
            ledger.decide(connection, {PERSON})

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(late, ledger.url)
        assert ready.wait(20)
        # It ends right after the other transaction began.
        ledger.connection.execute("update override set ends_at = clock_timestamp(), made_at = made_at - interval '1 day'")
        gone_on.set()
        done.result(20)

    assert ledger.desired() == {seat(): "deleted"}
    overruling.end_due(ledger.connection, ledger.policies)


def test_a_clock_that_is_set_back_does_not_bring_it_back(ledger: Ledger) -> None:
    ledger.take(enrollment("dropped"))
    make(ledger, asked())
    let_it_end(ledger)
    overruling.end_due(ledger.connection, ledger.policies)

    ledger.connection.execute("update override set ends_at = clock_timestamp() + interval '1 hour'")
    with ledger.connection.transaction():
        ledger.decide(ledger.connection, {PERSON})

    assert ledger.desired() == {seat(): "deleted"}


def test_a_live_event_and_a_new_override_pass_one_after_the_other(ledger: Ledger) -> None:
    """Rule: the person is locked before anything is read. Whoever comes second sees what the first has written."""
    ledger.take(enrollment())
    release, reached = threading.Event(), threading.Event()

    def override(url: str) -> None:
        with database.connect(url) as connection, connection.transaction():
            overruling.make(connection, ledger.policies, asked("deleted"))
            reached.set()
            assert release.wait(20)

    def event(url: str) -> None:
        with database.connect(url) as connection, connection.transaction():
            ledger.decide(connection, {PERSON})

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(override, ledger.url)
        assert reached.wait(20)
        second = pool.submit(event, ledger.url)
        while ledger.rows("select count(*) from pg_locks where not granted") == [(0,)] and not second.done():
            pass
        assert not second.done()
        release.set()
        first.result(20)
        second.result(20)

    assert ledger.desired() == {seat(): "deleted"}


@pytest.mark.parametrize("section_first", [True, False])
def test_a_section_s_course_and_a_new_override_never_miss_each_other(ledger: Ledger, section_first: bool) -> None:
    release, reached = threading.Event(), threading.Event()

    def tell(connection: Connection) -> None:
        ledger.take_batch(connection, arrivals(section_event(course="MATH101", version=3)))

    def override(connection: Connection) -> None:
        make(ledger, asked(), connection)

    def step(work: Any, mine: bool) -> None:
        with database.connect(ledger.url) as connection, connection.transaction():
            if not mine:
                assert reached.wait(20)
            work(connection)
            if mine:
                reached.set()
                assert release.wait(20)

    works = [tell, override] if section_first else [override, tell]
    with ThreadPoolExecutor(2) as pool:
        done = [pool.submit(step, work, number == 0) for number, work in enumerate(works)]
        assert reached.wait(20)
        while ledger.rows("select count(*) from pg_locks where not granted") == [(0,)] and not done[1].done():
            pass
        release.set()
        for one in done:
            one.result(20)

    assert ledger.rows("select course from seat") == [("PSUNV/MATH101",)]


def test_a_section_tells_the_seats_of_overrides_their_course(ledger: Ledger) -> None:
    make(ledger, asked())

    ledger.take(section_event(course="MATH101", version=2))

    assert ledger.rows("select course from seat union all select course from work") == [("PSUNV/MATH101",)] * 2


def test_a_second_one_for_the_seat_is_refused_with_the_number_of_the_first(ledger: Ledger) -> None:
    number = make(ledger, asked())

    with pytest.raises(InForce) as refused:
        make(ledger, asked("deleted"))
    assert refused.value.number == number

    make(ledger, asked(role="auditor"))
    let_it_end(ledger)
    make(ledger, asked("completed"))
    assert ledger.desired()[seat()] == "completed", "its end need not have been noticed before"


def test_two_roles_that_are_one_seat_cannot_both_be_overridden(ledger: Ledger) -> None:
    make(ledger, asked(role="instructor_primary"))

    with pytest.raises(InForce):
        make(ledger, asked(role="instructor_secondary"))


def test_the_seat_of_another_person_with_the_same_id_in_the_lms_is_left_alone(ledger: Ledger) -> None:
    policies.store(ledger.connection, TENANT, default_text().replace('"{person}"', '"{person:0>9}"'), "registrar")
    list(redeciding.redecide(ledger.connection, ledger.policies, TENANT))
    ledger.take(enrollment(person="7"))

    with pytest.raises(Refused, match="seat_of_another"):
        make(ledger, asked("deleted", person="07"))

    assert ledger.rows("select person, desired from seat") == [("7", "active")]


def test_an_override_decides_a_seat_in_which_two_sections_meet(ledger: Ledger) -> None:
    merged = default_text().replace("{institution}-{term}-{section}", "{institution}-{term}-{section:0>4}")
    policies.store(ledger.connection, TENANT, merged, "registrar")
    list(redeciding.redecide(ledger.connection, ledger.policies, TENANT))
    ledger.take(enrollment(section="1"), enrollment(section="01"))

    number = make(ledger, asked("inactive", section="1"))
    assert ledger.desired() == {seat(section="0001"): "inactive"}
    with pytest.raises(InForce):
        make(ledger, asked(section="01"))

    withdraw(ledger, number)
    assert ledger.desired() == {seat(section="0001"): "active"}


def test_another_policy_moves_it_with_everything_else(ledger: Ledger) -> None:
    make(ledger, asked())
    renamed = default_text().replace("student: StudentEnrollment", "student: {base: StudentEnrollment, role: Guest}")

    policies.store(ledger.connection, TENANT, renamed, "registrar")
    list(redeciding.redecide(ledger.connection, ledger.policies, TENANT))

    assert ledger.desired() == {seat(): "deleted", seat(role="Guest"): "active"}


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        (asked(role="other"), "no_seat"),
        (asked(lasts=timedelta(seconds=-1)), "end_out_of_bounds"),
        (asked(lasts=timedelta(days=735)), "end_out_of_bounds"),
        (asked()._replace(person=PersonRef("medical school", "1")), "no_policy"),
    ],
)
def test_what_cannot_be_is_refused(ledger: Ledger, wanted: Asked, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        make(ledger, wanted)

    assert ledger.rows("select from override") == []


def test_it_is_withdrawn_once(ledger: Ledger) -> None:
    number = make(ledger, asked())

    assert withdraw(ledger, number) == {seat()}
    with pytest.raises(Over) as over:
        withdraw(ledger, number)

    assert over.value.state == "withdrawn"
    assert withdraw(ledger, number + 1) is None


def test_one_that_has_ended_cannot_be_withdrawn_and_its_end_takes_effect(ledger: Ledger) -> None:
    number = make(ledger, asked())
    let_it_end(ledger)

    with ledger.connection.transaction(), pytest.raises(Over) as over:
        overruling.withdraw(ledger.connection, ledger.policies, TENANT, number, "registrar", "too late")

    assert over.value.state == "ended"
    assert ledger.desired() == {seat(): "deleted"}


def test_many_ends_are_taken_in_turns(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overruling, "_AT_ONCE", 2)
    for person in ("1", "2", "3"):
        make(ledger, asked(person=person))
    let_it_end(ledger)
    housekeeping = Housekeeping(ledger.url, ledger.policies, Metrics(), Heard().wake, TIMERS)

    assert housekeeping.once(ledger.connection), "there may be more"
    assert not housekeeping.once(ledger.connection)

    assert set(ledger.desired().values()) == {"deleted"}


def test_history_has_no_words_of_the_registrar(ledger: Ledger) -> None:
    withdraw(ledger, make(ledger, asked()))

    rows = ledger.rows("select what, kind, key, detail::text from history order by at")
    assert [row[0] for row in rows] == ["override_made", "decided", "override_ended", "decided"]
    assert {row[1] for row in rows} == {"override"}
    assert "Miller" not in str(rows)
    assert "no longer needed" not in str(rows)


def test_its_removals_are_held_like_any_other(ledger: Ledger) -> None:
    policies.store(ledger.connection, TENANT, default_text().replace("wait_seconds: 60", "wait_seconds: 0"), "registrar")
    list(redeciding.redecide(ledger.connection, ledger.policies, TENANT))
    people = [f"{number:07}" for number in range(20)]
    ledger.take(*(enrollment(person=person) for person in people))
    ledger.settle()

    for person in people:
        make(ledger, asked("deleted", person=person))
    reviewing.review(ledger.connection, "canvas", ledger.policies, lambda _: True)

    assert set(ledger.work().values()) == {"held"}


def test_a_seat_that_the_ledger_believes_is_so_is_looked_at(ledger: Ledger) -> None:
    """Whoever says that somebody must not see a class any more has seen that they do."""
    ledger.take(enrollment("dropped"))
    ledger.settle()
    make(ledger, asked("deleted"))

    assert ledger.rows("select state, read_first from work") == [("pending", True)]


def test_an_id_that_nothing_entitles_any_more_gives_the_seat_back(ledger: Ledger) -> None:
    """The registrar typed the id as the learning platform shows it; the student system has it without the zeros."""
    policies.store(ledger.connection, TENANT, default_text().replace('"{person}"', '"{person:0>9}"'), "registrar")
    number = make(ledger, asked(person="000000007"))
    ledger.take(enrollment(person="7"))
    withdraw(ledger, number)
    ledger.take(enrollment(person="7", version=2))

    assert ledger.rows("select person, desired from seat") == [("7", "active")]


def test_a_person_with_several_ends_counts_each(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overruling, "_AT_ONCE", 2)
    for section in ("1001", "1002", "1003"):
        make(ledger, asked(section=section))
    let_it_end(ledger)

    assert overruling.end_due(ledger.connection, ledger.policies).more


def test_a_consumer_that_runs_on_decides_by_the_policy_of_the_restored_ledger(ledger: Ledger) -> None:
    """The number is the same, the policy is another one."""
    guests = default_text().replace("student: StudentEnrollment", "student: {base: StudentEnrollment, role: Guest}")
    policies.store(ledger.connection, TENANT, guests, "registrar")
    ledger.take(enrollment(person="1"))
    ledger.connection.execute("delete from policy where version = 2")
    ledger.connection.execute("update policy set active = true where version = 1")
    policies.store(ledger.connection, TENANT, default_text() + "\n", "registrar")
    ledger.take(enrollment(person="2"))

    assert ledger.rows("select role from seat where person = '2'") == [("StudentEnrollment",)]
    list(redeciding.redecide(ledger.connection, ledger.policies, TENANT))


def test_decisions_that_move_seats_and_rosters_that_lock_them_pass_one_after_the_other(ledger: Ledger) -> None:
    """Both lock the seats in their order, before their work."""
    ledger.take(section_event(course="A"), *(enrollment(person=f"p{number}") for number in range(40)))
    stop = threading.Event()

    def lock_seats() -> int:
        rounds = 0
        with database.connect(ledger.url) as connection:
            while not stop.is_set():
                with connection.transaction():
                    connection.execute("select from seat where target = 'canvas' order by target, seat for no key update")
                    connection.execute("select from work where target = 'canvas' order by target, seat for update")
                rounds += 1
        return rounds

    with ThreadPoolExecutor(1) as others:
        locking = others.submit(lock_seats)
        try:
            for version in range(2, 42):
                ledger.take(section_event(course="AB"[version % 2], version=version))
                ledger.decide_queued()
        finally:
            stop.set()
        assert locking.result() > 0
    assert ledger.rows("select distinct course from seat") == [("PSUNV/B",)]
