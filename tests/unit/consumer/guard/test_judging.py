"""The guard's verdicts: what goes, what waits, what needs a person."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.consumer.guard.judging import Group, Plan, Scope, Size, Verdict, judge
from services.consumer.policy.guard_rules import GuardRules, Limit, Limits

RULES = {"main": GuardRules()}
SECTION = Scope("section", "main", "PSUNV/1259/1001")
COURSE = Scope("course", "main", "PSUNV/BIO101")
TERM = Scope("term", "main", "PSUNV/1259")
TENANT = Scope("tenant", "main", "")
CANCELLED = Scope("cancelled_section", "main", "PSUNV/1259/1001")


def group(
    size: int,
    section: str = "1001",
    *,
    course: str | None = "BIO101",
    leaves_course: bool = True,
    cancelled: bool = False,
    ripe: bool = True,
    source: str | None = None,
) -> Group:
    key = f"PSUNV/1259/{section}"
    return Group("main", key, course and f"PSUNV/{course}", "PSUNV/1259", leaves_course, cancelled, ripe, size, source)


def big(*scopes: Scope) -> dict[Scope, Size]:
    """A campus on which nothing of this size is much, but for the scopes given."""
    return {TERM: Size(100_000), TENANT: Size(500_000)} | dict.fromkeys(scopes, Size(20))


def passed(verdict: Verdict) -> int:
    return sum(one.group.size for one in verdict.passed)


def held(verdict: Verdict) -> dict[Scope, int]:
    return {one.scope: sum(group.size for group in one.groups) for one in verdict.held}


def test_a_few_drops_go_at_once() -> None:
    verdict = judge([group(4, ripe=False)], big(SECTION, COURSE), [], [], RULES)

    assert (passed(verdict), held(verdict)) == (4, {})


def test_a_source_is_held_by_a_limit_of_its_own() -> None:
    rules = {"main": GuardRules(source=Limits(quarter_hour=Limit(most=3)))}
    extract, live = Scope("source", "main", "snapshot:census"), Scope("source", "main", "ib:PSUNV")
    sizes = big(SECTION, COURSE) | {extract: Size(500_000, quarter_hour=2), live: Size(500_000)}
    groups = [group(2, source="snapshot:census"), group(2, "1002", source="ib:PSUNV"), group(1, "1003")]

    verdict = judge(groups, sizes, [], [], rules)

    assert (passed(verdict), held(verdict)) == (3, {extract: 2})


def test_half_a_limit_makes_a_burst_wait_to_be_counted() -> None:
    waiting = judge([group(5, ripe=False)], big(SECTION, COURSE), [], [], RULES)
    counted = judge([group(5, ripe=True)], big(SECTION, COURSE), [], [], RULES)

    assert (passed(waiting), held(waiting)) == (0, {})
    assert (passed(counted), held(counted)) == (5, {})


def test_a_section_that_would_lose_half_of_its_members_is_held() -> None:
    verdict = judge([group(10)], big(SECTION, COURSE), [], [], RULES)

    assert (passed(verdict), held(verdict)) == (0, {SECTION: 10})
    cause = verdict.held[0].cause
    assert cause is not None
    assert (cause.window, cause.removals, cause.active, cause.allowed) == ("quarter_hour", 10, 20, "percent 50, at_least 10")


def test_a_burst_is_not_held_before_it_was_counted() -> None:
    """The message that the class was cancelled may be on its way."""
    verdict = judge([group(10, ripe=False)], big(SECTION, COURSE), [], [], RULES)

    assert (passed(verdict), held(verdict)) == (0, {})


def test_what_comes_while_a_burst_is_held_is_held_with_it() -> None:
    verdict = judge([group(10), group(3, ripe=False)], big(SECTION, COURSE), [], [], RULES)

    assert held(verdict) == {SECTION: 13}


def test_other_sections_go_on_beside_a_hold() -> None:
    verdict = judge([group(19), group(1, "1002", course="ART200")], big(SECTION, COURSE), [], [], RULES)

    assert (passed(verdict), held(verdict)) == (1, {SECTION: 19})


def test_what_went_before_counts() -> None:
    sizes = big(COURSE) | {SECTION: Size(12, quarter_hour=8, day=8)}

    assert held(judge([group(1)], sizes, [], [], RULES)) == {}
    assert held(judge([group(2)], sizes, [], [], RULES)) == {SECTION: 2}


def test_a_slow_drip_reaches_the_limit_of_the_day() -> None:
    sizes = {SECTION: Size(4, quarter_hour=0, day=15), TERM: Size(100_000), TENANT: Size(500_000), COURSE: Size(500)}

    verdict = judge([group(1)], sizes, [], [], RULES)

    assert held(verdict) == {SECTION: 1}
    assert verdict.held[0].cause is not None
    assert verdict.held[0].cause.window == "day"


def test_a_term_that_is_dropped_is_one_hold() -> None:
    sections = [group(25, str(number), course=f"C{number}") for number in range(40)]
    sizes = {TERM: Size(1000), TENANT: Size(9000)} | {Scope("section", "main", one.section): Size(26) for one in sections}

    assert held(judge(sections, sizes, [], [], RULES)) == {TERM: 1000}


def test_a_section_that_fills_the_terms_limit_alone_is_held_by_itself() -> None:
    verdict = judge([group(300), group(1, "1002", course="ART200")], big() | {SECTION: Size(310)}, [], [], RULES)

    assert held(verdict) == {SECTION: 300}
    assert passed(verdict) == 0, "the other one is counted again without what is held"


def test_a_move_within_a_course_takes_nothing_from_the_course() -> None:
    many = [group(6, str(number), leaves_course=False) for number in range(100)]

    assert passed(judge(many, {TERM: Size(1000), TENANT: Size(1000)}, [], [], RULES)) == 600


def test_a_hold_that_is_open_takes_all_that_comes() -> None:
    verdict = judge([group(1, ripe=False)], big(SECTION, COURSE), [TERM], [], RULES)

    assert held(verdict) == {TERM: 1}
    assert verdict.held[0].cause is None


def test_a_cancelled_class_goes_at_once_and_is_not_counted() -> None:
    verdict = judge([group(80, cancelled=True, ripe=False)], big() | {CANCELLED: Size(80)}, [SECTION], [], RULES)

    assert (passed(verdict), held(verdict)) == (80, {})
    assert verdict.passed[0].how == "cancelled"


def test_a_large_cancelled_class_is_one_hold_of_its_own_kind() -> None:
    """Also while only a part of its members was decided: the others are still active."""
    verdict = judge([group(30, cancelled=True, ripe=False)], big() | {CANCELLED: Size(300)}, [], [], RULES)

    assert held(verdict) == {CANCELLED: 30}


def test_members_that_went_and_members_that_are_still_counted_are_not_counted_twice() -> None:
    sizes = big() | {CANCELLED: Size(60, day=50)}

    assert passed(judge([group(10, cancelled=True)], sizes, [], [], RULES)) == 10


def test_very_many_cancelled_classes_are_held_together() -> None:
    sections = [group(60, str(number), cancelled=True) for number in range(20)]

    assert held(judge(sections, {}, [], [], RULES)) == {Scope("cancelled_term", "main", "PSUNV/1259"): 1200}


@pytest.mark.parametrize("scope", [SECTION, COURSE, TERM, TENANT])
def test_an_announced_change_goes_within_its_bound(scope: Scope) -> None:
    sizes = big(SECTION, COURSE)

    within = judge([group(20)], sizes, [], [Plan("a", scope, 20)], RULES)
    beyond = judge([group(20)], sizes, [], [Plan("a", scope, 19)], RULES)

    assert [(one.how, one.planned) for one in within.passed] == [("planned", "a")]
    assert held(beyond) == {SECTION: 20}


def test_an_announced_cancellation_of_a_large_class_is_not_held() -> None:
    verdict = judge([group(300, cancelled=True)], big() | {CANCELLED: Size(300)}, [], [Plan("a", SECTION, 300)], RULES)

    assert passed(verdict) == 300


@dataclass
class Campus:
    """Two courses of two sections each, judged once a second over hours; time passes in steps of the test's choice."""

    rules: GuardRules
    active: Counter[tuple[str, str]] = field(default_factory=Counter)
    waiting: list[tuple[float, str, str]] = field(default_factory=list)
    gone: list[tuple[float, str, str]] = field(default_factory=list)
    now: float = 0.0

    def judged(self) -> None:
        sizes = {}
        for scope in {scope for _, section, course in self.waiting for scope in group(1, section, course=course).scopes}:
            went = [at for at, section, course in self.gone if scope in group(1, section, course=course).scopes]
            sizes[scope] = Size(
                sum(count for place, count in self.active.items() if scope in group(1, place[0], course=place[1]).scopes),
                sum(at > self.now - 900 for at in went),
                sum(at > self.now - 86_400 for at in went),
            )
        groups: dict[Group, list[tuple[float, str, str]]] = {}
        for one in self.waiting:
            ripe = self.now - one[0] >= self.rules.wait_seconds
            groups.setdefault(group(1, one[1], course=one[2], ripe=ripe), []).append(one)
        counted = {key._replace(size=len(members)): members for key, members in groups.items()}
        verdict = judge(counted, sizes, [], [], {"main": self.rules})
        for passing in verdict.passed:
            self.gone += [(self.now, section, course) for _, section, course in counted[passing.group]]
        decided = [
            one
            for it in (*(p.group for p in verdict.passed), *(g for h in verdict.held for g in h.groups))
            for one in counted[it]
        ]
        for one in decided:
            self.waiting.remove(one)

    def check(self) -> None:
        """Whatever came, no more went within a window than its limit allows."""
        for kind, allowed in (("section", 4), ("course", 6), ("term", 9)):
            for window in (900.0, 86_400.0):
                most = allowed if window == 900 else allowed * 2
                went: Counter[Scope] = Counter()
                for at, section, course in self.gone:
                    if at > self.now - window:
                        went.update(scope for scope in group(1, section, course=course).scopes if scope.kind == kind)
                assert max(went.values(), default=0) <= most


def limits(most: int) -> Limits:
    return Limits(quarter_hour=Limit(most=most), day=Limit(most=most * 2))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([0.0, 1.0, 30.0, 61.0, 400.0, 1000.0, 20_000.0]),
            st.sampled_from([("1", "A"), ("2", "A"), ("3", "B"), ("4", "B")]),
            st.integers(1, 6),
        ),
        max_size=40,
    )
)
@settings(max_examples=150, deadline=None)
def test_no_sequence_of_removals_passes_more_than_the_limits(feed: list[tuple[float, tuple[str, str], int]]) -> None:
    campus = Campus(GuardRules(section=limits(4), course=limits(6), term=limits(9), tenant=limits(9)))
    campus.active.update(dict.fromkeys([("1", "A"), ("2", "A"), ("3", "B"), ("4", "B")], 20))
    for pause, (section, course), count in feed:
        campus.now += pause
        campus.judged()
        campus.check()
        campus.waiting += [(campus.now, section, course)] * count
        campus.judged()
        campus.check()


def test_a_limit_of_a_percentage_needs_its_floor() -> None:
    with pytest.raises(ValueError, match="belong together"):
        Limit(percent=50)
