"""Which seats a difference is about when what the LMS shows is to hold."""

from __future__ import annotations

import pytest

from services.consumer.nouns import AppliedState, SeatState, seat_key
from services.consumer.policy.model import default_text, parse
from services.consumer.rosters.acceptance import ShownSeat, acceptable
from services.consumer.rosters.comparing import Difference, KnownSeat
from services.consumer.targets.port import Observation, ObservedState, RosterRow

POLICY = parse(default_text())
STUDENT, TEACHER = "StudentEnrollment", "TeacherEnrollment"


def seat(desired: SeatState = "active", applied: AppliedState = "active", *, live: bool = True) -> KnownSeat:
    return KnownSeat(
        seat=seat_key("S-1", "p1", STUDENT),
        person="p1",
        section="PSUNV/1259/S-1",
        lms_user="p1",
        role=STUDENT,
        base_role=STUDENT,
        desired=desired,
        applied=applied,
        live=live,
        ours=True,
        settled=True,
        moving=False,
        queued=False,
        accountless=False,
    )


def row(user: str | None = "p9", role: str = STUDENT, state: ObservedState = "active", base: str | None = None) -> RosterRow:
    return RosterRow(user, role, base or role, Observation(state, "e-1", "c-1"))


def accepted(one: Difference) -> list[ShownSeat]:
    return acceptable(one, "S-1", "main", POLICY)


@pytest.mark.parametrize("shown", ["inactive", "completed", "deleted", "absent"])
def test_a_seat_that_somebody_changed_is_as_it_is_shown(shown: ObservedState) -> None:
    mine = seat()
    assert accepted(Difference("wrong_state", mine, None, shown)) == [ShownSeat(mine.seat, STUDENT, STUDENT, shown)]


def test_in_shadow_nothing_is_confirmed_and_what_is_shown_is_believed() -> None:
    (shown,) = accepted(Difference("wrong_state", seat(applied="completed", live=False), None, "completed"))
    assert shown.state == "completed"


def test_somebody_elses_row_is_a_seat_with_its_ids() -> None:
    key = seat_key("S-1", "p9", STUDENT)
    assert accepted(Difference("extra_manual", None, row(), "active")) == [
        ShownSeat(key, STUDENT, STUDENT, "active", "e-1", "c-1")
    ]


def test_of_a_wrong_role_both_seats_or_none() -> None:
    mine = seat()
    assert [(one.role, one.state) for one in accepted(Difference("wrong_role", mine, row("p1", TEACHER), "deleted"))] == [
        (STUDENT, "deleted"),
        (TEACHER, "active"),
    ]
    assert accepted(Difference("wrong_role", mine, row("p1", TEACHER, "other"), "deleted")) == []


@pytest.mark.parametrize(
    "one",
    [
        Difference("missing", seat(applied="absent"), None, "absent"),
        Difference("missing", seat(), None, "absent", proven=False),
        Difference("wrong_state", seat(), None, "other"),
        Difference("extra_manual", None, row(state="other"), "other"),
        Difference("extra_manual", None, row(role="Visitor", base=STUDENT), "active"),
        Difference("extra_sis", None, row(role="DesignerEnrollment"), "active"),
        Difference("unknown_user", None, row(None), "active"),
    ],
    ids=["never done", "not read", "invited", "invited stranger", "role of its own", "role of nobody", "no id"],
)
def test_what_no_override_could_say_or_nobody_changed_is_not_accepted(one: Difference) -> None:
    assert accepted(one) == []


def test_somebody_whose_id_does_not_fit_the_template_is_not_accepted() -> None:
    policy = parse(default_text().replace('user: "{person}"', 'user: "emp-{person}"'))
    assert acceptable(Difference("extra_manual", None, row(), "active"), "S-1", "main", policy) == []
    assert acceptable(Difference("extra_manual", None, row("emp-1"), "active"), "S-1", "main", policy)
