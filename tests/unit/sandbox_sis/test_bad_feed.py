"""The bad feed: nearly all of one class, while the SIS's own tables say nothing of it."""

from __future__ import annotations

from services.sandbox.sis.bad_feed import plan_bad_feed
from services.sandbox.sis.morning import plan_morning
from services.sandbox.sis.truth import roster


def test_it_drops_all_members_of_the_largest_class_but_one_and_takes_them_back() -> None:
    morning = plan_morning(7, 300, 60, 40)
    before = roster(morning.school)

    feed = plan_bad_feed(morning)

    assert feed is not None
    assert feed.dropped == feed.members - 1 >= 11
    assert [row.fields["STDNT_ENRL_STATUS"] for row in feed.wrong.rows] == ["D"] * feed.dropped
    people = [row.fields["EMPLID"] for row in feed.wrong.rows]
    assert people == [row.fields["EMPLID"] for row in feed.right.rows]
    assert {row.fields["STDNT_ENRL_STATUS"] for row in feed.right.rows} == {"E"}
    assert roster(morning.school) == before | {feed.newcomer}


def test_a_school_of_small_classes_has_none() -> None:
    assert plan_bad_feed(plan_morning(7, 10, 60, 5)) is None
