"""A section's number that comes to mean another class: nobody new gets in before a person has looked. A moved class goes on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.consumer.drive import intents, lease
from services.consumer.guard import holds, reviewing
from services.consumer.guard.holds import Hold
from services.consumer.ledger import database, policies, redeciding, section_courses
from services.consumer.policy.model import default_text
from tests.integration.consumer.api_support import Api
from tests.integration.consumer.ledger_support import TENANT, Ledger, enrollment, seat, section_event

MATH, MATH_8W1, ART, MUSIC = "009390-1-1259-001", "009390-1-1259-8W1", "002117-1-1259-001", "004410-1-1259-001"
"""As PeopleSoft's classes have them: course, offering, term, session."""


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    """One whose guard does not wait for a burst to end, with twenty members in a class of mathematics."""
    ledger = Ledger(database_url)
    policies.store(ledger.connection, TENANT, default_text().replace("wait_seconds: 60", "wait_seconds: 0"), "registrar")
    ledger.take(section_event(course=MATH), *(enrollment(person=f"old-{number}") for number in range(20)))
    ledger.settle()
    yield ledger
    ledger.check()
    ledger.close()


def review(ledger: Ledger) -> None:
    reviewing.review(ledger.connection, "canvas", ledger.policies, lambda _: True)


def tidy_and_review(ledger: Ledger) -> None:
    reviewing.tidy(ledger.connection, "canvas", lambda _: True)
    review(ledger)


def found_holds(ledger: Ledger, *, undecided: bool = True) -> list[Hold]:
    return holds.find(ledger.connection, "canvas", undecided=undecided, after=None, limit=10)


def calls(ledger: Ledger, *people: str) -> list[str]:
    """Which calls a driver is allowed for these people, whatever state their work is in."""
    ledger.connection.execute("update work set state = 'pending', next_at = clock_timestamp()")
    mine = lease.acquire(ledger.connection, "canvas", "me", 60)
    assert mine is not None
    keys = [seat(person).seat for person in people]
    orders = intents.open_intents(ledger.connection, mine, keys, intents.new_ids(len(keys)), deadline_seconds=5, send_by=0)
    ledger.connection.execute("delete from intent")
    ledger.connection.execute("delete from lease")
    return [order.call for order in orders]


def test_a_class_that_moves_takes_everybody_along(ledger: Ledger) -> None:
    ledger.take(section_event(course=MATH_8W1, version=2), enrollment(person="new", version=2))

    assert ledger.work() == {seat("new"): "pending"}
    assert ledger.rows("select distinct course from seat") == [(f"PSUNV/{MATH_8W1}",)]


def test_nobody_gets_in_by_a_number_that_was_given_to_another_class(ledger: Ledger) -> None:
    ledger.take(enrollment("dropped", person="old-1", version=2))
    ledger.take(section_event(course=ART, version=3), *(enrollment(person=f"new-{number}", version=3) for number in range(3)))
    assert ledger.work()[seat("new-0")] == "guarded"

    review(ledger)

    [hold] = found_holds(ledger)
    assert (hold.scope, hold.key, hold.held, hold.active) == ("reused_section", "PSUNV/1259/1001", 3, 20)
    assert (hold.was_course, hold.is_course) == (MATH, ART)
    assert ledger.work() == {seat("old-1"): "pending"} | {seat(f"new-{number}"): "held" for number in range(3)}
    assert calls(ledger, "new-0", "old-1") == ["read", "write"], "the last line: whatever state the work is in"


def test_who_came_just_before_is_not_let_in_either(ledger: Ledger) -> None:
    """Their work was ready already, or waits for their account: it may be looked at, and then waits."""
    ledger.take(enrollment(person="new", version=2))
    assert calls(ledger, "new") == ["write"]

    ledger.take(section_event(course=ART, version=3))

    assert calls(ledger, "new") == ["read"]


def test_what_a_person_approves_is_the_section(ledger: Ledger) -> None:
    ledger.take(section_event(course=ART, version=2), enrollment(person="new-1", version=2))
    review(ledger)
    [seen] = found_holds(ledger)
    ledger.take(enrollment(person="new-2", version=3))
    review(ledger)

    with ledger.connection.transaction():
        done = holds.approve(ledger.connection, ledger.policies, seen.hold, seen.snapshot, "ops")
    review(ledger)
    ledger.take(enrollment(person="new-3", version=4))

    assert done == (2, 0)
    assert set(ledger.work().values()) == {"pending"}
    assert [one.state for one in found_holds(ledger, undecided=False)] == ["approved"]
    assert ledger.rows("select count(*) from removal") == [(0,)], "nobody was removed"
    ledger.take(section_event(course=MATH, version=5), enrollment(person="new-4", version=5))
    assert ledger.work()[seat("new-4")] == "guarded", "from now on the number is that of the class of art"


def test_a_third_class_does_not_undo_what_a_person_is_agreeing_to(ledger: Ledger) -> None:
    ledger.take(section_event(course=ART, version=2))

    with ThreadPoolExecutor(1) as pool, database.connect(ledger.url) as operator, database.connect(ledger.url) as watch:
        with operator.transaction():
            section_courses.agree(operator, TENANT, "PSUNV/1259/1001", ART)
            taking = pool.submit(ledger.take, section_event(course=MUSIC, version=3))
            while watch.execute("select count(*) from pg_locks where not granted").fetchone() == (0,):
                assert not taking.done(), "it did not wait for the agreement"
        taking.result(20)

    assert ledger.rows("select course, reused_as from section_course") == [(ART, MUSIC)]


def test_who_is_decided_anew_stays_out(ledger: Ledger) -> None:
    ledger.take(section_event(course=ART, version=2), enrollment(person="new", version=2))
    review(ledger)

    ledger.take(enrollment("dropped", person="new", version=3))
    ledger.take(enrollment(person="new", version=4))
    review(ledger)

    assert ledger.work() == {seat("new"): "held"}


def test_the_student_system_takes_it_back(ledger: Ledger) -> None:
    ledger.take(section_event(course=ART, version=2), enrollment(person="new", version=2))
    review(ledger)

    ledger.take(section_event(course=MATH_8W1, version=3))
    tidy_and_review(ledger)

    assert ledger.work() == {seat("new"): "pending"}
    reviewing.tidy(ledger.connection, "canvas", lambda _: True)
    assert [one.state for one in found_holds(ledger, undecided=False)] == ["emptied"]


def test_a_person_says_no_and_the_next_asks_again(ledger: Ledger) -> None:
    ledger.take(section_event(course=ART, version=2), enrollment(person="new-1", version=2))
    review(ledger)
    [hold] = found_holds(ledger)
    with ledger.connection.transaction():
        holds.discard(ledger.connection, "canvas", hold.hold)

    ledger.take(enrollment(person="new-2", version=3))
    tidy_and_review(ledger)

    assert set(ledger.work().values()) == {"held"}
    assert [one.held for one in found_holds(ledger)] == [1]
    ledger.take(section_event(course=MATH, version=4))
    tidy_and_review(ledger)
    assert set(ledger.work().values()) == {"pending"}


def test_a_number_that_was_free_for_a_while_is_remembered(ledger: Ledger) -> None:
    ledger.take(section_event("removed", version=2))
    ledger.connection.execute("update seat set applied = 'deleted'")
    ledger.connection.execute("delete from work")

    ledger.take(section_event(course=ART, version=3), enrollment(person="new", version=3))

    assert ledger.work()[seat("new")] == "guarded"


def test_a_number_that_nobody_has_used_in_the_platform_may_mean_anything(ledger: Ledger) -> None:
    ledger.take(section_event(course=MATH, section="7"), enrollment(section="7"))
    ledger.connection.execute("update seat set applied = 'absent' where section = 'PSUNV/1259/7'")

    ledger.take(section_event(course=ART, section="7", version=2), enrollment(person="new", section="7", version=2))

    assert ledger.work()[seat("new", "7")] == "pending"


@pytest.mark.parametrize("rule", ["follow", "{same_course_parts: 3}"])
def test_the_policy_says_what_is_another_class(ledger: Ledger, rule: str) -> None:
    body = default_text().replace("{same_course_parts: 1}", rule)
    policies.store(ledger.connection, TENANT, body, "registrar")

    ledger.take(section_event(course=MATH_8W1, version=2), enrollment(person="new-1", version=2))
    ledger.take(section_event(course=ART, version=3), enrollment(person="new-2", version=3))

    assert ledger.work() == {seat("new-1"): "pending", seat("new-2"): "pending" if rule == "follow" else "guarded"}


async def test_the_operator_is_told_which_class_it_was_and_is(ledger: Ledger, tmp_path: Path) -> None:
    ledger.take(section_event(course=ART, version=2), enrollment(person="new", version=2))
    review(ledger)
    api = Api(ledger, tmp_path)

    [told] = (await api.call("GET", "/holds")).json()["holds"]
    traced = await api.call(
        "POST", "/trace", json={"person": "new", "section": {"institution": "PSUNV", "term": "1259", "section": "1001"}}
    )

    assert told["place"] == {"institution": "PSUNV", "term": "1259", "section": "1001"}
    assert told["courses"] == {"was": MATH, "is": ART}
    assert told["cause"] == (
        f"The section's number stood for a class of {MATH} and now stands for one of {ART}: "
        "so far 1 would get into what may still be the old class's section, where 20 have access."
    )
    assert "number was given to another class" in traced.text
    asked = {"snapshot": told["snapshot"], "reason": "The section was made anew."}
    assert (await api.call("POST", f"/holds/{told['hold']}/approve", json=asked)).json()["approved"] == 1
    review(ledger)
    assert ledger.work() == {seat("new"): "pending"}


def test_who_belongs_to_the_combined_section_by_another_number_is_let_in(ledger: Ledger) -> None:
    combined = '\nsis_ids:\n  combined: "{institution}-{term}-C{combined}"\n'
    text = default_text().replace("\nsis_ids:\n", combined, 1)
    text += '\ncombined:\n  - {institution: PSUNV, term: "1259", combined: "0018", sections: ["7", "8"]}\n'
    policies.store(ledger.connection, TENANT, text, "registrar")
    ledger.take(section_event(course=MATH, section="7"), section_event(course=MUSIC, section="8"), enrollment(section="7"))
    ledger.settle()
    ledger.take(section_event(course=ART, section="7", version=2), enrollment(person="new", section="7", version=2))
    review(ledger)
    assert set(ledger.work().values()) == {"held"}

    ledger.take(enrollment(person="new", section="8", version=3), enrollment("dropped", person="new", section="7", version=4))
    tidy_and_review(ledger)
    review(ledger)

    assert set(ledger.work().values()) == {"pending"}


def test_approving_what_is_not_the_case_any_more_lets_nobody_in(ledger: Ledger) -> None:
    """What was looked at were the classes of mathematics and art; by now it is music."""
    ledger.take(section_event(course=ART, version=2), enrollment(person="new-1", version=2))
    review(ledger)
    [seen] = found_holds(ledger)

    ledger.take(section_event(course=MUSIC, version=3), enrollment(person="new-2", version=3))
    with pytest.raises(holds.Over), ledger.connection.transaction():
        holds.approve(ledger.connection, ledger.policies, seen.hold, seen.snapshot, "ops")
    tidy_and_review(ledger)

    assert ledger.rows("select course, reused_as from section_course") == [(MATH, MUSIC)]
    [now] = found_holds(ledger)
    assert (now.was_course, now.is_course, now.held) == (MATH, MUSIC, 2)
    assert calls(ledger, "new-1", "new-2") == ["read", "read"]


def test_a_third_class_waits_until_the_hold_of_the_second_is_empty(ledger: Ledger) -> None:
    ledger.take(section_event(course=ART, version=2), enrollment(person="new-1", version=2))
    review(ledger)
    ledger.take(section_event(course=MUSIC, version=3), enrollment(person="new-2", version=3))
    ledger.take(enrollment("dropped", person="old-1", version=4))

    review(ledger)

    assert ledger.work() == {seat("new-1"): "held", seat("new-2"): "guarded", seat("old-1"): "pending"}, "removals go on"
    tidy_and_review(ledger)
    [now] = found_holds(ledger)
    assert (now.is_course, now.held) == (MUSIC, 2)


def test_who_was_approved_for_one_class_is_not_let_into_a_third(ledger: Ledger) -> None:
    """They have waited for their account ever since."""
    ledger.take(section_event(course=ART, version=2), enrollment(person="new", version=2))
    review(ledger)
    [hold] = found_holds(ledger)
    with ledger.connection.transaction():
        holds.approve(ledger.connection, ledger.policies, hold.hold, hold.snapshot, "ops")
    review(ledger)
    assert calls(ledger, "new") == ["write"]

    ledger.take(section_event(course=MUSIC, version=3))

    assert calls(ledger, "new") == ["read"]


def test_a_section_that_was_made_for_the_old_class_is_in_use(ledger: Ledger) -> None:
    """Nobody is in it yet, but it lies in the old class's course."""
    ledger.take(section_event(course=MATH, section="7"), enrollment(section="7"))
    ledger.connection.execute(
        """insert into lms_object (target, kind, object, tenant, key, section, term, state, lms_id, origin)
           values ('canvas', 'section', 'PSUNV-1259-7', %s, %s, %s, 'PSUNV/1259', 'settled', '1', 'ours')""",
        [TENANT, "PSUNV/1259/7", "PSUNV/1259/7"],
    )

    ledger.take(section_event(course=ART, section="7", version=2), enrollment(person="new", section="7", version=2))

    assert ledger.work()[seat("new", "7")] == "guarded"


@pytest.mark.parametrize(("rule", "state"), [("follow", "pending"), ("{same_course_parts: 2}", "held")])
def test_a_policy_that_calls_it_a_move_lets_them_in(ledger: Ledger, rule: str, state: str) -> None:
    """Otherwise a wrong rule would hold every class that was moved until somebody had approved each."""
    ledger.take(section_event(course=ART, version=2), enrollment(person="new", version=2))
    review(ledger)

    body = default_text().replace("{same_course_parts: 1}", rule)
    policies.store(ledger.connection, TENANT, body, "registrar")
    list(redeciding.redecide(ledger.connection, ledger.policies, TENANT))
    tidy_and_review(ledger)
    review(ledger)

    assert ledger.work() == {seat("new"): state}
