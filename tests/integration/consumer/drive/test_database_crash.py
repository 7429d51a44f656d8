"""The ledger's database crashes while the driver works: outcomes may be lost, intents never."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace

import psycopg
import pytest

from services.sandbox.postgres import EmbeddedPostgres
from tests.integration.consumer.drive.drive_support import ScriptedLms, SeatLedger, Timing, Told, driving, eventually, seat_of

TIMING = replace(Timing(), lease_seconds=6, lease_renew_seconds=3, call_timeout_seconds=1)


@pytest.fixture
def server(own_postgres: EmbeddedPostgres) -> EmbeddedPostgres:
    """One that writes to disk late what need not be on disk."""
    with psycopg.connect(own_postgres.url(), autocommit=True) as connection:
        connection.execute("alter system set wal_writer_delay = '10s'")
        connection.execute("select pg_reload_conf()")
    return own_postgres


@pytest.fixture
def opened(server: EmbeddedPostgres) -> Iterator[Callable[[str], SeatLedger]]:
    """Ledgers that are closed whatever the test comes to."""
    with contextlib.ExitStack() as stack:

        def open_ledger(url: str) -> SeatLedger:
            ledger = SeatLedger(url)
            stack.callback(ledger.close)
            return ledger

        yield open_ledger


async def crash(server: EmbeddedPostgres) -> None:
    """Kill it and start it again, while the driver's loop goes on."""
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start_again)


async def test_an_outcome_that_the_crash_lost_is_found_by_its_intent(
    server: EmbeddedPostgres, opened: Callable[[str], SeatLedger], lms: ScriptedLms, told: Told
) -> None:
    """The add was made and recorded; after the crash the ledger believes that it never was. Then comes the drop: taking the old
    belief for true would settle it without a call."""
    before = opened(server.create_database("ledger"))
    async with driving(before.url, lms, TIMING, told) as driver:
        await eventually(lambda: driver.holds_lease)
        before.want(seat_of("p9"))  # connections are open and warm afterwards
        await eventually(lambda: len(told.confirmations) == 1)
        key = before.want(seat_of("p1"), applied="absent")
        await eventually(lambda: len(told.confirmations) == 2)
        before.close()
        await crash(server)

        after = opened(before.url)
        assert after.one("select count(*) from intent where closed_at is null") == 1, "the crash lost nothing; prove it otherwise"
        assert after.applied(key) == "absent"
        after.want(seat_of("p1"), "deleted")
        await eventually(lambda: after.work(key) is None, within=30)

    assert lms.rows["p1", "S-1"] == "deleted"
    assert after.applied(key) == "deleted"
    assert "stray" in after.outcomes(key)


async def test_work_goes_on_after_a_crash_and_nothing_is_called_twice(
    server: EmbeddedPostgres, opened: Callable[[str], SeatLedger], lms: ScriptedLms
) -> None:
    ledger = opened(server.create_database("ledger"))
    lms.seconds = 0.02
    people = [f"p{number:03}" for number in range(150)]
    for person in people:
        ledger.want(seat_of(person), applied="absent")
    ledger.close()
    async with driving(ledger.url, lms, TIMING):
        await eventually(lambda: len(lms.writes) > 40)
        await crash(server)
        after = opened(ledger.url)
        await eventually(lambda: after.one("select count(*) from work") == 0, within=40)

    assert sorted(person for person, _, _ in lms.writes) == people
    assert after.one("select count(*) from seat where applied <> 'active'") == 0
