"""What a person's sections of one course mean for one another. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

from schemas.events import STRONGEST_FIRST
from schemas.keys import EntityKey
from services.consumer.nouns import Seat, SeatRef, SeatState
from services.consumer.policy.course_rules import Secondaries
from services.consumer.policy.facts import Enrollment, Entitlement, Stamp, status_of
from services.consumer.policy.model import Policy

LEFT: frozenset[SeatState] = frozenset({"inactive", "completed"})
"""What a seat may be that somebody has left, and is still listed in."""

_Course = tuple[str, str]
"""Term and course key text: a course id need not say of which term it is."""


def follow_primaries(enrollments: Sequence[Enrollment], policy: Policy) -> Sequence[Enrollment]:
    """The enrollments, those in secondary sections as their primary section has it where the policy has them follow.

    The strongest of the person's primary sections of a course leads, whichever those are. Its date goes with its status: both
    are of one change.
    """
    rule = policy.secondaries
    if rule is None or not any(_may_follow(one, rule) for one in enrollments):
        return enrollments
    leading: dict[_Course, Enrollment] = {}
    for one in enrollments:
        course = _course_of(one)
        if course is not None and one.is_learner and not _is_secondary(one, rule):
            leading[course] = max(leading.get(course, one), one, key=_strength)
    return [_follow(one, leading, rule) if _may_follow(one, rule) else one for one in enrollments]


def left_behind(seats: Mapping[SeatRef, Entitlement], policy: Policy) -> dict[SeatRef, Stamp]:
    """Seats that their person has left, while another seat of the same base role gives access in the same course; and the newest
    event behind that one. What an override says stays as it says it."""
    active = [one for one in seats.values() if one.state == "active"]
    found: dict[SeatRef, Stamp] = {}
    for ref, left in seats.items():
        if left.state in LEFT and left.source.kind != "override":
            stamps = [one.because for one in active if _belong_together(left.seat, one.seat, policy)]
            if stamps:
                found[ref] = max(stamps)
    return found


def _belong_together(one: Seat, other: Seat, policy: Policy) -> bool:
    """Roles of one base type in what is one course of the LMS, as far as the SIS and the policy say."""
    if one.base_role != other.base_role or _term_of(one.section) != _term_of(other.section):
        return False
    combined = policy.combined_as(one.section)
    return (one.course is not None and one.course == other.course) or (
        combined is not None and combined == policy.combined_as(other.section)
    )


def _is_secondary(one: Enrollment, rule: Secondaries) -> bool:
    return one.section is not None and one.section.component in rule.components


def _may_follow(one: Enrollment, rule: Secondaries) -> bool:
    """Only what would give a place in the class: who has left a laboratory by themselves has left it."""
    return _is_secondary(one, rule) and one.is_learner and status_of(one) in ("enrolled", "completed")


def _follow(one: Enrollment, leading: Mapping[_Course, Enrollment], rule: Secondaries) -> Enrollment:
    course = _course_of(one)
    primary = leading.get(course) if course is not None else None
    if primary is None or status_of(primary) not in rule.follow:
        return one
    stamp = max(one.stamp, primary.newest)
    return one._replace(status=status_of(primary), effective_date=primary.effective_date, stamp=stamp)


def _strength(one: Enrollment) -> tuple[int, date, EntityKey]:
    return -STRONGEST_FIRST.index(status_of(one)), one.effective_date or date.min, one.entity


def _course_of(one: Enrollment) -> _Course | None:
    """None while the SIS has not said."""
    course = one.section.course if one.section else None
    return None if course is None else (_term_of(one.entity.section), course)


def _term_of(section: str) -> str:
    """Term key text of a section key text."""
    return section.rsplit("/", 1)[0]
