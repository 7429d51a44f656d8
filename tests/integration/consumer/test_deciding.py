"""From events to seats and work in the ledger: newest wins, one decision per person at a time, no needless work."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date

import pytest

from schemas.events import AnyEvent
from services.consumer.ledger import database, policies, redeciding
from services.consumer.ledger.assertions import violations
from services.consumer.ledger.entities import take
from services.consumer.ledger.members import AT_ONCE
from services.consumer.nouns import seat_key
from services.consumer.policy.model import default_text
from tests.integration.consumer.ledger_support import TENANT, Ledger, arrivals, enrollment, hashed, seat, section_event
from tests.policies import unguarded


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    ledger = Ledger(database_url)
    yield ledger
    ledger.check()
    ledger.close()


def test_an_enrollment_becomes_a_seat_with_work(ledger: Ledger) -> None:
    assert ledger.take(enrollment()) == ["taken"]

    assert ledger.desired() == {seat(): "active"}
    assert ledger.work() == {seat(): "pending"}
    assert ledger.effects == {"add": 1, "none": 0}


def test_an_older_version_never_replaces_a_newer_one(ledger: Ledger) -> None:
    ledger.take(enrollment("dropped", version=5))

    assert ledger.take(enrollment("enrolled", version=4)) == ["superseded"]

    assert ledger.desired() == {seat(): "deleted"}


def test_within_a_batch_only_the_newest_counts(ledger: Ledger) -> None:
    assert ledger.take(enrollment(version=3), enrollment("dropped", version=7), enrollment(version=5)) == [
        "superseded",
        "taken",
        "superseded",
    ]
    assert ledger.desired() == {seat(): "deleted"}


def test_the_same_record_again_changes_nothing(ledger: Ledger) -> None:
    ledger.take(enrollment())
    ledger.settle()

    assert ledger.take(enrollment()) == ["duplicate"]

    assert ledger.work() == {}
    assert len(ledger.history("decided")) == 1


def test_one_version_with_two_contents_is_an_alarm(ledger: Ledger) -> None:
    ledger.take(enrollment(version=2))

    assert ledger.take(enrollment("dropped", version=2)) == ["hash_alarm"]

    assert ledger.desired() == {seat(): "active"}
    assert len(ledger.history("hash_alarm")) == 1


def test_add_drop_add_before_any_call_is_one_row_of_work(ledger: Ledger) -> None:
    for version, status in enumerate(("enrolled", "dropped", "enrolled"), 1):
        ledger.take(enrollment(status, version=version))  # type: ignore[arg-type]

    assert ledger.work() == {seat(): "pending"}
    assert ledger.rows("select decision from seat") == [(3,)]


def test_what_is_as_it_should_be_again_needs_no_call(ledger: Ledger) -> None:
    ledger.take(enrollment())
    ledger.settle()

    ledger.take(enrollment("dropped", version=2))
    ledger.take(enrollment("enrolled", version=3))

    assert ledger.work() == {}


def test_it_stays_work_while_a_call_is_under_way(ledger: Ledger) -> None:
    ledger.take(enrollment())
    ledger.settle()
    ledger.take(enrollment("dropped", version=2))
    ledger.connection.execute(
        """insert into intent
             (target, intent, seat, tenant, person, owner, epoch, call, wanted, version, decision, mark, deadline)
           select target, gen_random_uuid(), seat, tenant, person, 'driver', 1, 'write', desired, version, decision, mark,
                  clock_timestamp() from seat"""
    )

    ledger.take(enrollment("enrolled", version=3))

    assert ledger.work() == {seat(): "pending"}


def test_a_suspect_seat_waits_for_its_late_read(ledger: Ledger) -> None:
    ledger.take(enrollment())
    ledger.settle()
    ledger.connection.execute("update seat set suspect_until = clock_timestamp() + interval '1 hour'")

    ledger.take(enrollment("dropped", version=2))
    ledger.take(enrollment("enrolled", version=3))

    assert ledger.work() == {seat(): "suspect"}
    assert ledger.rows("select work.next_at = seat.suspect_until from work join seat using (target, seat)") == [(True,)]


def test_a_read_back_that_was_asked_for_is_not_forgotten(ledger: Ledger) -> None:
    ledger.take(enrollment())
    ledger.connection.execute("update seat set applied = desired")
    ledger.connection.execute("update work set read_first = true")

    ledger.take(enrollment("dropped", version=2))
    ledger.take(enrollment("enrolled", version=3))

    assert ledger.rows("select state, read_first from work") == [("pending", True)]


@pytest.mark.parametrize("state", ["waiting", "dead", "retrying"])
def test_a_new_decision_ends_waiting_and_failing(ledger: Ledger, state: str) -> None:
    ledger.take(enrollment())
    waits = ("user", "9000001") if state == "waiting" else (None, None)
    ledger.connection.execute(
        """update work set state = %s, attempts = 9, reason = 'x', next_at = clock_timestamp() + interval '1 day',
                           waits_kind = %s, waits_object = %s""",
        [state, *waits],
    )

    ledger.take(enrollment("dropped", version=2))

    assert ledger.rows(
        "select state, attempts, reason, waits_kind, next_at < clock_timestamp() + interval '4 seconds' from work"
    ) == [("pending", 0, None, None, True)]


def test_priorities_and_the_settling_time_of_a_removal(ledger: Ledger) -> None:
    ledger.take(enrollment(person="1"), enrollment("dropped", person="2"), enrollment(person="3", role="instructor_primary"))

    assert ledger.rows(
        "select person, priority, next_at > clock_timestamp() + interval '1 second' from work order by person"
    ) == [
        ("1", 2, False),
        ("2", 0, True),
        ("3", 1, False),
    ]


def test_a_drop_of_somebody_we_never_heard_of_is_looked_up_in_the_lms(ledger: Ledger) -> None:
    ledger.take(enrollment("dropped"))

    assert ledger.rows("select desired, applied from seat") == [("deleted", "unknown")]
    assert ledger.work() == {seat(): "pending"}


def test_the_waiting_list_gives_no_seat_and_promotion_does(ledger: Ledger) -> None:
    ledger.take(enrollment("waitlisted"))
    assert ledger.desired() == {}

    ledger.take(enrollment("enrolled", version=2))
    assert ledger.desired() == {seat(): "active"}

    ledger.take(enrollment("waitlisted", version=3))
    assert ledger.desired() == {seat(): "deleted"}


def test_a_role_change_is_a_new_seat_and_the_removal_of_the_old(ledger: Ledger) -> None:
    ledger.take(enrollment())
    ledger.settle()

    ledger.take(enrollment(version=2, role="auditor"))

    assert ledger.desired() == {seat(): "deleted", seat(role="Auditor"): "active"}
    assert sorted(detail["effect"] for detail in ledger.history("decided")[1:]) == ["add", "drop"]
    ledger.take(enrollment(version=3))
    assert ledger.desired() == {seat(): "active", seat(role="Auditor"): "deleted"}


@pytest.mark.parametrize("members", [30, 1100])
def test_a_cancelled_section_removes_its_members_and_its_return_brings_them_back(ledger: Ledger, members: int) -> None:
    ledger.take(*(enrollment(person=str(number)) for number in range(members)), enrollment(person="0", section="2"))
    ledger.settle()

    ledger.take(section_event("cancelled", version=9))
    assert (ledger.decide_queued() > 0) == (members > AT_ONCE)

    assert list(ledger.desired().values()).count("deleted") == members
    assert ledger.desired()[seat("0", "2")] == "active"
    assert ledger.rows("select distinct version from seat where desired = 'deleted'") == [(9,)]
    ledger.take(section_event("active", version=10))
    ledger.decide_queued()
    assert set(ledger.desired().values()) == {"active"}
    assert ledger.work() == {}


def test_a_section_that_was_cancelled_before_its_members_came(ledger: Ledger) -> None:
    ledger.take(section_event("cancelled", version=9))
    ledger.take(enrollment(version=10), enrollment("waitlisted", version=10, person="2"))

    assert ledger.desired() == {seat(): "deleted"}


def test_a_section_tells_its_seats_their_course(ledger: Ledger) -> None:
    ledger.take(enrollment())

    ledger.take(section_event(course="MATH101", version=2))

    assert ledger.rows("select course from seat union all select course from work") == [("PSUNV/MATH101",)] * 2
    assert len(ledger.history("decided")) == 1


def test_two_sis_ids_with_one_lms_id_do_not_take_each_others_seat(ledger: Ledger) -> None:
    policies.store(ledger.connection, TENANT, default_text().replace('"{person}"', '"{person:0>9}"'), "registrar")

    ledger.take(enrollment(person="7"))
    ledger.connection.execute("delete from work")
    ledger.connection.execute("update seat set applied = 'active'")
    ledger.take(enrollment("dropped", person="07", version=2))

    assert ledger.rows("select person, desired from seat") == [("7", "active")]
    assert len(ledger.history("conflict")) == 1
    ledger.connection.execute("delete from entity where person = '07'")


def test_a_tenant_without_a_policy_gets_no_seats_until_it_has_one(ledger: Ledger) -> None:
    ledger.take(enrollment(tenant="medical school"))
    assert ledger.desired() == {}

    policies.store(ledger.connection, "medical school", default_text(), "registrar")
    assert redeciding.unfinished(ledger.connection) == ["medical school"]
    assert set().union(*redeciding.redecide(ledger.connection, ledger.policies, "medical school")) == {seat()}

    assert ledger.desired() == {seat(): "active"}
    assert redeciding.unfinished(ledger.connection) == []


def test_another_policy_decides_everybody_again_and_goes_on_where_it_stopped(ledger: Ledger) -> None:
    ledger.take(*(enrollment("dropped", person=f"{number:04}") for number in range(1200)))
    ledger.settle()
    body = default_text().replace("drop_action: deleted", "drop_action: inactive")

    assert policies.store(ledger.connection, TENANT, body, "registrar") == (2, True)
    assert policies.store(ledger.connection, TENANT, body, "registrar") == (2, False)
    first = next(redeciding.redecide(ledger.connection, ledger.policies, TENANT))
    rest = list(redeciding.redecide(ledger.connection, ledger.policies, TENANT))

    assert [len(first), *map(len, rest)] == [500, 500, 200, 0]
    assert set(ledger.desired().values()) == {"inactive"}
    assert ledger.rows("select distinct policy_version from seat") == [(2,)]
    assert ledger.rows("select bool_and(accepted_at > clock_timestamp() - interval '1 minute') from seat") == [(True,)]


def test_the_first_policy_stays_whatever_the_file_says_later(ledger: Ledger) -> None:
    other = default_text().replace("drop_action: deleted", "drop_action: inactive")

    assert policies.ensure(ledger.connection, TENANT, other) == 1

    assert ledger.policies.active(ledger.connection)[TENANT].policy.drop_action == "deleted"


def test_ids_with_quotes_backslashes_and_other_scripts_survive(ledger: Ledger) -> None:
    person = 'O"B\\rien,{}NULL Ω'
    ledger.take(hashed(enrollment(person=person)))

    assert ledger.rows("select person, lms_user from seat") == [(person, person)]


# Concurrency: what two processes do at the same time


def together(ledger: Ledger, *steps: Callable[[Ledger], object]) -> None:
    with ThreadPoolExecutor(len(steps)) as pool:
        for done in [pool.submit(step, ledger) for step in steps]:
            done.result(20)


def taking(
    *events: AnyEvent, pause: threading.Event | None = None, reached: threading.Event | None = None
) -> Callable[[Ledger], object]:
    """Take the events on a connection of one's own; with `pause`, hold the transaction open until it is set."""

    def step(ledger: Ledger) -> None:
        with database.connect(ledger.url) as connection, connection.transaction():
            taken = take(connection, arrivals(*events), ledger.policies)
            ledger.decide(connection, taken.persons)
            if reached:
                reached.set()
            if pause:
                pause.wait(20)

    return step


def waiting_for_a_lock(ledger: Ledger) -> bool:
    return ledger.rows("select count(*) from pg_locks where not granted") != [(0,)]


def after(reached: threading.Event, then: Callable[[Ledger], object], release: threading.Event) -> Callable[[Ledger], object]:
    """Start `then` once the first transaction is open, and let that one end when `then` waits for it, or is through."""

    def step(ledger: Ledger) -> None:
        assert reached.wait(20)
        with ThreadPoolExecutor(1) as pool, database.connect(ledger.url) as watch:
            done = pool.submit(then, ledger)
            while not done.done() and watch.execute("select count(*) from pg_locks where not granted").fetchone() == (0,):
                pass
            release.set()
            done.result(20)

    return step


@pytest.mark.parametrize("section_first", [True, False])
def test_a_cancelled_section_and_a_new_member_never_miss_each_other(ledger: Ledger, section_first: bool) -> None:
    events: list[AnyEvent] = [section_event("cancelled", version=9), enrollment(version=8)]
    first, second = events if section_first else events[::-1]
    release, reached = threading.Event(), threading.Event()

    together(ledger, taking(first, pause=release, reached=reached), after(reached, taking(second), release))

    assert ledger.desired() == {seat(): "deleted"}


def test_two_events_of_one_person_in_two_transactions_are_decided_one_after_the_other(ledger: Ledger) -> None:
    policies.store(
        ledger.connection,
        TENANT,
        default_text().replace("{institution}-{term}-{section}", "{institution}-{term}-{section:0>4}"),
        "registrar",
    )
    # Two classes that the policy writes alike meet in one seat: only a decision that sees both entities is right.
    list(redeciding.redecide(ledger.connection, ledger.policies, TENANT))
    ledger.take(enrollment(section="1"), enrollment(section="01"))
    ledger.settle()
    release, reached = threading.Event(), threading.Event()

    together(
        ledger,
        taking(enrollment("dropped", section="1", version=2), pause=release, reached=reached),
        after(reached, taking(enrollment("dropped", section="01", version=2)), release),
    )

    assert ledger.desired() == {seat(section="0001"): "deleted"}


def test_batches_over_the_same_people_do_not_deadlock(ledger: Ledger) -> None:
    people = [str(number) for number in range(40)]

    def batches(order: list[str], first_version: int) -> Callable[[Ledger], object]:
        def step(ledger: Ledger) -> None:
            with database.connect(ledger.url) as connection:
                for version in range(first_version, first_version + 40, 2):
                    status = "enrolled" if version % 4 < 2 else "dropped"
                    events = [enrollment(status, person=person, version=version) for person in order]  # type: ignore[arg-type]
                    ledger.take_batch(connection, arrivals(*events, section_event(version=version)))

        return step

    together(ledger, batches(people, 1), batches(people[::-1], 2))

    assert violations(ledger.connection, ledger.policies) == []


def test_the_census_day_of_the_section_s_part_of_term_decides(ledger: Ledger) -> None:
    """By the change's own date: what day it is when the change is decided, or decided again, does not matter."""
    census = """
census:
  - {institution: PSUNV, term: "1259", day: 2026-09-15}
  - {institution: PSUNV, term: "1259", session: "8W1", day: 2026-09-04}
"""
    rule = "withdrawn: {until_census: removal, after_census: inactive}"
    policies.store(ledger.connection, TENANT, default_text().replace("withdrawn: inactive", rule) + census, "registrar")
    left = enrollment("withdrawn", version=3).model_copy(update={"effective_date": date(2026, 9, 10)})
    ledger.take(enrollment(), section_event(version=1))
    ledger.take(hashed(left))
    assert ledger.desired() == {seat(): "deleted"}

    ledger.take(hashed(section_event(version=2).model_copy(update={"session": "8W1"})))

    assert ledger.desired() == {seat(): "inactive"}, "the class turned out to be a short one, whose census day was over"
    ledger.check()


@pytest.mark.parametrize("together", [True, False])
def test_the_seat_of_one_person_is_not_decided_by_another_who_is_decided_at_the_same_time(ledger: Ledger, together: bool) -> None:
    """Two ids of the student system are one user of the learning platform. The seat is the first one's, who leaves."""
    policies.store(ledger.connection, TENANT, unguarded().replace('"{person}"', '"{person:0>3}"'), "registrar")
    ledger.take(enrollment(person="7"))
    left, came = enrollment("dropped", person="7", version=2), enrollment(person="007")
    if together:
        ledger.take(left, came)
    else:
        ledger.take(left)
        ledger.take(came)

    assert ledger.rows("select person, desired from seat") == [("7", "deleted")]


@pytest.mark.parametrize("course_told", ["first", "last"])
@pytest.mark.parametrize("left_first", [True, False])
def test_who_leaves_a_section_for_another_of_its_course_is_not_listed_in_both(
    ledger: Ledger, course_told: str, left_first: bool
) -> None:
    sections = [section_event(section=section, course="MATH101") for section in ("1001", "1002")]
    changes = [enrollment("withdrawn", version=2), enrollment("enrolled", section="1002", version=3)]
    ledger.take(enrollment())
    ledger.settle()
    if course_told == "first":
        ledger.take(*sections)
    for change in changes if left_first else changes[::-1]:
        ledger.take(change)
    if course_told == "last":
        ledger.take(*sections)

    assert ledger.desired() == {seat(): "deleted", seat(section="1002"): "active"}
    ledger.take(enrollment("dropped", section="1002", version=4))
    assert ledger.desired() == {seat(): "inactive", seat(section="1002"): "deleted"}, "they have left one of them"


def test_a_laboratory_follows_the_withdrawal_from_its_lecture_by_whatever_event_it_comes(ledger: Ledger) -> None:
    ledger.take(enrollment(), enrollment(section="1003"))
    ledger.settle()
    ledger.take(enrollment("withdrawn", version=5))
    assert ledger.desired() == {seat(): "inactive", seat(section="1003"): "active"}, "nobody has said that they belong together"

    ledger.take(section_event(course="CHEM110", component="LEC"))
    ledger.take(section_event(section="1003", course="CHEM110", component="LAB", version=7))

    assert ledger.desired() == {seat(): "inactive", seat(section="1003"): "inactive"}
    assert ledger.rows("select version from seat where section like '%%1003'") == [(7,)]
    ledger.take(enrollment("enrolled", version=8))
    assert set(ledger.desired().values()) == {"active"}


def test_a_seat_of_combined_sections_belongs_to_the_one_that_gives_it(ledger: Ledger) -> None:
    """Otherwise the guard would take it for a member of a class that its person has left."""
    combined = 'combined:\n  - {institution: PSUNV, term: "1259", combined: "0018", sections: ["1001", "2001"]}\n'
    ids = 'term}-{section}"\n  combined: "{institution}-{term}-C{combined}"'
    policies.store(ledger.connection, TENANT, unguarded().replace('term}-{section}"', ids, 1) + combined, "registrar")
    ledger.take(enrollment(), section_event(course="HIST200"), section_event(section="2001", course="HIST200"))
    ledger.settle()

    ledger.take(enrollment(section="2001", version=2))
    ledger.take(enrollment("dropped", version=3))

    assert ledger.rows("select seat, section, course, desired from seat") == [
        (seat_key("PSUNV-1259-C0018", "9000001", "StudentEnrollment"), "PSUNV/1259/2001", "PSUNV/HIST200", "active")
    ]
    assert ledger.work() == {}
