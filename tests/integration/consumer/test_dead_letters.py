"""Seats that the LMS refuses: each class has its timer, and nothing but a timer, a newer decision or a person brings one back."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.consumer.ledger import dead_letters
from services.consumer.nouns import PRIORITY_REPAIR, SeatRef
from tests.integration.consumer.ledger_support import TIMERS, Ledger, enrollment, seat


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    ledger = Ledger(database_url)
    yield ledger
    ledger.check()
    ledger.close()


def release(ledger: Ledger, limit: int = 100) -> set[SeatRef]:
    return dead_letters.release_due(ledger.connection, "canvas", TIMERS, limit)


def hours_pass(ledger: Ledger, hours: int) -> None:
    ledger.connection.execute("update work set state_since = state_since - %s * interval '1 hour'", [hours])


def test_each_class_comes_back_when_its_own_time_is_over(ledger: Ledger) -> None:
    ledger.take(enrollment(person="1"), enrollment(person="2"))
    ledger.kill(seat("1"), "refused", "validation")
    ledger.kill(seat("2"), "concluded")

    assert release(ledger) == set()
    hours_pass(ledger, 6)
    assert release(ledger) == {seat("1")}
    hours_pass(ledger, 18)
    assert release(ledger) == {seat("2")}

    assert ledger.work() == {seat("1"): "pending", seat("2"): "pending"}
    assert ledger.rows("select distinct priority from work") == [(PRIORITY_REPAIR,)]
    assert {detail["class"] for detail in ledger.history("released")} == {"refused:validation", "concluded"}


def test_after_so_many_times_a_seat_is_left_to_a_person(ledger: Ledger) -> None:
    ledger.take(enrollment())
    for again in (True, True, False):
        ledger.kill(seat(), "refused", "validation")
        hours_pass(ledger, 7)
        assert (release(ledger) == {seat()}) is again

    (found,) = dead_letters.classes(ledger.connection, "canvas", TIMERS)
    assert (found.dead_class, found.seats, found.left_to_people, found.next_at) == ("refused:validation", 1, 1, None)


def test_a_concluded_course_is_asked_for_as_long_as_it_takes(ledger: Ledger) -> None:
    ledger.take(enrollment())
    for _ in range(5):
        ledger.kill(seat(), "concluded")
        hours_pass(ledger, 25)
        assert release(ledger) == {seat()}


def test_a_newer_decision_opens_a_dead_seat_and_gives_its_timer_all_its_turns_back(ledger: Ledger) -> None:
    ledger.take(enrollment())
    for _ in range(3):
        ledger.kill(seat(), "refused", "validation")
        hours_pass(ledger, 7)
        release(ledger)
    assert ledger.work() == {seat(): "dead"}

    ledger.take(enrollment("dropped", version=2))

    assert ledger.work() == {seat(): "pending"}
    assert ledger.rows("select attempts, reason, code, releases from work") == [(0, None, None, 0)]


def test_releasing_leaves_alone_what_is_being_decided(ledger: Ledger) -> None:
    """No lock is waited for: whoever holds the row looks after the seat."""
    ledger.take(enrollment())
    ledger.kill(seat(), "concluded")
    hours_pass(ledger, 25)
    other = Ledger(ledger.url)
    with other.connection.transaction():
        other.connection.execute("select from work for update")
        assert release(ledger) == set()
    other.close()
    assert release(ledger) == {seat()}


def test_a_flood_of_dead_letters_comes_back_in_portions(ledger: Ledger) -> None:
    ledger.take(*(enrollment(person=str(number)) for number in range(30)))
    for ref in ledger.work():
        ledger.kill(ref, "concluded")
    hours_pass(ledger, 25)

    assert [len(release(ledger, limit=20)) for _ in range(3)] == [20, 10, 0]


def test_a_class_is_read_page_by_page_in_the_order_of_the_deaths(ledger: Ledger) -> None:
    people = [f"{number:02}" for number in range(25)]
    ledger.take(*(enrollment(person=person) for person in people))
    with ledger.connection.transaction():
        for person in reversed(people):
            ledger.kill(seat(person), "refused", "validation")
    ledger.kill(seat(people[0]), "concluded")

    found: list[str] = []
    after = None
    while page := dead_letters.page(ledger.connection, "canvas", "refused:validation", after, 10):
        found += [one.person for one in page]
        after = page[-1].place

    assert found == people[:0:-1]
