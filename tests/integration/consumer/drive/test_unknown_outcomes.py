"""Calls whose outcome nobody knows: read back before anything else, and trusted only after they can no longer land."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from services.consumer.targets.port import NotThere, Observation, Outcome, ServerFault, Unknown
from tests.integration.consumer.drive.drive_support import (
    ScriptedLms,
    SeatLedger,
    Timing,
    Told,
    answering,
    driving,
    eventually,
    hanging,
    seat_of,
)


async def test_an_applied_change_without_an_answer_is_read_back_and_not_sent_again(
    ledger: SeatLedger, lms: ScriptedLms, told: Told
) -> None:
    key = ledger.want(seat_of("p1"), applied="absent")
    lms.scripts["p1"].append(answering(Unknown("connection"), applies=True))

    async with driving(ledger.url, lms, told=told):
        await eventually(lambda: ledger.work(key) == "suspect")
        assert ledger.applied(key) == "active"
        await eventually(lambda: told.confirmations)  # at the first confirmation, not at the last
        await eventually(lambda: ledger.work(key) is None)

    assert len(lms.writes) == 1
    assert ledger.outcomes(key) == ["unknown", "already_so", "already_so"]
    assert ledger.seat(key)["origin"] == "ours"
    assert [effect for effect, _ in told.confirmations] == ["add"]


async def test_only_a_read_that_began_after_the_late_bound_settles_a_suspect_seat(ledger: SeatLedger, lms: ScriptedLms) -> None:
    key = ledger.want(seat_of("p1"), applied="absent")
    lms.scripts["p1"].append(answering(Unknown("timeout"), applies=True))
    timing = Timing()

    async with driving(ledger.url, lms, timing):
        await eventually(lambda: ledger.work(key) is None)

    first, last = lms.reads[0][0], lms.reads[-1][0]
    assert len(lms.reads) == 2
    assert last - first >= timing.late_bound_seconds


async def test_a_change_that_lands_late_is_found_and_undone(ledger: SeatLedger, lms: ScriptedLms) -> None:
    """An add without an answer, then a drop that finds nothing to remove; the add lands after the drop was confirmed."""
    key = ledger.want(seat_of("p1"), applied="absent")

    async def lost_while_a_drop_is_decided(lms: ScriptedLms, seat: object, wanted: object) -> Outcome:
        ledger.want(seat_of("p1"), "deleted")
        return Unknown("timeout")

    lms.scripts["p1"].append(lost_while_a_drop_is_decided)
    async with driving(ledger.url, lms):
        await eventually(lambda: ledger.work(key) == "suspect")
        assert ledger.applied(key) == "absent"
        lms.apply(seat_of("p1"), "active")  # the late one
        await eventually(lambda: ledger.work(key) is None)

    assert lms.rows["p1", "S-1"] == "deleted"
    assert ledger.applied(key) == "deleted"


async def test_every_later_call_to_a_suspect_seat_starts_its_time_anew(ledger: SeatLedger, lms: ScriptedLms) -> None:
    key = ledger.want(seat_of("p1"), applied="absent")
    lms.scripts["p1"].append(answering(Unknown("timeout"), applies=True))

    async with driving(ledger.url, lms):
        await eventually(lambda: ledger.work(key) == "suspect")
        first = ledger.seat(key)["suspect_until"]
        ledger.want(seat_of("p1"), "deleted")
        await eventually(lambda: ledger.applied(key) == "deleted")
        assert ledger.work(key) == "suspect"
        assert ledger.seat(key)["suspect_until"] > first
        await eventually(lambda: ledger.work(key) is None)


async def test_a_hanging_change_ends_at_its_deadline_as_unknown(ledger: SeatLedger, lms: ScriptedLms) -> None:
    key = ledger.want(seat_of("p1"), applied="absent")
    lms.scripts["p1"].append(hanging())
    others = [ledger.want(seat_of(f"q{number}"), applied="absent") for number in range(5)]

    async with driving(ledger.url, lms):
        await eventually(lambda: all(ledger.work(other) is None for other in others), within=1.5)
        await eventually(lambda: ledger.work(key) is None)

    assert ledger.outcomes(key)[:2] == ["unknown", "done"]
    assert len(lms.writes) == 7


async def test_a_seat_never_read_is_not_suspect_for_a_read_that_failed(ledger: SeatLedger, lms: ScriptedLms) -> None:
    """A read has no effect that could land late."""
    key = ledger.want(seat_of("p1"))
    failures = iter([ServerFault("timeout")])

    async def fails_once(seat: object) -> Observation | ServerFault:
        return next(failures, None) or lms.observe(seat_of("p1"))

    lms.read_scripts["p1"] = fails_once
    async with driving(ledger.url, lms):
        await eventually(lambda: ledger.work(key) is None)

    assert ledger.seat(key)["mark"] == 0
    assert ledger.outcomes(key) == ["server_fault", "done"]


async def test_an_intent_that_waited_too_long_is_not_sent(ledger: SeatLedger, lms: ScriptedLms) -> None:
    """The read took all the time that the intent had; the change goes under a new one."""
    key = ledger.want(seat_of("p1"))

    async def slow(seat: object) -> Observation:
        await asyncio.sleep(0.4)
        return lms.observe(seat_of("p1"))

    lms.read_scripts["p1"] = slow
    async with driving(ledger.url, lms):  # intents of this timing may wait 0.3 s
        await eventually(lambda: ledger.work(key) is None)

    assert ledger.outcomes(key) == ["not_sent", "done"]
    assert (len(lms.reads), len(lms.writes)) == (1, 1)


async def test_stopping_finishes_and_records_what_is_under_way(ledger: SeatLedger, lms: ScriptedLms) -> None:
    first = ledger.want(seat_of("first"), applied="absent")

    async with driving(ledger.url, lms) as driver:
        await eventually(lambda: ledger.work(first) is None)  # until the first answer nothing goes beside it
        lms.seconds = 0.3
        keys = [ledger.want(seat_of(f"p{number}"), applied="absent") for number in range(5)]
        await eventually(lambda: lms.most_in_flight == 5)
        driver.stop()

    assert [ledger.work(key) for key in keys] == [None] * 5
    assert ledger.one("select count(*) from intent where closed_at is null") == 0
    assert ledger.one("select expires_at <= clock_timestamp() from lease") is True


async def test_stopping_while_the_lms_hangs_ends_in_time_and_leaves_the_seat_suspect(
    ledger: SeatLedger, lms: ScriptedLms
) -> None:
    key = ledger.want(seat_of("p1"), applied="absent")
    lms.always["p1"] = hanging()
    timing = replace(Timing(), lease_seconds=20, lease_renew_seconds=5, call_timeout_seconds=9, stop_seconds=4.5)

    async with driving(ledger.url, lms, timing) as driver:
        await eventually(lambda: lms.in_flight == 1)
        started = time.monotonic()
        driver.stop()

    assert time.monotonic() - started < 4.5
    assert ledger.applied(key) == "unknown"
    assert ledger.seat(key)["mark"] == 1


async def test_a_removal_whose_row_is_not_where_it_was_stays_suspect_until_read_late(
    ledger: SeatLedger, lms: ScriptedLms
) -> None:
    """The 404 may come from our own earlier, unanswered removal; the LMS shows it deleted, and only later that is believed."""
    key = ledger.want(seat_of("p1"), "deleted", applied="active", enrollment="e")

    async def gone_already(lms: ScriptedLms, seat: object, wanted: object) -> Outcome:
        lms.apply(seat_of("p1"), "deleted")
        return NotThere("elsewhere")

    lms.rows["p1", "S-1"] = "active"
    lms.scripts["p1"].append(gone_already)
    async with driving(ledger.url, lms):
        await eventually(lambda: ledger.work(key) == "suspect")
        await eventually(lambda: ledger.work(key) is None)

    assert ledger.outcomes(key) == ["not_there", "already_so", "already_so"]
