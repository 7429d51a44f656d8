"""What a defect of ours, or a ledger that went away, costs: never more than it has to, and never silence."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from services.consumer.drive import driver as driver_module
from services.consumer.drive.driver import Driver
from services.consumer.drive.orders import Order
from services.consumer.drive.reactions import Attempt, Settlement, react
from services.consumer.ledger.policies import Policies
from services.consumer.metrics import Metrics
from tests.integration.consumer.drive.drive_support import (
    TARGET,
    ScriptedLms,
    SeatLedger,
    Timing,
    Told,
    driving,
    eventually,
    seat_of,
)

HASTY = replace(Timing(), call_timeout_seconds=0.3, lease_renew_seconds=0.2)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Upkeep every fifth of a second."""
    monkeypatch.setattr(driver_module, "_KEEP_UP_EVERY_SECONDS", 0.2)


@pytest.mark.parametrize("part", ["_recorder._record", "_scheduler.offer", "_leftovers.settle_strays", "_renew", "_caller.probe"])
async def test_the_death_of_any_part_ends_the_driver_with_its_error(ledger: SeatLedger, lms: ScriptedLms, part: str) -> None:
    """Whoever runs the driver has to see it: an outcome that nobody records would otherwise just be waited for."""
    lms.missing = {("user", "p2")}
    for person in ("p1", "p2"):
        ledger.want(seat_of(person))
    driver = Driver(replace(Timing(), stop_seconds=4), ledger.url, TARGET, lms, Policies(TARGET), Metrics(), Told())
    owner, name = _resolve(driver, part)

    def dies(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    setattr(owner, name, dies)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(driver.run(), 20)


def _resolve(root: object, path: str) -> tuple[object, str]:
    *owners, name = path.split(".")
    for owner in owners:
        root = getattr(root, owner)
    return root, name


async def test_a_ledger_that_became_read_only_is_one_that_is_away(ledger: SeatLedger, lms: ScriptedLms) -> None:
    """A primary that was demoted under us; later the name leads to the new one."""
    database = ledger.connection.info.dbname
    async with driving(ledger.url, lms) as driver:
        await eventually(lambda: driver.holds_lease)
        ledger.connection.execute(f'alter database "{database}" set default_transaction_read_only = on'.encode())
        ledger.connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s and pid <> pg_backend_pid()", [database]
        )
        key = ledger.want(seat_of("p1"))
        turned = driver.turned_at
        await eventually(lambda: driver.turned_at > turned + 2)
        assert ledger.one("select count(*) from intent") == 0
        ledger.connection.execute(f'alter database "{database}" set default_transaction_read_only = off'.encode())
        await eventually(lambda: ledger.work(key) is None)

    assert len(lms.writes) == 1


@pytest.mark.usefixtures("often")
async def test_a_defect_in_one_seat_blocks_its_person_until_the_deadline_and_leaves_doubt(
    ledger: SeatLedger, lms: ScriptedLms, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = _failing(monkeypatch, "p1", "S-1", times=1)
    key, sibling = ledger.want(seat_of("p1", "S-1"), applied="absent", due_in=-1), ledger.want(seat_of("p1", "S-2", "C-2"))

    async with driving(ledger.url, lms, HASTY):
        await eventually(lambda: ledger.work(key) is None and ledger.work(sibling) is None)

    assert failures == ["done"]
    assert [section for _, section, _ in lms.writes].count("S-1") == 1  # it had been made; the read found it
    assert ledger.outcomes(key)[:2] == ["stray", "already_so"]


@pytest.mark.usefixtures("often")
async def test_a_seat_that_keeps_hitting_a_defect_becomes_a_dead_letter_and_its_person_goes_on(
    ledger: SeatLedger, lms: ScriptedLms, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = _failing(monkeypatch, "p1", "S-1", times=99)
    key, sibling = ledger.want(seat_of("p1", "S-1"), due_in=-1), ledger.want(seat_of("p1", "S-2", "C-2"))

    async with driving(ledger.url, lms, HASTY, told):
        await eventually(lambda: ledger.work(key) == "dead")
        await eventually(lambda: ledger.work(sibling) is None)
        assert ledger.one("select reason from work") == "defect"
        ledger.want(seat_of("p1", "S-1"), "deleted")  # a newer decision is another attempt
        await eventually(lambda: len(failures) == 4)

    assert told.dead == ["defect"]


def _failing(monkeypatch: pytest.MonkeyPatch, person: str, section: str, times: int) -> list[str]:
    """Let the reaction to this seat's attempts fail so often; returns what they had come to."""
    seen: list[str] = []

    def failing(order: Order, attempt: Attempt, random: float) -> Settlement:
        if (order.seat.person, order.seat.lms_section) == (person, section) and len(seen) < times:
            seen.append(attempt.result.label)
            raise ZeroDivisionError
        return react(order, attempt, random)

    monkeypatch.setattr(driver_module, "react", failing)
    return seen


@pytest.mark.usefixtures("often")
async def test_an_outcome_that_the_ledger_refuses_costs_its_own_seat_only(ledger: SeatLedger, lms: ScriptedLms) -> None:
    keys = [ledger.want(seat_of(f"p{number}"), applied="absent") for number in range(10)]
    ledger.connection.execute(
        """create function refuse() returns trigger language plpgsql as 'begin raise exception using errcode = ''23514''; end';
           create trigger refuse before update on seat for each row
             when (old.person = 'p3' and new.applied = 'active') execute function refuse()"""
    )

    async with driving(ledger.url, lms, HASTY):
        await eventually(lambda: sum(ledger.work(key) is None for key in keys) == 9)
        ledger.connection.execute("drop trigger refuse on seat")
        await eventually(lambda: ledger.work(keys[3]) is None)

    assert [person for person, _, _ in lms.writes].count("p3") == 1
