"""What a roster says about a section's seats."""

from __future__ import annotations

import pytest

from services.consumer.nouns import AppliedState, SeatState
from services.consumer.rosters.comparing import Comparison, KnownSeat, compare
from services.consumer.targets.port import Observation, ObservedState, RosterRow

STUDENT = "StudentEnrollment"


def seat(
    user: str = "p1",
    desired: SeatState = "active",
    applied: AppliedState | None = None,
    *,
    role: str = STUDENT,
    live: bool = True,
    settled: bool = True,
    moving: bool = False,
    queued: bool = False,
) -> KnownSeat:
    """A settled seat of a live term, unless told otherwise."""
    key = f"S/{user}/{role}"
    return KnownSeat(key, f"id-{user}", user, role, role, desired, applied or desired, live, settled, moving, queued)


def row(user: str | None = "p1", state: ObservedState = "active", *, role: str = STUDENT, sis: bool = False) -> RosterRow:
    return RosterRow(user, role, role, Observation(state, f"e-{user}-{role}", "c1", sis))


def compared(seats: list[KnownSeat], rows: list[RosterRow], **reads: Observation) -> Comparison:
    return compare(seats, rows, {f"S/{user}/{STUDENT}": seen for user, seen in reads.items()}, [STUDENT])


def kinds(comparison: Comparison) -> list[tuple[str, str]]:
    return [(one.subject, one.kind) for one in comparison.differences]


def test_a_section_as_it_should_be_shows_nothing() -> None:
    found = compared(
        [seat(), seat("p2", "deleted"), seat("p3", "inactive")], [row(), row("p2", "deleted"), row("p3", "inactive")]
    )
    assert found == Comparison({}, [], set(), set())


@pytest.mark.parametrize(
    ("desired", "shown", "kind"),
    [
        ("active", "deleted", "missing"),
        ("active", "completed", "wrong_state"),
        ("active", "other", "wrong_state"),
        ("inactive", "active", "wrong_state"),
        ("deleted", "active", "wrong_state"),
        ("completed", "deleted", "missing"),
    ],
)
def test_a_settled_seat_that_differs_was_changed_by_somebody(desired: SeatState, shown: ObservedState, kind: str) -> None:
    found = compared([seat(desired=desired)], [row(state=shown)])
    assert kinds(found) == [("S/p1/StudentEnrollment", kind)]
    assert found.differences[0].confirmed
    assert found.learnt == {}


def test_a_row_that_is_not_there_is_as_good_as_a_deleted_one() -> None:
    assert kinds(compared([seat(desired="deleted")], [])) == []
    assert kinds(compared([seat()], [])) == [("S/p1/StudentEnrollment", "missing")]


def test_what_nobody_has_looked_at_is_learnt() -> None:
    unseen = seat(applied="unknown", settled=False, queued=True)
    found = compared([unseen], [row()])
    assert {key: seen.state for key, seen in found.learnt.items()} == {unseen.seat: "active"}
    assert compared([unseen], []).learnt[unseen.seat].state == "absent"
    assert kinds(compared([unseen], [])) == []


@pytest.mark.parametrize(
    "busy",
    [
        seat(moving=True),
        seat(settled=False),
        seat(applied="unknown", settled=False),
        seat(live=False, moving=True),
        seat(applied="unknown", settled=False, queued=True, moving=True),
    ],
)
def test_of_a_seat_in_motion_or_at_work_a_roster_says_nothing(busy: KnownSeat) -> None:
    found = compared([busy], [row(state="completed")])
    assert found == Comparison({}, [], set(), {busy.seat})


def test_in_shadow_the_lms_is_believed_and_what_differs_is_told() -> None:
    mine = seat(live=False, settled=False)
    found = compared([mine], [row(state="inactive")])
    assert found.learnt[mine.seat].state == "inactive"
    assert kinds(found) == [(mine.seat, "wrong_state")]
    assert not found.differences[0].confirmed


def test_who_has_access_without_a_seat_is_extra() -> None:
    rows = [
        row("p7"),
        row("p8", sis=True),
        row(None),
        row("p9", "deleted"),
        row("p6", role="TaEnrollment"),
        row("p5", "inactive"),
    ]
    assert kinds(compared([], rows)) == [
        ("row e-p7-StudentEnrollment", "extra_manual"),
        ("row e-p8-StudentEnrollment", "extra_sis"),
        ("row e-None-StudentEnrollment", "unknown_user"),
    ]


def test_a_person_in_another_role_only_is_one_difference() -> None:
    found = compared([seat()], [row(role="TaEnrollment")])
    assert kinds(found) == [("S/p1/StudentEnrollment", "wrong_role")]
    assert found.differences[0].row is not None
    twice = compared([seat()], [row(), row(role="TaEnrollment")])
    assert kinds(twice) == []


def test_a_seat_is_not_missing_while_a_stranger_may_be_its_person() -> None:
    mine = seat()
    found = compared([mine], [row("other-id")])
    assert (found.doubtful, kinds(found)) == ({mine.seat}, [("row e-other-id-StudentEnrollment", "extra_manual")])

    is_them = compared([mine], [row("other-id")], p1=row("other-id").observation)
    assert is_them == Comparison({}, [], set(), set())
    is_not = compared([mine], [row("other-id")], p1=Observation("absent"))
    assert kinds(is_not) == [(mine.seat, "missing"), ("row e-other-id-StudentEnrollment", "extra_manual")]


def test_a_deleted_stranger_raises_no_doubt() -> None:
    assert compared([seat()], [row("other-id", "deleted")]).doubtful == set()


def test_of_two_rows_of_one_seat_the_one_that_gives_access_counts() -> None:
    assert kinds(compared([seat(desired="deleted")], [row(state="deleted"), row(state="active")])) == [
        ("S/p1/StudentEnrollment", "wrong_state")
    ]
