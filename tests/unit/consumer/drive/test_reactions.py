"""One reaction for each outcome class."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any, get_args

import pytest

from services.consumer.drive.orders import Order
from services.consumer.drive.reactions import Attempt, NotSent, Settlement, react
from services.consumer.nouns import AppliedState, Seat, SeatState
from services.consumer.targets.port import (
    AlreadySo,
    Concluded,
    Done,
    Failure,
    IdentityMismatch,
    NoPermission,
    NotThere,
    Observation,
    Outcome,
    Refused,
    ServerFault,
    Throttled,
    Unknown,
    Usage,
    WrongShape,
)

ACTIVE, ABSENT = Observation("active", "e1", "c1"), Observation("absent")


def order(desired: SeatState = "active", applied: AppliedState = "absent", *, attempts: int = 0, **changes: Any) -> Order:
    seat = Seat("canvas", "main", "p1", "U/1/S", None, "S", "p1", "StudentEnrollment", "StudentEnrollment")
    values: dict[str, Any] = {
        "intent": "i",
        "key": seat.ref.seat,
        "seat": seat,
        "desired": desired,
        "applied": applied,
        "origin": None,
        "lms_enrollment": None,
        "lms_course": None,
        "call": "write",
        "must_read": applied == "unknown",
        "cleared": True,
        "attempts": attempts,
        "failed_as": None,
        "priority": 2,
        "opened_at": datetime(2026, 9, 1, tzinfo=UTC),
        "send_by": time.monotonic() + 1,
    }
    return Order(**(values | changes))


def wrote(result: Outcome, seen: Observation | None = None, **which: Any) -> Settlement:
    return react(order(**which), Attempt(result, seen, wrote=True), 0)


def read(result: Outcome | NotSent, seen: Observation | None = None, **which: Any) -> Settlement:
    return react(order(**which), Attempt(result, seen, wrote=False), 0)


def essence(settlement: Settlement) -> tuple[str, AppliedState | None, bool, bool]:
    return settlement.then, settlement.applied, settlement.touched, settlement.late


@pytest.mark.parametrize(
    ("result", "expected"),
    [  # (what becomes of the work, what is believed, may have been changed, may still be changed)
        (Done(ACTIVE), ("now", "active", True, False)),
        (AlreadySo(ACTIVE), ("now", "active", False, False)),
        (NotThere("user"), ("wait", None, False, False)),
        (NotThere("section"), ("wait", None, False, False)),
        (NotThere("both"), ("wait", None, False, False)),
        (NotThere("elsewhere"), ("retry", "unknown", True, False)),
        (NoPermission(whole_token=True), ("now", None, False, False)),
        (NoPermission(whole_token=False), ("retry", None, False, False)),
        (Throttled(), ("now", None, False, False)),
        (Refused("validation"), ("dead", None, False, False)),
        (Concluded(), ("dead", None, False, False)),
        (ServerFault("http_500"), ("retry", "unknown", True, False)),
        (Unknown("timeout"), ("retry", "unknown", True, True)),
        (WrongShape("not_json"), ("retry", "unknown", True, False)),
        (IdentityMismatch("user"), ("retry", "unknown", True, False)),
    ],
    ids=lambda value: getattr(value, "label", None),
)
def test_after_a_change_each_class_has_its_reaction(result: Outcome, expected: tuple[str, str | None, bool, bool]) -> None:
    assert essence(wrote(result)) == expected


def test_a_change_says_what_the_seat_was_before_it() -> None:
    """As it was read in the same attempt, or else as it was believed; whatever came of it."""
    assert wrote(Done(ACTIVE), seen=Observation("inactive", "e1"), applied="unknown").before == "inactive"
    assert wrote(Done(ACTIVE), applied="deleted").before == "deleted"
    assert wrote(Unknown("timeout"), applied="active", desired="deleted").before == "active"
    assert read(AlreadySo(ACTIVE), seen=ACTIVE).before is None


def test_the_table_above_names_every_class() -> None:
    table = next(mark for mark in test_after_a_change_each_class_has_its_reaction.pytestmark if mark.name == "parametrize")  # type: ignore[attr-defined]
    assert {type(result) for result, _ in table.args[1]} == set(get_args(Outcome))


@pytest.mark.parametrize("result", [ServerFault("timeout"), WrongShape("empty"), IdentityMismatch("user"), Refused("other")])
def test_a_read_that_fails_changes_no_belief(result: Failure) -> None:
    assert essence(read(result))[1:] == (None, False, False)


def test_a_404_is_never_success() -> None:
    removal = wrote(NotThere("elsewhere"), desired="deleted", applied="active", lms_enrollment="e1")
    assert essence(removal) == ("retry", "unknown", True, True)
    assert removal.delay_seconds == 0


def test_only_what_was_never_known_is_absent_when_its_person_is_missing() -> None:
    assert essence(read(NotThere("user"), desired="deleted", applied="unknown")) == ("now", "absent", False, False)
    assert read(NotThere("user"), desired="deleted", applied="unknown").read
    assert read(NotThere("user"), desired="deleted", applied="unknown", lms_enrollment="e1").then == "wait"
    assert read(NotThere("user"), desired="inactive", applied="unknown").then == "wait"


def test_waiting_is_for_the_object_that_is_missing() -> None:
    assert wrote(NotThere("section")).waits == ("section", "S")
    assert wrote(NotThere("user")).waits == ("user", "p1")
    assert wrote(NotThere("both")).waits == ("user", "p1")


def test_the_first_unknown_outcome_is_read_back_at_once_and_later_ones_back_off() -> None:
    assert wrote(Unknown("timeout")).delay_seconds == 0
    assert wrote(Unknown("timeout"), attempts=3).delay_seconds > 1


def test_a_refusal_for_asking_too_much_counts_no_attempt() -> None:
    assert wrote(Throttled(), attempts=4).attempts == 4
    assert wrote(ServerFault("http_500"), attempts=4).attempts == 5


def test_a_step_on_the_way_continues_at_once_and_a_yes_without_effect_backs_off() -> None:
    step = wrote(Done(Observation("inactive", "e1", "c1")), desired="completed", applied="absent")
    assert (step.then, step.applied, step.delay_seconds) == ("now", "inactive", 0)
    nothing = wrote(Done(ACTIVE), desired="deleted", applied="active")
    assert nothing.then == "retry"
    assert nothing.delay_seconds > 0


def test_only_a_read_without_a_change_after_it_may_clear_suspicion() -> None:
    assert read(AlreadySo(ACTIVE), ACTIVE).read
    assert not wrote(Done(ACTIVE), ABSENT).read
    assert not read(AlreadySo(ACTIVE)).read  # believed, not read
    assert wrote(Done(ACTIVE), ABSENT).looked


def test_whoever_is_not_there_was_looked_at() -> None:
    """A seat that has to be verified would be asked for again and again otherwise."""
    gone = read(NotThere("user"), desired="deleted", lms_enrollment=None)
    assert (gone.applied, gone.read, gone.looked) == ("absent", True, True)


def test_what_existed_before_our_first_change_is_adopted_and_the_rest_is_ours() -> None:
    assert read(AlreadySo(ACTIVE), ACTIVE).origin == "adopted"
    assert wrote(Done(ACTIVE), Observation("inactive", "e1")).origin == "adopted"
    assert wrote(Done(ACTIVE), ABSENT).origin == "ours"
    assert wrote(Done(ACTIVE), Observation("deleted", "e1")).origin == "ours"
    assert wrote(Unknown("timeout"), ABSENT).origin == "ours"
    assert read(AlreadySo(ABSENT), ABSENT, desired="deleted").origin is None


def test_a_wrong_identity_dies_at_the_third_failure_if_the_one_before_was_one_too() -> None:
    def then(attempts: int, failed_as: str | None) -> str:
        return wrote(IdentityMismatch("user"), attempts=attempts, failed_as=failed_as).then

    assert [then(0, None), then(1, "identity_mismatch"), then(2, "identity_mismatch")] == ["retry", "retry", "dead"]
    assert then(2, "wrong_shape") == "retry"


def test_an_attempt_that_was_not_sent_goes_again_and_keeps_what_it_read() -> None:
    settlement = read(NotSent(), ABSENT)
    assert (settlement.then, settlement.applied, settlement.attempts) == ("now", "absent", 0)


def test_usage_adds_up() -> None:
    assert Usage(1, 0.5, 500) + Usage(1, None, None) == Usage(2, 0.5, 500)
    assert Usage(1, 0.5, 500) + Usage(1, 0.25, 400) == Usage(2, 0.75, 400)
