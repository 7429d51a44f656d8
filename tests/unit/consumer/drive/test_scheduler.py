"""The order of calls, for any backlog."""

from __future__ import annotations

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from services.consumer.drive.scheduler import LESS_URGENT_EVERY, Line, Ready, Scheduler, plan

PEOPLE = ("ann", "bob", "cho")
COURSES = ("algebra", "biology", None)
TERMS = ("spring", "fall")


@st.composite
def backlogs(draw: st.DrawFn) -> list[Ready]:
    count = draw(st.integers(0, 12))
    return [
        Ready(
            seat=f"seat-{number}",
            person=draw(st.sampled_from(PEOPLE)),
            course=draw(st.sampled_from(COURSES)),
            priority=draw(st.integers(0, 4)),
            term=draw(st.sampled_from(TERMS)),
            next_at=float(draw(st.integers(0, 5))),
            removes=draw(st.booleans()),
        )
        for number in range(count)
    ]


def ready(
    seat: str,
    person: str = "ann",
    *,
    course: str | None = "algebra",
    priority: int = 2,
    term: str = "spring",
    next_at: float = 0.0,
    removes: bool = False,
) -> Ready:
    return Ready(seat, person, course, priority, term, next_at, removes)


def offered(*rows: Ready) -> Scheduler:
    scheduler = Scheduler()
    scheduler.offer(rows)
    return scheduler


def drained(scheduler: Scheduler) -> list[Ready]:
    """Everything, one call after the other."""
    order: list[Ready] = []
    while taken := scheduler.take(1):
        order += taken
        scheduler.finish(taken[0], still_ready=False)
    return order


def seats(rows: Iterable[Ready]) -> list[str]:
    return [row.seat for row in rows]


def test_drops_go_before_instructors_before_adds_before_claims_before_repair() -> None:
    rows = [ready(f"s{priority}", f"person-{priority}", priority=priority) for priority in (3, 1, 4, 0, 2)]
    assert seats(drained(offered(*rows))) == ["s0", "s1", "s2", "s3", "s4"]


def test_among_equals_the_longest_due_goes_first() -> None:
    scheduler = offered(ready("young", "ann", next_at=9), ready("old", "bob", next_at=3))
    assert seats(drained(scheduler)) == ["old", "young"]


def test_in_one_course_the_add_goes_before_the_removal() -> None:
    scheduler = offered(ready("drop", priority=0, removes=True), ready("add", priority=2))
    assert seats(drained(scheduler)) == ["add", "drop"]


def test_in_another_course_or_an_unknown_one_the_removal_does_not_wait() -> None:
    for course in ("biology", None):
        scheduler = offered(ready("drop", priority=0, removes=True, course=course), ready("add", priority=2))
        assert seats(drained(scheduler)) == ["drop", "add"]
    nowhere = offered(ready("drop", priority=0, removes=True, course=None), ready("add", priority=2, course=None))
    assert seats(drained(nowhere)) == ["drop", "add"]


def test_an_add_that_holds_a_removal_back_goes_with_the_removals() -> None:
    """A flood of drops must not starve the add, and with it the drop that waits for it."""
    scheduler = offered(
        ready("swap-drop", priority=0, removes=True, next_at=1),
        ready("swap-add", priority=2, next_at=1),
        ready("instructor", "bob", priority=1),
        ready("drop", "cho", priority=0, removes=True, next_at=2),
    )
    assert seats(scheduler.take(4)) == ["swap-add", "drop", "instructor"]


def test_nothing_of_a_person_overtakes_a_seat_that_is_still_ready() -> None:
    """A refused add is due again at once; its removal waits for the next look instead of going first."""
    scheduler = offered(ready("drop", priority=0, removes=True), ready("add", priority=2))
    (add,) = scheduler.take(2)

    scheduler.finish(add, still_ready=True)

    assert scheduler.take(2) == []


def test_a_look_during_a_call_neither_repeats_the_seat_nor_frees_the_person() -> None:
    rows = [ready("first"), ready("second", course="biology", next_at=1)]
    scheduler = offered(*rows)
    (first,) = scheduler.take(5)

    scheduler.offer(rows)

    assert scheduler.take(5) == []
    scheduler.finish(first, still_ready=False)
    assert seats(scheduler.take(5)) == ["second"]


def test_blocked_people_are_left_alone_and_come_back() -> None:
    scheduler = Scheduler()
    scheduler.block(["ann"])
    scheduler.offer([ready("a"), ready("b", "bob")])
    assert seats(drained(scheduler)) == ["b"]

    scheduler.unblock(["ann"])
    scheduler.offer([ready("a")])
    assert seats(drained(scheduler)) == ["a"]


@given(backlogs(), st.integers(1, 6))
def test_no_person_has_two_calls_at_once_and_everything_goes_exactly_once(rows: list[Ready], at_once: int) -> None:
    scheduler = offered(*rows)
    under_way: list[Ready] = []
    done: list[str] = []
    while taken := scheduler.take(at_once) or under_way:
        if taken is not under_way:
            assert len(taken) <= at_once
            under_way += taken
            assert len({row.person for row in under_way}) == len(under_way)
        else:
            row = under_way.pop(0)
            done.append(row.seat)
            scheduler.finish(row, still_ready=False)
    assert sorted(done) == sorted(seats(rows))


@given(backlogs())
def test_for_any_backlog_an_add_precedes_the_removals_of_its_person_and_course(rows: list[Ready]) -> None:
    order = drained(offered(*rows))
    assert sorted(seats(order)) == sorted(seats(rows))
    for index, row in enumerate(order):
        later_adds = [
            other
            for other in order[index + 1 :]
            if not other.removes and (other.person, other.course) == (row.person, row.course) and row.course is not None
        ]
        assert not (row.removes and later_adds)


@given(backlogs())
def test_across_people_the_most_urgent_goes_first(rows: list[Ready]) -> None:
    taken = offered(*rows).take(min(len(PEOPLE), LESS_URGENT_EVERY - 1))
    heads = [plan([row for row in rows if row.person == each.person])[0][1] for each in taken]
    assert heads == sorted(heads)


def test_terms_of_one_priority_take_turns_however_long_the_backlog_of_one_is() -> None:
    backlog = [ready(f"old-{number:03}", f"a{number}", term="spring", next_at=number) for number in range(100)]
    scheduler = offered(*backlog, *(ready(f"new-{number}", f"b{number}", term="fall", next_at=999) for number in range(3)))

    assert [row.term for row in scheduler.take(8)] == ["fall", "spring"] * 3 + ["spring", "spring"]


def test_turns_go_on_where_they_were_after_another_look() -> None:
    rows = [ready(f"{term}-{number}", f"{term}-{number}", term=term) for term in "abc" for number in range(20)]
    scheduler, order = Scheduler(), []
    for _ in range(4):
        scheduler.offer(rows)
        order += [row.term for row in scheduler.take(2)]
    assert order == ["a", "b", "c", "a", "b", "c", "a", "b"]


def test_every_fifth_call_goes_to_what_is_less_urgent_and_those_take_turns() -> None:
    rows = [
        ready(f"{priority}-{number:03}", f"{priority}-{number}", priority=priority)
        for priority in (0, 2, 4)
        for number in range(50)
    ]
    order = [row.priority for row in offered(*rows).take(50)]
    assert [order[index] for index in range(4, 50, 5)] == [2, 4] * 5
    assert order.count(0) == 40


def test_a_priority_alone_is_not_held_back() -> None:
    rows = [ready(f"s{number}", f"p{number}", priority=0) for number in range(50)]
    assert len(offered(*rows).take(50)) == 50


def test_another_look_is_wanted_when_a_line_that_has_more_runs_out_and_not_before() -> None:
    scheduler = Scheduler()
    scheduler.offer([ready("s1", "ann"), ready("s2", "bob"), ready("s3", "cho", term="fall")], [Line(2, "spring")])
    scheduler.take(2)  # one of each term
    assert not scheduler.wants_a_look
    scheduler.take(1)
    assert scheduler.wants_a_look
    scheduler.offer([])
    assert not scheduler.wants_a_look


def test_a_line_of_which_everything_is_under_way_wants_no_look() -> None:
    """Otherwise the table would be looked at all the time while calls are slow."""
    scheduler = offered(ready("s1"))
    scheduler.take(1)
    scheduler.offer([ready("s1")], [Line(2, "spring")])
    assert not scheduler.wants_a_look


@given(backlogs(), st.sets(st.sampled_from(PEOPLE)))
def test_whoever_is_added_is_called_as_if_a_look_had_shown_everybody(rows: list[Ready], later: set[str]) -> None:
    scheduler = offered(*(row for row in rows if row.person not in later))
    assert scheduler.add(row for row in rows if row.person in later)
    assert drained(scheduler) == drained(offered(*rows))


def test_whoever_has_something_to_do_already_is_not_added() -> None:
    scheduler = offered(ready("old"))
    assert not scheduler.add([ready("new"), ready("other", "bob")])
    assert seats(drained(scheduler)) == ["old"]


def test_nobody_is_added_before_those_that_only_the_table_knows() -> None:
    scheduler = Scheduler()
    scheduler.offer([ready("s1")], [Line(2, "spring")])
    assert not scheduler.add([ready("s2", "bob", term="fall")])


def test_whoever_has_a_call_under_way_is_added_for_later() -> None:
    scheduler = offered(ready("s1"))
    [first] = scheduler.take(1)
    assert scheduler.add([ready("s2")])
    assert scheduler.take(1) == []
    scheduler.finish(first, still_ready=False)
    assert seats(scheduler.take(1)) == ["s2"]


@given(st.lists(backlogs(), max_size=5))
def test_what_is_kept_is_what_the_last_look_showed(looks: list[list[Ready]]) -> None:
    scheduler = Scheduler()
    for rows in looks:
        scheduler.offer(rows, [Line(row.priority, row.term) for row in rows])
        assert scheduler.runnable <= len(PEOPLE)
        assert len(scheduler._last_turns) <= len(rows)
        for row in scheduler.take(1):
            scheduler.finish(row, still_ready=True)
