"""One driver at a time, and what the next one finds."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import replace

import pytest

from services.consumer.drive import intents, lease, outcomes, takeover, waiting
from services.consumer.drive.lease import Lease
from services.consumer.drive.orders import Order
from services.consumer.drive.outcomes import LeaseLost
from services.consumer.drive.owner import NotReviewed, Owner
from services.consumer.drive.reactions import Attempt, react
from services.consumer.ledger import database, recovery
from services.consumer.targets.port import AlreadySo, Done, NotThere, Observation, Outcome, Unknown
from tests.integration.consumer.drive.drive_support import (
    TARGET,
    ScriptedLms,
    SeatLedger,
    Timing,
    driving,
    eventually,
    seat_of,
)


def opened(ledger: SeatLedger, mine: Lease, *keys: str, deadline_seconds: float = 1.0) -> list[Order]:
    """Intents for these seats, as the driver opens them."""
    return intents.open_intents(
        ledger.connection,
        mine,
        keys,
        intents.new_ids(len(keys)),
        deadline_seconds=deadline_seconds,
        send_by=time.monotonic() + 60,
    )


def void(ledger: SeatLedger) -> None:
    """Let the lease expire now."""
    ledger.connection.execute("update lease set expires_at = clock_timestamp()")


def test_a_lease_is_taken_only_when_expired_and_its_epoch_always_grows(ledger: SeatLedger) -> None:
    first = ledger.lease("a")
    assert lease.acquire(ledger.connection, TARGET, "b", 60) is None
    assert lease.renew(ledger.connection, first, 60)

    lease.release(ledger.connection, first)
    second = ledger.lease("b")
    assert second.epoch > first.epoch
    assert not lease.renew(ledger.connection, first, 60)

    # A database restored from a time when another driver had a later clock: still greater than the one before.
    ledger.connection.execute("update lease set epoch = epoch + 1000000000000000, expires_at = clock_timestamp()")
    assert ledger.lease("c").epoch == second.epoch + 1000000000000001
    # Restored to before the first lease: the clock is beyond every epoch that was ever given.
    ledger.connection.execute("delete from lease")
    assert ledger.lease("d").epoch > second.epoch


def test_of_many_that_want_a_lease_one_gets_it(ledger: SeatLedger) -> None:
    got: list[Lease | None] = []

    def want(owner: str) -> None:
        with database.connect(ledger.url) as connection:
            got.append(lease.acquire(connection, TARGET, owner, 60))

    threads = [threading.Thread(target=want, args=[f"owner-{number}"]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len([one for one in got if one is not None]) == 1


def test_no_intent_without_a_lease_that_outlives_the_call(ledger: SeatLedger) -> None:
    key = ledger.want(seat_of("p1"))
    mine = ledger.lease(ttl_seconds=5)

    assert opened(ledger, mine, key, deadline_seconds=6) == []
    assert opened(ledger, replace(mine, epoch=mine.epoch - 1), key) == []
    assert opened(ledger, replace(mine, owner="other"), key) == []
    assert len(opened(ledger, mine, key, deadline_seconds=4)) == 1


def test_nobody_drives_a_ledger_that_has_not_read_again_what_it_forgot(ledger: SeatLedger) -> None:
    key = ledger.want(seat_of("p1"))
    recovery.begin_session(ledger.connection, 0)
    recovery.enter(ledger.connection, "test", 0)

    assert lease.acquire(ledger.connection, TARGET, "a", 60) is None
    # A lease that was taken while recovery mode was being entered is of no use either.
    ledger.connection.execute("update recovery set behind = false")
    mine = ledger.lease()
    ledger.connection.execute("update recovery set behind = true")
    assert opened(ledger, mine, key) == []

    ledger.connection.execute("update recovery set behind = false")
    assert len(opened(ledger, mine, key)) == 1


async def test_a_driver_keeps_away_from_a_database_that_the_ledger_does_not_know_itself_in(ledger: SeatLedger) -> None:
    recovery.begin_session(ledger.connection, 0)
    ledger.connection.execute("update recovery set timeline = timeline + 1")
    owner = Owner("test", ledger.url)
    try:
        with pytest.raises(NotReviewed):
            await owner.run(lambda it: it.execute("select 1"))
        recovery.begin_session(ledger.connection, 0)
        await owner.run(lambda it: it.execute("select 1"))
    finally:
        await owner.close()


def test_a_person_has_one_open_intent(ledger: SeatLedger) -> None:
    mine = ledger.lease()
    first, second = ledger.want(seat_of("p1", "S-1")), ledger.want(seat_of("p1", "S-2"))

    together = opened(ledger, mine, first, second)

    assert len(together) == 1
    assert opened(ledger, mine, first, second) == []
    assert ledger.one("select count(*) from intent where closed_at is null") == 1


def test_a_zombie_with_an_old_epoch_records_nothing_but_suspicion(ledger: SeatLedger) -> None:
    key = ledger.want(seat_of("p1"), applied="absent")
    old = ledger.lease("old")
    (order,) = opened(ledger, old, key)
    void(ledger)
    ledger.lease("new")
    settlement = react(order, Attempt(Done(Observation("active", "e1", "c1")), None, wrote=True), 0)

    with pytest.raises(LeaseLost):
        outcomes.record(ledger.connection, old, [settlement], suspect_seconds=60)

    assert ledger.applied(key) == "absent"
    assert ledger.work(key) == "pending"
    outcomes.mark_suspect(ledger.connection, TARGET, [key], reason="lease_lost", suspect_seconds=60)
    row = ledger.seat(key)
    assert (row["applied"], row["mark"], row["lms_enrollment"]) == ("unknown", 1, None)


def test_a_take_over_waits_for_an_outcome_that_is_being_recorded(ledger: SeatLedger) -> None:
    """Otherwise the new driver could read the ledger before, and the old one write into it after."""
    ledger.lease("old")
    void(ledger)
    taken = threading.Event()

    def take_over() -> None:
        with database.connect(ledger.url) as connection:
            lease.acquire(connection, TARGET, "new", 60)
        taken.set()

    with ledger.connection.transaction():
        held = ledger.one("select epoch from lease")
        assert ledger.connection.execute(lease.HOLDS, {"target": TARGET, "owner": "old", "epoch": held}).fetchone() is not None
        thread = threading.Thread(target=take_over)
        thread.start()
        assert not taken.wait(0.3)
    thread.join()
    assert taken.is_set()


def test_an_outcome_whose_intent_is_gone_makes_the_seat_suspect(ledger: SeatLedger) -> None:
    """The database was replaced by an older copy of itself: the intent was never written, the call was made."""
    key = ledger.want(seat_of("p1"), applied="absent")
    mine = ledger.lease()
    (order,) = opened(ledger, mine, key)
    ledger.connection.execute("delete from intent")
    settlement = react(order, Attempt(Done(Observation("active", "e1", "c1")), None, wrote=True), 0)

    assert outcomes.record(ledger.connection, mine, [settlement], suspect_seconds=60) == {}

    assert (ledger.applied(key), ledger.work(key)) == ("unknown", "pending")


def test_a_read_that_saw_fewer_unknown_calls_does_not_clear_a_suspect_seat(ledger: SeatLedger) -> None:
    key = ledger.want(seat_of("p1"), applied="active")
    ledger.connection.execute("update seat set suspect_until = clock_timestamp(), mark = 1")
    mine = ledger.lease()
    (order,) = opened(ledger, mine, key)
    assert order.must_read
    outcomes.mark_suspect(ledger.connection, TARGET, [key], reason="lease_lost", suspect_seconds=0)  # a zombie, meanwhile
    ledger.connection.execute("update seat set suspect_until = clock_timestamp() - interval '1 minute'")  # its clock was slow
    seen = Observation("active", "e1", "c1")

    outcomes.record(ledger.connection, mine, [react(order, Attempt(AlreadySo(seen), seen, wrote=False), 0)], suspect_seconds=60)

    assert ledger.work(key) == "suspect"
    assert ledger.seat(key)["suspect_until"] is not None


def test_recording_twice_changes_nothing(ledger: SeatLedger) -> None:
    key = ledger.want(seat_of("p1"), applied="absent")
    mine = ledger.lease()
    (order,) = opened(ledger, mine, key)
    attempt = Attempt(AlreadySo(Observation("active", "e1", "c1")), Observation("active", "e1", "c1"), wrote=False)

    first = outcomes.record(ledger.connection, mine, [react(order, attempt, 0)], suspect_seconds=60)
    again = outcomes.record(ledger.connection, mine, [react(order, attempt, 0)], suspect_seconds=60)

    assert first[order.intent].settled
    assert again == {}
    assert (ledger.applied(key), ledger.work(key)) == ("active", None)


def test_a_waking_between_the_call_and_the_wait_is_not_lost(ledger: SeatLedger) -> None:
    """The user appears after the LMS said 404 and before the seat is put to wait."""
    sleeper, late = ledger.want(seat_of("p1", "S-1")), ledger.want(seat_of("p1", "S-2"))
    mine = ledger.lease()

    def missing(order: Order) -> None:
        settlement = react(order, Attempt(NotThere("user"), None, wrote=True), 0)
        outcomes.record(ledger.connection, mine, [settlement], suspect_seconds=60)

    missing(*opened(ledger, mine, sleeper))
    assert ledger.work(sleeper) == "waiting"
    (order,) = opened(ledger, mine, late)
    assert waiting.resolve(ledger.connection, TARGET, "user", "p1") == 1

    missing(order)

    assert (ledger.work(sleeper), ledger.work(late)) == ("pending", "pending")
    assert ledger.one("select state from dependency") == "resolved"
    missing(*opened(ledger, mine, late))  # a call that began after the user appeared, and it is gone again
    assert ledger.work(late) == "waiting"
    assert ledger.one("select state from dependency") == "missing"


def test_an_object_that_nobody_waits_for_is_not_asked_for(ledger: SeatLedger) -> None:
    key = ledger.want(seat_of("p1"))
    mine = ledger.lease()
    (order,) = opened(ledger, mine, key)
    settlement = react(order, Attempt(NotThere("user"), None, wrote=True), 0)
    outcomes.record(ledger.connection, mine, [settlement], suspect_seconds=60)
    ledger.connection.execute("update dependency set next_probe_at = clock_timestamp()")
    assert len(waiting.due(ledger.connection, TARGET, 10, young=False)) == 1

    ledger.want(seat_of("p1"), "deleted")  # decided anew: the work waits for nothing now

    assert waiting.due(ledger.connection, TARGET, 10, young=True) == []
    assert ledger.one("select count(*) from dependency") == 0


def test_our_own_intents_that_we_know_nothing_of_leave_doubt_after_their_deadline(ledger: SeatLedger) -> None:
    key, other = ledger.want(seat_of("p1"), applied="absent"), ledger.want(seat_of("p2"))
    mine = ledger.lease()
    opened(ledger, mine, key, deadline_seconds=0)
    (known,) = opened(ledger, mine, other, deadline_seconds=0)
    assert opened(ledger, mine, key) == []

    left = takeover.strays(ledger.connection, mine, {known.intent})
    takeover.close(ledger.connection, mine, left, reason="stray", suspect_seconds=60)

    assert [one.seat for one in left] == [key]
    assert (ledger.applied(key), ledger.seat(key)["mark"]) == ("unknown", 1)
    assert len(opened(ledger, mine, key)) == 1


async def test_a_released_lease_passes_at_once_and_work_goes_on(ledger: SeatLedger, lms: ScriptedLms) -> None:
    async with driving(ledger.url, lms) as first:
        await eventually(lambda: first.holds_lease)
        async with driving(ledger.url, lms) as second:
            assert not second.holds_lease
            first.stop()
            await eventually(lambda: second.holds_lease, within=1.5)
            key = ledger.want(seat_of("p1"))
            await eventually(lambda: ledger.work(key) is None)


async def test_inherited_intents_are_waited_out_read_first_and_suspect(ledger: SeatLedger, lms: ScriptedLms) -> None:
    """A driver died after sending: its add took effect, and may even come again."""
    key, quiet = ledger.want(seat_of("p1"), applied="absent"), ledger.want(seat_of("p2"), applied="absent")
    dead = ledger.lease("dead", ttl_seconds=5)
    opened(ledger, dead, key, deadline_seconds=1.2)
    lms.apply(seat_of("p1"), "active")
    void(ledger)

    started = time.monotonic()
    async with driving(ledger.url, lms):
        await eventually(lambda: ledger.work(quiet) is None, within=1)  # other people need not wait
        await eventually(lambda: ledger.work(key) == "suspect")
        assert time.monotonic() - started >= 1.2
        await eventually(lambda: ledger.work(key) is None)

    assert [person for person, _, _ in lms.writes] == ["p2"]
    assert ledger.outcomes(key)[:2] == ["inherited", "already_so"]


async def test_a_driver_that_wakes_after_its_lease_is_gone_leaves_a_seat_that_the_next_one_repairs(
    ledger: SeatLedger, lms: ScriptedLms
) -> None:
    """The old driver's add is on the wire while it loses the lease; a drop comes; the add lands last."""
    key = ledger.want(seat_of("p1"), applied="absent")
    release = asyncio.Event()

    async def stuck(lms: ScriptedLms, seat: object, wanted: object) -> Outcome:
        await release.wait()
        return lms.apply(seat_of("p1"), "active")

    lms.scripts["p1"].append(stuck)
    slow = replace(Timing(), lease_seconds=20, lease_renew_seconds=9, call_timeout_seconds=8, stop_seconds=12)
    async with driving(ledger.url, lms, slow) as zombie:
        await eventually(lambda: lms.in_flight == 1)
        void(ledger)  # as if it had been paused for longer than its lease
        ledger.connection.execute("update intent set opened_at = clock_timestamp(), deadline = clock_timestamp()")
        async with driving(ledger.url, lms) as heir:
            await eventually(lambda: heir.holds_lease)
            ledger.want(seat_of("p1"), "deleted")
            await eventually(lambda: ledger.applied(key) in ("absent", "deleted"))
            release.set()
            await eventually(lambda: lms.rows.get(("p1", "S-1")) == "deleted" and ledger.work(key) is None)
            assert zombie.holds_lease  # it does not know yet; nothing that it does counts
            zombie.stop()

    assert [wanted for _, _, wanted in lms.writes] == ["active", "deleted"]
    assert "lease_lost" in ledger.outcomes(key)


async def test_an_unknown_outcome_under_a_lost_lease_marks_the_seat_for_the_next_driver(
    ledger: SeatLedger, lms: ScriptedLms
) -> None:
    key = ledger.want(seat_of("p1"), applied="absent")
    old = ledger.lease("old")
    (order,) = opened(ledger, old, key)
    void(ledger)
    ledger.lease("new")

    with pytest.raises(LeaseLost):
        outcomes.record(
            ledger.connection, old, [react(order, Attempt(Unknown("timeout"), None, wrote=True), 0)], suspect_seconds=60
        )

    assert ledger.seat(key)["mark"] == 0
