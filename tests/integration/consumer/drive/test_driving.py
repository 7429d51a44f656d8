"""What the driver promises about single seats, on a real ledger with a scripted LMS."""

from __future__ import annotations

from dataclasses import replace

import pytest

from services.consumer.drive.backoff import WAIT_TIMER_SECONDS
from services.consumer.nouns import SeatRef
from services.consumer.targets.port import (
    Concluded,
    IdentityMismatch,
    NoPermission,
    NotThere,
    Observation,
    Outcome,
    Refused,
    ServerFault,
    Throttled,
    WrongShape,
)
from tests.integration.consumer.drive.drive_support import (
    TARGET,
    ScriptedLms,
    SeatLedger,
    Timing,
    Told,
    answering,
    driving,
    eventually,
    seat_of,
)


async def test_a_new_seat_is_read_then_made_then_settled(ledger: SeatLedger, lms: ScriptedLms, told: Told) -> None:
    key = ledger.want(seat_of("p1"))

    async with driving(ledger.url, lms, told=told):
        await eventually(lambda: ledger.work(key) is None)

    assert lms.rows == {("p1", "S-1"): "active"}
    assert len(lms.reads) == 1
    row = ledger.seat(key)
    assert (row["applied"], row["origin"], row["lms_enrollment"], row["applied_version"]) == ("active", "ours", "e-p1-S-1", 1)
    assert [effect for effect, _ in told.confirmations] == ["add"]
    assert ledger.one("select count(*) from intent where closed_at is null") == 0


async def test_a_seat_that_is_right_already_costs_no_write_and_is_adopted(ledger: SeatLedger, lms: ScriptedLms) -> None:
    lms.rows["p1", "S-1"] = "active"
    key = ledger.want(seat_of("p1"))

    async with driving(ledger.url, lms):
        await eventually(lambda: ledger.work(key) is None)

    assert lms.writes == []
    assert (ledger.applied(key), ledger.seat(key)["origin"]) == ("active", "adopted")


async def test_a_known_seat_is_changed_without_reading_it_first(ledger: SeatLedger, lms: ScriptedLms, told: Told) -> None:
    lms.rows["p1", "S-1"] = "active"
    key = ledger.want(seat_of("p1"), "deleted", applied="active", enrollment="e-p1-S-1")

    async with driving(ledger.url, lms, told=told):
        await eventually(lambda: ledger.work(key) is None)

    assert lms.reads == []
    assert lms.writes == [("p1", "S-1", "deleted")]
    assert [effect for effect, _ in told.confirmations] == ["drop"]


async def test_a_removal_of_a_seat_that_never_was_is_settled_as_absent(ledger: SeatLedger, lms: ScriptedLms) -> None:
    lms.missing = {("user", "p2")}
    keys = [ledger.want(seat_of(person), "deleted") for person in ("p1", "p2")]

    async with driving(ledger.url, lms):
        await eventually(lambda: [ledger.work(key) for key in keys] == [None, None])

    assert lms.writes == []
    assert [ledger.applied(key) for key in keys] == ["absent", "absent"]


async def test_verify_reads_a_settled_seat_back_and_repairs_it(ledger: SeatLedger, lms: ScriptedLms) -> None:
    lms.rows["p1", "S-1"] = "deleted"  # by somebody else
    key = ledger.want(seat_of("p1"), "active", applied="active", enrollment="e-p1-S-1")
    ledger.connection.execute("update work set read_first = true, priority = 4")

    async with driving(ledger.url, lms):
        await eventually(lambda: ledger.work(key) is None)

    assert lms.rows == {("p1", "S-1"): "active"}
    assert lms.writes == [("p1", "S-1", "active")]


async def test_a_decision_made_during_the_call_is_not_settled_by_it(ledger: SeatLedger, lms: ScriptedLms) -> None:
    """The newest decision wins although the call for the older one succeeded."""
    key = ledger.want(seat_of("p1"))

    async def dropped_meanwhile(lms: ScriptedLms, seat: object, wanted: object) -> Outcome:
        ledger.want(seat_of("p1"), "deleted")
        return lms.apply(seat_of("p1"), "active")

    lms.scripts["p1"].append(dropped_meanwhile)
    async with driving(ledger.url, lms):
        await eventually(lambda: ledger.work(key) is None)

    assert [wanted for _, _, wanted in lms.writes] == ["active", "deleted"]
    assert (lms.rows["p1", "S-1"], ledger.applied(key)) == ("deleted", "deleted")


async def test_work_that_a_decision_took_back_during_the_call_comes_back(ledger: SeatLedger, lms: ScriptedLms) -> None:
    """A drop is under way when the re-add finds nothing to do; the ledger must notice that the drop was done."""
    lms.rows["p1", "S-1"] = "active"
    key = ledger.want(seat_of("p1"), "deleted", applied="active", enrollment="e")

    async def added_again(lms: ScriptedLms, seat: object, wanted: object) -> Outcome:
        ledger.want(seat_of("p1"), "active")
        ledger.connection.execute("delete from work")
        return lms.apply(seat_of("p1"), "deleted")

    lms.scripts["p1"].append(added_again)
    async with driving(ledger.url, lms):
        await eventually(lambda: len(lms.writes) == 2)
        await eventually(lambda: ledger.applied(key) == "active" and ledger.work(key) is None)

    assert lms.rows["p1", "S-1"] == "active"


@pytest.mark.parametrize("outcome", [Refused("validation"), Concluded()])
async def test_what_asking_again_cannot_help_is_dead_with_its_reason(
    ledger: SeatLedger, lms: ScriptedLms, told: Told, outcome: Refused | Concluded
) -> None:
    key = ledger.want(seat_of("p1"))
    lms.scripts["p1"].append(answering(outcome))

    async with driving(ledger.url, lms, told=told):
        await eventually(lambda: ledger.work(key) == "dead")

    assert ledger.one("select reason from work") == outcome.label
    assert told.dead == [outcome.label]
    assert len(lms.writes) == 1


async def test_a_wrong_identity_is_dead_after_three_attempts(ledger: SeatLedger, lms: ScriptedLms) -> None:
    key = ledger.want(seat_of("p1"))
    lms.always["p1"] = answering(IdentityMismatch("user"))

    async with driving(ledger.url, lms):
        await eventually(lambda: ledger.work(key) == "dead")

    assert len(lms.writes) == 3
    assert ledger.applied(key) == "unknown"


@pytest.mark.parametrize("outcome", [ServerFault("http_500"), WrongShape("not_json")])
async def test_a_fault_during_a_change_is_followed_by_a_read(
    ledger: SeatLedger, lms: ScriptedLms, outcome: ServerFault | WrongShape
) -> None:
    """The change may have got through; then nothing is sent again."""
    key = ledger.want(seat_of("p1"), applied="absent")
    lms.scripts["p1"].append(answering(outcome, applies=True))

    async with driving(ledger.url, lms):
        await eventually(lambda: ledger.work(key) is None)

    assert (len(lms.writes), len(lms.reads)) == (1, 1)
    assert ledger.outcomes(key) == [outcome.label, "already_so"]


async def test_an_answer_that_shows_no_change_confirms_nothing(ledger: SeatLedger, lms: ScriptedLms) -> None:
    key = ledger.want(seat_of("p1"), applied="absent")

    async def nothing_done(lms: ScriptedLms, seat: object, wanted: object) -> Outcome:
        return replace(lms.apply(seat_of("p2"), "active"), observation=Observation("absent"))

    lms.scripts["p1"].append(nothing_done)
    async with driving(ledger.url, lms):
        await eventually(lambda: ledger.work(key) is None)

    assert len(lms.writes) == 2


async def test_a_refusal_pauses_the_token_and_counts_no_attempt(ledger: SeatLedger, lms: ScriptedLms, told: Told) -> None:
    keys = [ledger.want(seat_of(f"p{number}"), applied="absent") for number in range(5)]
    for number in range(5):
        lms.scripts[f"p{number}"].append(answering(Throttled()))

    async with driving(ledger.url, lms, replace(Timing(), max_in_flight=1), told):
        await eventually(lambda: len(told.calls) == 1)
        assert ledger.one("select max(attempts) from work") == 0
        for scripts in lms.scripts.values():
            scripts.clear()
        await eventually(lambda: all(ledger.work(key) is None for key in keys))

    assert [outcome for _, outcome in told.calls].count("throttled") == 1


async def test_a_revoked_token_makes_no_storm(ledger: SeatLedger, lms: ScriptedLms, told: Told) -> None:
    for number in range(20):
        ledger.want(seat_of(f"p{number}"), applied="absent")
        lms.always[f"p{number}"] = answering(NoPermission(whole_token=True))

    async with driving(ledger.url, lms, replace(Timing(), max_in_flight=2), told):
        await eventually(lambda: len(told.calls) >= 1)
        await eventually(lambda: ledger.one("select count(*) from intent where closed_at is null") == 0, within=1.5)
        assert len(told.calls) <= 2
        assert ledger.one("select max(attempts) from work") == 0


async def test_a_seat_that_the_token_may_not_touch_retries_slowly(ledger: SeatLedger, lms: ScriptedLms) -> None:
    key = ledger.want(seat_of("p1"), applied="absent")
    lms.always["p1"] = answering(NoPermission(whole_token=False))

    async with driving(ledger.url, lms):
        await eventually(lambda: ledger.work(key) == "retrying")

    assert ledger.one("select next_at - clock_timestamp() > interval '10 s' from work") is True


async def test_what_is_missing_is_waited_for_and_its_arrival_wakes_everybody(ledger: SeatLedger, lms: ScriptedLms) -> None:
    lms.missing = {("section", "S-1")}
    keys = [ledger.want(seat_of(f"p{number}")) for number in range(3)]

    async with driving(ledger.url, lms):
        await eventually(lambda: [ledger.work(key) for key in keys] == ["waiting"] * 3)
        assert ledger.one("select kind, object, state from dependency") == ("section", "S-1", "missing")
        assert ledger.one("select min(next_at) > clock_timestamp() + %s * interval '1 s' from work", WAIT_TIMER_SECONDS - 30)
        lms.missing.clear()
        await eventually(lambda: all(ledger.work(key) is None for key in keys))

    assert len(lms.rows) == 3
    assert ledger.one("select count(*) from history where what = 'woken'") == 3


async def test_of_two_missing_objects_each_is_waited_for_in_turn(ledger: SeatLedger, lms: ScriptedLms) -> None:
    lms.missing = {("section", "S-1"), ("user", "p1")}
    key = ledger.want(seat_of("p1"))

    async with driving(ledger.url, lms):
        await eventually(lambda: ledger.work(key) == "waiting")
        lms.missing.discard(("user", "p1"))
        await eventually(lambda: ledger.one("select waits_kind from work") == "section")
        lms.missing.clear()
        await eventually(lambda: ledger.work(key) is None)


async def test_a_waiting_seat_asks_by_itself_when_its_timer_ends(ledger: SeatLedger, lms: ScriptedLms) -> None:
    """Nobody wakes it: the dependency row is gone."""
    lms.missing = {("user", "p1")}
    key = ledger.want(seat_of("p1"))

    async with driving(ledger.url, lms):
        await eventually(lambda: ledger.work(key) == "waiting")
        ledger.connection.execute("delete from dependency")
        lms.missing.clear()
        ledger.connection.execute("update work set next_at = clock_timestamp()")
        await eventually(lambda: ledger.work(key) is None)


async def test_a_404_on_a_removal_is_not_success(ledger: SeatLedger, lms: ScriptedLms) -> None:
    """The row was moved, not deleted: it is read again, removed where it is, and trusted only after the late bound."""
    lms.rows["p1", "S-1"] = "active"
    key = ledger.want(seat_of("p1"), "deleted", applied="active", enrollment="e-old")
    lms.scripts["p1"].append(answering(NotThere("elsewhere", Observation("active", "e-p1-S-1", "c2"))))

    async with driving(ledger.url, lms):
        await eventually(lambda: ledger.applied(key) == "deleted")
        assert ledger.work(key) == "suspect"
        await eventually(lambda: ledger.work(key) is None)

    assert lms.rows["p1", "S-1"] == "deleted"
    assert ledger.outcomes(key) == ["not_there", "done", "already_so"]


async def test_a_wake_from_another_process_is_heard(ledger: SeatLedger, lms: ScriptedLms) -> None:
    async with driving(ledger.url, lms) as driver:
        await eventually(lambda: driver.holds_lease)
        key = ledger.want(seat_of("p1"))
        ledger.connection.execute("select pg_notify('work', %s)", [TARGET])
        await eventually(lambda: ledger.work(key) is None)
        other = ledger.want(seat_of("p2"))
        driver.wake([SeatRef(TARGET, other)])
        await eventually(lambda: ledger.work(other) is None)


async def test_whoever_is_told_of_a_removal_finds_the_add_that_goes_first(ledger: SeatLedger, lms: ScriptedLms) -> None:
    lms.rows["p1", "S-1"] = "active"
    async with driving(ledger.url, lms) as driver:
        await eventually(lambda: driver.holds_lease)
        with ledger.connection.transaction():
            old = ledger.want(seat_of("p1", "S-1"), "deleted", applied="active", enrollment="e")
            new = ledger.want(seat_of("p1", "S-2"), applied="absent")
        driver.wake([SeatRef(TARGET, old)])
        await eventually(lambda: ledger.work(old) is None and ledger.work(new) is None)
    assert [(section, wanted) for _, section, wanted in lms.writes] == [("S-2", "active"), ("S-1", "deleted")]


async def test_whoever_is_told_of_what_is_not_due_yet_comes_back_in_time(ledger: SeatLedger, lms: ScriptedLms) -> None:
    async with driving(ledger.url, lms) as driver:
        await eventually(lambda: driver.holds_lease)
        key = ledger.want(seat_of("p1"), applied="absent", due_in=0.3)
        driver.wake([SeatRef(TARGET, key)])
        await eventually(lambda: ledger.work(key) is None, within=0.9)


async def test_only_who_drives_answers_for_the_work(ledger: SeatLedger, lms: ScriptedLms) -> None:
    seat = SeatRef(TARGET, "s")
    async with driving(ledger.url, lms) as driver:
        await eventually(lambda: driver.holds_lease)
        async with driving(ledger.url, lms) as standby:
            assert driver.wake([seat])
            assert not driver.wake([seat, SeatRef("another", "s")])
            assert not standby.wake([seat])
    assert not driver.wake([seat])


async def test_one_call_per_person_at_a_time_and_the_add_of_a_swap_first(ledger: SeatLedger, lms: ScriptedLms) -> None:
    lms.seconds = 0.02
    lms.rows["p1", "S-1"] = "active"
    old = ledger.want(seat_of("p1", "S-1"), "deleted", applied="active", enrollment="e")
    new = ledger.want(seat_of("p1", "S-2"), applied="absent")
    other = ledger.want(seat_of("p1", "S-9", course="C-9"), applied="absent")

    async with driving(ledger.url, lms):
        await eventually(lambda: all(ledger.work(key) is None for key in (old, new, other)))

    assert lms.overlaps == 0
    order = [(section, wanted) for _, section, wanted in lms.writes]
    assert order.index(("S-2", "active")) < order.index(("S-1", "deleted"))


async def test_a_removal_does_not_wait_for_an_add_that_waits(ledger: SeatLedger, lms: ScriptedLms) -> None:
    lms.rows["p1", "S-1"] = "active"
    lms.missing = {("section", "S-2")}
    old = ledger.want(seat_of("p1", "S-1"), "deleted", applied="active", enrollment="e")
    new = ledger.want(seat_of("p1", "S-2"), applied="absent")

    async with driving(ledger.url, lms):
        await eventually(lambda: ledger.work(old) is None)
        assert ledger.work(new) == "waiting"


async def test_a_removal_goes_as_soon_as_its_settling_time_ends(ledger: SeatLedger, lms: ScriptedLms) -> None:
    lms.rows["p1", "S-1"] = "active"
    key = ledger.want(seat_of("p1"), "deleted", applied="active", enrollment="e", due_in=0.5)

    async with driving(ledger.url, lms):
        await eventually(lambda: ledger.work(key) is None)

    assert ledger.one("select applied_at - accepted_at between interval '0.5 s' and interval '0.8 s' from seat") is True


async def test_one_failing_seat_does_not_delay_ninety_nine_others(ledger: SeatLedger, lms: ScriptedLms) -> None:
    lms.seconds = 0.005
    lms.always["p0"] = answering(ServerFault("http_500"))
    keys = [ledger.want(seat_of(f"p{number}"), applied="absent") for number in range(100)]

    async with driving(ledger.url, lms):
        await eventually(lambda: sum(ledger.work(key) is None for key in keys) == 99, within=5)
        assert ledger.work(keys[0]) in ("retrying", "pending")
        lms.always.clear()
        await eventually(lambda: ledger.work(keys[0]) is None)


async def test_a_defect_of_the_target_costs_an_attempt_not_the_driver(ledger: SeatLedger, lms: ScriptedLms) -> None:
    async def defect(lms: ScriptedLms, seat: object, wanted: object) -> Outcome:
        raise ZeroDivisionError

    lms.scripts["p1"].append(defect)
    keys = [ledger.want(seat_of(person)) for person in ("p1", "p2")]

    async with driving(ledger.url, lms):
        await eventually(lambda: ledger.work(keys[1]) is None)
        await eventually(lambda: ledger.applied(keys[0]) == "active")
