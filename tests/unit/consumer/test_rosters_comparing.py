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
    ours: bool = True,
    accountless: bool = False,
) -> KnownSeat:
    """A settled seat of a live term, unless told otherwise."""
    key = f"S/{user}/{role}"
    section = "PSUNV/1259/1001"
    return KnownSeat(
        key,
        f"id-{user}",
        section,
        user,
        role,
        role,
        desired,
        applied or desired,
        live,
        ours,
        settled,
        moving,
        queued,
        accountless,
    )


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


def test_a_stranger_who_is_on_two_pages_is_one() -> None:
    assert kinds(compared([], [row("p7", "deleted"), row("p7"), row("p7")])) == [("row e-p7-StudentEnrollment", "extra_manual")]
    assert kinds(compared([seat()], [row(role="TaEnrollment"), row(role="TaEnrollment")])) == [
        ("S/p1/StudentEnrollment", "wrong_role")
    ]


def test_what_the_roster_lacks_is_proven_when_the_seat_was_read_and_has_a_user() -> None:
    def proven(*rows: RosterRow, accountless: tuple[str, ...] = (), **reads: Observation) -> bool:
        keys = {f"S/{user}/{STUDENT}": seen for user, seen in reads.items()}
        found = compare([seat(), seat("p2")], rows, keys, [STUDENT], [f"S/{user}/{STUDENT}" for user in accountless])
        (one,) = (one for one in found.differences if one.seat and one.seat.lms_user == "p1")
        return one.proven

    absent = Observation("absent")
    assert proven(row("p2"), p1=absent)
    assert proven(row(state="deleted"))
    assert not proven(row("p2"), accountless=("p1",), p1=absent)
    assert not proven()


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
    assert [one.certain for one in found.differences] == [False]

    is_them = compared([mine], [row("other-id")], p1=row("other-id").observation)
    assert is_them == Comparison({}, [], set(), set())
    is_not = compared([mine], [row("other-id")], p1=Observation("absent"))
    assert kinds(is_not) == [(mine.seat, "missing"), ("row e-other-id-StudentEnrollment", "extra_manual")]
    assert [one.certain for one in is_not.differences] == [True, True]


@pytest.mark.parametrize("busy", [seat(moving=True), seat(settled=False), seat(live=False, moving=True)])
def test_a_seat_at_work_may_be_the_stranger_as_well(busy: KnownSeat) -> None:
    """Otherwise its own enrollment, under another id, would be removed as somebody else's."""
    found = compared([busy], [row("other-id")])
    assert (found.doubtful, [one.certain for one in found.differences]) == ({busy.seat}, [False])
    is_them = compared([busy], [row("other-id")], p1=row("other-id").observation)
    assert is_them == Comparison({}, [], set(), {busy.seat})


def test_while_somebody_has_no_account_a_stranger_may_be_them() -> None:
    """Their id was changed in the LMS first, for example. Asking again would cost calls for each of thousands."""
    waiting = seat(settled=False, accountless=True)
    found = compared([waiting], [row("new-id")])
    assert (found.doubtful, found.untold) == (set(), {waiting.seat})
    assert [one.certain for one in found.differences] == [False]

    settled = seat()
    asked = compare([settled], [row("new-id")], {settled.seat: Observation("absent")}, [STUDENT], {settled.seat})
    assert [(one.kind, one.certain) for one in asked.differences] == [("missing", True), ("extra_manual", False)]


def test_a_seat_at_work_is_not_asked_for_without_a_stranger() -> None:
    assert compared([seat(), seat("p2", settled=False)], [row()]).doubtful == set()


def test_two_people_of_the_student_system_may_be_one_of_the_lms() -> None:
    """The roster shows one id; a read of the other one's seat finds the same row."""
    seats = [seat(), seat("p2")]
    found = compared(seats, [row()])
    assert (found.doubtful, kinds(found)) == ({seats[1].seat}, [])
    assert kinds(compared(seats, [row()], p2=row().observation)) == []


def test_a_removed_seat_is_looked_for_only_while_there_are_strangers() -> None:
    gone = seat("p2", "deleted", "absent")
    assert compared([seat(), gone], [row()]).doubtful == set()
    assert compared([seat(), gone], [row(), row("p9")]).doubtful == {gone.seat}


def test_who_was_put_there_again_by_hand_is_extra_again() -> None:
    taken_over = seat(desired="deleted", ours=False)
    assert kinds(compared([taken_over], [row()])) == [(taken_over.seat, "extra_manual")]
    assert kinds(compared([taken_over], [row(sis=True)])) == [(taken_over.seat, "extra_sis")]
    assert kinds(compared([taken_over], [row(state="deleted")])) == []


def test_a_deleted_stranger_raises_no_doubt() -> None:
    assert compared([seat()], [row("other-id", "deleted")]).doubtful == set()


def test_a_section_that_matches_nothing_is_compared_in_no_time() -> None:
    """A wrong template for users: each of thousands is missing, and each is a stranger."""
    seats = [seat(f"p{number}", role=f"{STUDENT}") for number in range(5000)]
    rows = [row(f"x{number}", role="TaEnrollment") for number in range(5000)]
    assert len(compared(seats, rows).differences) == 5000


def test_of_two_rows_of_one_seat_the_one_that_gives_access_counts() -> None:
    assert kinds(compared([seat(desired="deleted")], [row(state="deleted"), row(state="active")])) == [
        ("S/p1/StudentEnrollment", "wrong_state")
    ]
