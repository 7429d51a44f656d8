"""Decisions: what the SIS says, what the seats should be."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import keys
from schemas.events import EnrollmentRole, EnrollmentStatus
from services.consumer.nouns import SeatState
from services.consumer.policy.decide import decide, effect_of, fold, next_start
from services.consumer.policy.facts import Enrollment, Override, SectionState, Stamp
from services.consumer.policy.model import Policy, default_text, parse

POLICY = parse(default_text())
STRENGTH = ["deleted", "completed", "inactive", "active"]
START = datetime(2026, 9, 1, tzinfo=UTC)


def stamp(version: int) -> Stamp:
    return Stamp(START + timedelta(seconds=version), version)


def enrollment(
    status: EnrollmentStatus = "enrolled",
    role: EnrollmentRole = "student",
    *,
    section: str = "1001",
    version: int = 1,
    in_section: SectionState | None = None,
    on: date | None = None,
) -> Enrollment:
    family: keys.RoleFamily = "learner" if role in ("student", "auditor") else "staff"
    entity = keys.enrollment_key("main", "PSUNV", "1259", section, "9000001", family)
    return Enrollment(entity, status, role, on, stamp(version), in_section)


def states(*enrollments: Enrollment, policy: Policy = POLICY) -> dict[str, SeatState]:
    """Role and LMS section of each seat, and its state."""
    seats = fold(decide(enrollments, policy, "canvas"))
    return {f"{one.seat.role} {one.seat.lms_section}": one.state for one in seats.values()}


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("enrolled", "active"),
        ("dropped", "deleted"),
        ("withdrawn", "inactive"),
        ("cancelled", "deleted"),
        ("completed", "completed"),
    ],
)
def test_a_status_gives_its_state(status: EnrollmentStatus, state: SeatState) -> None:
    assert states(enrollment(status)) == {"StudentEnrollment PSUNV-1259-1001": state}


def test_the_waiting_list_and_unexplained_roles_give_no_seat() -> None:
    assert states(enrollment("waitlisted"), enrollment(role="other", section="2")) == {}


@pytest.mark.parametrize("status", ["cancelled", "removed"])
def test_a_cancelled_class_removes_its_members(status: str) -> None:
    cancelled = SectionState(status, None, stamp(5))  # type: ignore[arg-type]

    [seat] = fold(decide([enrollment(in_section=cancelled)], POLICY, "canvas")).values()

    assert seat.state == "deleted"
    assert seat.because == stamp(5), "freshness of the removal is measured from the cancellation"


def test_a_cancelled_class_gives_the_waiting_list_no_seat() -> None:
    assert states(enrollment("waitlisted", in_section=SectionState("cancelled", None, stamp(5)))) == {}


@pytest.mark.parametrize("status", ["active", "tentative", "closed"])
def test_a_class_that_takes_place_keeps_its_members(status: str) -> None:
    assert set(states(enrollment(in_section=SectionState(status, None, stamp(1)))).values()) == {"active"}  # type: ignore[arg-type]


def test_another_role_is_another_seat() -> None:
    student, auditor = decide([enrollment()], POLICY, "canvas"), decide([enrollment(role="auditor")], POLICY, "canvas")

    assert student[0].source == auditor[0].source
    assert student[0].seat.ref != auditor[0].seat.ref
    assert auditor[0].seat.base_role == "StudentEnrollment"


def test_strongest_access_wins_where_two_enrollments_share_a_seat() -> None:
    merged = parse(default_text().replace("{institution}-{term}-{section}", "{term}-{section:0>3}"))
    one, other = enrollment("dropped", section="1", version=9), enrollment("enrolled", section="01", version=2)

    [seat] = fold(decide([one, other], merged, "canvas")).values()

    assert (seat.state, seat.because) == ("active", stamp(2))


ANY = st.lists(
    st.builds(
        enrollment,
        st.sampled_from(get_args(EnrollmentStatus)),
        st.sampled_from(get_args(EnrollmentRole)),
        section=st.sampled_from(["1", "01", "2", "3"]),
        version=st.integers(1, 20),
        in_section=st.none()
        | st.builds(
            SectionState,
            st.sampled_from(["active", "tentative", "closed", "cancelled", "removed"]),
            st.none(),
            st.builds(stamp, st.integers(1, 20)),
        ),
    ),
    max_size=6,
    unique_by=lambda one: one.entity,
)
MERGING = parse(default_text().replace("{institution}-{term}-{section}", "{term}-{section:0>3}"))


@given(ANY, st.data())
def test_the_order_of_the_entities_does_not_matter(enrollments: list[Enrollment], data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(enrollments))

    assert decide(shuffled, MERGING, "canvas") == decide(enrollments, MERGING, "canvas")
    assert fold(decide(shuffled, MERGING, "canvas")) == fold(decide(enrollments, MERGING, "canvas"))


@given(ANY)
def test_a_seat_is_as_strong_as_its_strongest_entitlement_and_only_that(enrollments: list[Enrollment]) -> None:
    entitlements = decide(enrollments, MERGING, "canvas")

    for ref, seat in fold(entitlements).items():
        given_states = [one.state for one in entitlements if one.seat.ref == ref]
        assert STRENGTH.index(seat.state) == max(STRENGTH.index(state) for state in given_states)


def override(state: SeatState, role: EnrollmentRole = "student", *, section: str = "1001", number: int = 1) -> Override:
    return Override(number, "main", "9000001", f"PSUNV/1259/{section}", role, state, START + timedelta(seconds=number))


OVERRIDES = st.lists(
    st.builds(
        override,
        st.sampled_from(get_args(SeatState)),
        st.sampled_from(get_args(EnrollmentRole)),
        section=st.sampled_from(["1", "01", "2", "3"]),
        number=st.integers(1, 20),
    ),
    max_size=4,
    unique_by=lambda one: one.number,
)


@given(ANY, OVERRIDES)
def test_the_newest_override_decides_its_seat_and_no_other(enrollments: list[Enrollment], overrides: list[Override]) -> None:
    """Whatever the entities say, it may be more access or less."""
    without = fold(decide(enrollments, MERGING, "canvas"))
    found = fold(decide(enrollments, MERGING, "canvas", overrides))

    of_overrides: dict[str, SeatState] = {}
    for one in sorted(overrides):
        for given_seat in decide([], MERGING, "canvas", [one]):
            of_overrides[given_seat.ref.seat] = one.state
    expected = {ref.seat: seat.state for ref, seat in without.items()} | of_overrides
    assert {ref.seat: seat.state for ref, seat in found.items()} == expected


@given(ANY, OVERRIDES, st.data())
def test_the_order_of_overrides_does_not_matter(
    enrollments: list[Enrollment], overrides: list[Override], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(overrides))

    assert decide(enrollments, MERGING, "canvas", shuffled) == decide(enrollments, MERGING, "canvas", overrides)


def test_an_override_of_a_role_that_the_policy_gives_no_seat_gives_none() -> None:
    assert decide([], POLICY, "canvas", [override("active", "other")]) == []


WAITING = parse(default_text().replace("starts: at_once", "starts: {on_the_day_in: America/New_York}"))
DATED = st.lists(
    st.builds(
        enrollment,
        st.sampled_from(get_args(EnrollmentStatus)),
        st.sampled_from(get_args(EnrollmentRole)),
        section=st.sampled_from(["1", "2", "3"]),
        on=st.none() | st.dates(date(2026, 8, 28), date(2026, 9, 5)),
    ),
    max_size=4,
    unique_by=lambda one: one.entity,
)


@given(DATED, st.integers(0, 6 * 24))
def test_time_alone_changes_a_decision_at_the_next_start_and_not_before(enrollments: list[Enrollment], hours: int) -> None:
    now = START - timedelta(days=3) + timedelta(hours=hours)
    at = next_start(enrollments, WAITING, now)

    def decided(moment: datetime) -> dict[str, SeatState]:
        found = fold(decide(enrollments, WAITING, "canvas", now=moment)).values()
        return {one.ref.seat: one.state for one in found}

    if at is None:
        assert decided(now) == decided(now + timedelta(days=1000)) == states_by_seat(enrollments)
    else:
        assert decided(now) == decided(at - timedelta(microseconds=1))
        assert set(decided(at)) > set(decided(now))


def states_by_seat(enrollments: list[Enrollment]) -> dict[str, SeatState]:
    """Without any clock."""
    return {one.ref.seat: one.state for one in fold(decide(enrollments, WAITING, "canvas")).values()}


def test_a_day_begins_where_the_policy_says() -> None:
    begins = next_start([enrollment(on=date(2026, 9, 2))], WAITING, START)

    assert begins is not None
    assert begins.astimezone(UTC) == datetime(2026, 9, 2, 4, tzinfo=UTC)


@pytest.mark.parametrize("status", ["dropped", "withdrawn", "cancelled", "completed"])
def test_only_access_waits_for_its_day(status: EnrollmentStatus) -> None:
    later = enrollment(status, on=date(2030, 1, 1))

    assert decide([later], WAITING, "canvas", now=START) == decide([later], POLICY, "canvas")
    assert next_start([later], WAITING, START) is None


@given(ANY)
def test_an_entity_gives_at_most_one_seat(enrollments: list[Enrollment]) -> None:
    entitlements = decide(enrollments, MERGING, "canvas")

    assert len({one.source for one in entitlements}) == len(entitlements)


@pytest.mark.parametrize(
    ("before", "after", "effect"),
    [
        (None, "active", "add"),
        ("deleted", "active", "add"),
        ("inactive", "active", "add"),
        (None, "deleted", "drop"),
        ("active", "deleted", "drop"),
        ("active", "inactive", "drop"),
        ("deleted", "inactive", "update"),
        ("active", "completed", "update"),
    ],
)
def test_effects(before: SeatState | None, after: SeatState, effect: str) -> None:
    assert effect_of(before, after) == effect
