"""Several sections of one course: what they mean for one another."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import keys
from schemas.events import EnrollmentRole, EnrollmentStatus
from services.consumer.nouns import SeatState
from services.consumer.policy.courses import LEFT
from services.consumer.policy.decide import decide, fold
from services.consumer.policy.facts import Enrollment, Entitlement, Override, SectionState, Stamp
from services.consumer.policy.model import Policy, default_text, parse

POLICY = parse(default_text())
BY_STATUS = parse(default_text().replace("left_behind: deleted", "left_behind: by_status"))
MATH, ART = "PSUNV/MATH1", "PSUNV/ART1"
START = datetime(2026, 9, 1, tzinfo=UTC)


def stamp(version: int) -> Stamp:
    return Stamp(START + timedelta(seconds=version), version)


def enrollment(
    section: str,
    status: EnrollmentStatus = "enrolled",
    role: EnrollmentRole = "student",
    *,
    course: str | None = MATH,
    component: str | None = "LEC",
    version: int = 1,
    on: date | None = None,
    takes_place: bool = True,
) -> Enrollment:
    family: keys.RoleFamily = "learner" if role in ("student", "auditor") else "staff"
    entity = keys.enrollment_key("main", "PSUNV", "1259", section, "9000001", family)
    state = SectionState("active" if takes_place else "cancelled", course, stamp(version), "001", component)
    return Enrollment(entity, status, role, on, stamp(version), state)


def override(section: str, state: SeatState, *, course: str | None = MATH) -> Override:
    return Override(1, "main", "9000001", f"PSUNV/1259/{section}", "student", state, START, course)


def seats(*enrollments: Enrollment, policy: Policy = POLICY, overrides: tuple[Override, ...] = ()) -> dict[str, SeatState]:
    """Section and role of each seat, and its state."""
    found = fold(decide(enrollments, policy, "canvas", overrides)).values()
    return {f"{keys.split(one.seat.section)[2]} {one.seat.role}": one.state for one in found}


# A seat that was left behind


@pytest.mark.parametrize("left", ["withdrawn", "completed"])
def test_who_has_left_a_section_and_is_in_another_of_the_course_is_only_there(left: EnrollmentStatus) -> None:
    found = fold(decide([enrollment("1", left, version=3), enrollment("2", version=9)], POLICY, "canvas"))

    by_section = {one.seat.section: one for one in found.values()}
    assert by_section["PSUNV/1259/1"].state == "deleted"
    assert by_section["PSUNV/1259/1"].because == stamp(9), "the later of the two changes has removed it"
    assert by_section["PSUNV/1259/2"].state == "active"


def test_the_policy_may_leave_it_as_the_status_says() -> None:
    assert seats(enrollment("1", "withdrawn"), enrollment("2"), policy=BY_STATUS) == {
        "1 StudentEnrollment": "inactive",
        "2 StudentEnrollment": "active",
    }


@pytest.mark.parametrize("other", [ART, None])
def test_another_course_is_another_matter(other: str | None) -> None:
    """And so is one that the student system has not told yet."""
    assert seats(enrollment("1", "withdrawn"), enrollment("2", course=other))["1 StudentEnrollment"] == "inactive"
    assert seats(enrollment("1", "withdrawn", course=None), enrollment("2", course=other))["1 StudentEnrollment"] == "inactive"


def test_who_has_left_all_sections_stays_listed_in_them() -> None:
    assert set(seats(enrollment("1", "withdrawn"), enrollment("2", "withdrawn")).values()) == {"inactive"}


def test_whoever_assists_in_the_course_is_still_listed_as_a_student_who_left() -> None:
    assert seats(enrollment("1", "withdrawn"), enrollment("2", role="assistant")) == {
        "1 StudentEnrollment": "inactive",
        "2 TaEnrollment": "active",
    }


def test_an_auditor_is_a_student_of_the_platform() -> None:
    assert seats(enrollment("1", "withdrawn"), enrollment("2", role="auditor")) == {
        "1 StudentEnrollment": "deleted",
        "2 Auditor": "active",
    }


def test_access_by_an_override_counts_and_its_own_word_stands() -> None:
    left, present = enrollment("1", "withdrawn"), enrollment("2")

    assert seats(left, overrides=(override("2", "active"),))["1 StudentEnrollment"] == "deleted"
    assert seats(left, present, overrides=(override("2", "deleted"),))["1 StudentEnrollment"] == "inactive"
    assert seats(left, present, overrides=(override("1", "inactive"),)) == {
        "1 StudentEnrollment": "inactive",
        "2 StudentEnrollment": "active",
    }


# Secondary sections


def test_a_secondary_section_follows_the_withdrawal_from_the_primary_one() -> None:
    lecture, laboratory = enrollment("1", "withdrawn", version=9), enrollment("1L", component="LAB", version=2)

    found = fold(decide([lecture, laboratory], POLICY, "canvas"))

    assert {(one.seat.section, one.state, one.because) for one in found.values()} == {
        ("PSUNV/1259/1", "inactive", stamp(9)),
        ("PSUNV/1259/1L", "inactive", stamp(9)),
    }


def test_its_date_is_that_of_the_withdrawal() -> None:
    by_census = parse(
        default_text().replace("withdrawn: inactive", "withdrawn: {until_census: removal, after_census: inactive}")
        + '\ncensus:\n  - {institution: PSUNV, term: "1259", day: 2026-09-15}\n'
    )
    laboratory = enrollment("1L", component="LAB", on=date(2026, 8, 20))

    before, after = (enrollment("1", "withdrawn", on=date(2026, 9, day)) for day in (15, 16))

    assert seats(before, laboratory, policy=by_census)["1L StudentEnrollment"] == "deleted"
    assert seats(after, laboratory, policy=by_census)["1L StudentEnrollment"] == "inactive"


def test_who_leaves_a_secondary_section_alone_leaves_nothing_else() -> None:
    for gone in ("dropped", "withdrawn"):
        assert seats(enrollment("1"), enrollment("1L", gone, component="LAB")) == {
            "1 StudentEnrollment": "active",
            "1L StudentEnrollment": "deleted",
        }


def test_who_left_it_before_the_lecture_is_as_they_left_it() -> None:
    found = seats(enrollment("1", "withdrawn"), enrollment("1L", "dropped", component="LAB"))

    assert found["1L StudentEnrollment"] == "deleted"


@pytest.mark.parametrize(("left", "taken"), [("1", "2"), ("2", "1")])
def test_another_lecture_keeps_the_laboratory(left: str, taken: str) -> None:
    found = seats(enrollment(left, "withdrawn"), enrollment(taken), enrollment("1L", component="LAB"))

    assert found == {
        f"{left} StudentEnrollment": "deleted",
        f"{taken} StudentEnrollment": "active",
        "1L StudentEnrollment": "active",
    }


@pytest.mark.parametrize(
    "lecture",
    [
        enrollment("1", "withdrawn", course=ART),
        enrollment("1", "withdrawn", course=None),
        enrollment("1", "withdrawn", component="DIS"),
        enrollment("1", "dropped"),
        enrollment("1", takes_place=False),
        enrollment("1", "withdrawn", "assistant"),
    ],
)
def test_it_stands_by_itself_where_nothing_leads_it(lecture: Enrollment) -> None:
    """Another course, one that is not known, another secondary section, a status that the policy does not name, another role."""
    assert seats(lecture, enrollment("9", component="LAB"))["9 StudentEnrollment"] == "active"


def test_the_policy_says_what_is_followed() -> None:
    wide = parse(default_text().replace("follow: [withdrawn]", "follow: [withdrawn, cancelled, dropped]"))
    laboratory = enrollment("1L", component="LAB")

    assert seats(enrollment("1", takes_place=False), laboratory, policy=wide)["1L StudentEnrollment"] == "deleted"
    assert seats(enrollment("1", "dropped"), laboratory, policy=wide)["1L StudentEnrollment"] == "deleted"
    assert seats(enrollment("1", "waitlisted"), laboratory, policy=wide)["1L StudentEnrollment"] == "active"


def test_who_teaches_the_laboratory_follows_nobody() -> None:
    found = seats(enrollment("1", "withdrawn"), enrollment("1L", role="assistant", component="LAB"))

    assert found["1L TaEnrollment"] == "active"


# Combined sections

COMBINED = '\ncombined:\n  - {institution: PSUNV, term: "1259", combined: "0018", sections: ["1", "2"]}\n'
ONE_COURSE = parse(default_text() + COMBINED)
ONE_SECTION = parse(
    (default_text() + COMBINED).replace('term}-{section}"', 'term}-{section}"\n  combined: "{institution}-{term}-C{combined}"', 1)
)


def test_combined_sections_may_be_one_of_the_platform() -> None:
    found = decide([enrollment("1", "dropped"), enrollment("2", course=ART), enrollment("3")], ONE_SECTION, "canvas")

    assert [one.seat.lms_section for one in found] == ["PSUNV-1259-C0018", "PSUNV-1259-C0018", "PSUNV-1259-3"]
    assert [one.state for one in fold(found).values()] == ["active", "active"], "the strongest of the two is what the seat is"
    assert ONE_SECTION.lms_section("main", "PSUNV/1259/2") == "PSUNV-1259-C0018"
    assert ONE_SECTION.lms_section("main", "PSUNV/1261/2") == "PSUNV-1261-2", "another term's number 2 is another section"


def test_a_section_of_the_platform_has_its_classes_in_the_order_of_the_policy() -> None:
    assert ONE_SECTION.combined_in("main", "PSUNV-1259-C0018") == ["PSUNV/1259/1", "PSUNV/1259/2"]
    assert ONE_SECTION.combined_in("main", "PSUNV-1259-3") == []
    assert ONE_COURSE.combined_in("main", "PSUNV-1259-1") == [], "each has its own"


def test_or_sections_of_one_course() -> None:
    found = fold(decide([enrollment("1", "withdrawn"), enrollment("2", course=ART)], ONE_COURSE, "canvas")).values()

    assert {one.seat.lms_section: one.state for one in found} == {"PSUNV-1259-1": "deleted", "PSUNV-1259-2": "active"}
    assert (
        seats(enrollment("1", "withdrawn"), enrollment("3", course=ART), policy=ONE_COURSE)["1 StudentEnrollment"] == "inactive"
    )


# Whatever comes together

ANY = st.lists(
    st.builds(
        enrollment,
        st.sampled_from(["1", "2", "3", "4"]),
        st.sampled_from(get_args(EnrollmentStatus)),
        st.sampled_from(get_args(EnrollmentRole)),
        course=st.sampled_from([MATH, ART, None]),
        component=st.sampled_from(["LEC", "LAB", None]),
        version=st.integers(1, 20),
        on=st.none() | st.dates(date(2026, 9, 1), date(2026, 9, 5)),
        takes_place=st.booleans(),
    ),
    max_size=6,
    unique_by=lambda one: one.entity,
)


@given(ANY, st.sampled_from([POLICY, ONE_COURSE, ONE_SECTION]), st.data())
def test_the_order_of_the_entities_does_not_matter(enrollments: list[Enrollment], policy: Policy, data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(enrollments))

    assert decide(shuffled, policy, "canvas") == decide(enrollments, policy, "canvas")


@given(ANY)
def test_nobody_has_access_in_a_course_that_they_have_left_and_nobody_loses_access_by_that(enrollments: list[Enrollment]) -> None:
    found, without = fold(decide(enrollments, POLICY, "canvas")), fold(decide(enrollments, BY_STATUS, "canvas"))

    def places(states: frozenset[SeatState]) -> set[tuple[str | None, str]]:
        return {(one.seat.course, one.seat.base_role) for one in found.values() if one.state in states and one.seat.course}

    assert places(LEFT).isdisjoint(places(frozenset({"active"})))
    changed: list[tuple[Entitlement, Entitlement]] = [
        (without[ref], one) for ref, one in found.items() if one.state != without[ref].state
    ]
    assert found.keys() == without.keys()
    assert all(before.state in LEFT and after.state == "deleted" for before, after in changed)
