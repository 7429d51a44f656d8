"""The driver and its guard: what is held is not sent, everything else is, and nothing takes access away on its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.consumer.drive import guarding
from services.consumer.guard import holds, reviewing
from services.consumer.ledger import policies
from services.consumer.policy.model import default_text
from tests.integration.consumer.drive.drive_support import (
    ScriptedLms,
    SeatLedger,
    Timing,
    Told,
    driving,
    eventually,
    seat_of,
)
from tests.integration.consumer.ledger_support import TENANT, Ledger, enrollment, section_event


@pytest.fixture
def decided(database_url: str) -> Iterator[Ledger]:
    """A ledger with the packaged limits, whose guard does not wait for a burst to end, and 20 members in one class."""
    ledger = Ledger(database_url)
    ledger.policies.swap_settle_seconds = 0.05
    policies.store(ledger.connection, TENANT, default_text().replace("wait_seconds: 60", "wait_seconds: 0"), "registrar")
    ledger.take(*(enrollment(person=f"p{number}") for number in range(20)))
    ledger.settle()
    yield ledger
    ledger.close()


def full_class() -> ScriptedLms:
    return ScriptedLms(rows={(f"p{number}", "PSUNV-1259-1001"): "active" for number in range(20)})


def drop(decided: Ledger, numbers: range) -> None:
    decided.take(*(enrollment("dropped", person=f"p{number}", version=2) for number in numbers))


async def test_a_few_drops_are_sent(decided: Ledger) -> None:
    lms = full_class()
    drop(decided, range(2))

    async with driving(decided.url, lms):
        await eventually(lambda: not decided.work())

    assert sorted(lms.writes) == [("p0", "PSUNV-1259-1001", "deleted"), ("p1", "PSUNV-1259-1001", "deleted")]


async def test_a_wiped_class_is_held_while_adds_go_on_and_goes_when_it_is_approved(decided: Ledger) -> None:
    lms = full_class()
    drop(decided, range(19))
    decided.take(enrollment(person="newcomer"))

    async with driving(decided.url, lms):
        await eventually(lambda: set(decided.work().values()) == {"held"})
        assert lms.writes == [("newcomer", "PSUNV-1259-1001", "active")]
        [hold] = holds.find(decided.connection, "canvas", undecided=True, after=None, limit=10)
        with decided.connection.transaction():
            holds.approve(decided.connection, decided.policies, hold.hold, hold.snapshot, "ops")
        await eventually(lambda: not decided.work())

    assert len(lms.writes) == 20
    decided.check()


async def test_nobody_gets_into_the_old_class_by_a_number_that_was_given_to_another(decided: Ledger) -> None:
    """Whoever was about to be let in when the number changed its meaning is only looked up."""
    lms = full_class()
    decided.take(section_event(course="MATH-1"), enrollment(person="just before"))
    decided.take(section_event(course="ART-1", version=2), enrollment(person="newcomer"))
    drop(decided, range(1))

    async with driving(decided.url, lms):
        await eventually(lambda: set(decided.work().values()) == {"held"} and len(decided.work()) == 2)
        assert lms.writes == [("p0", "PSUNV-1259-1001", "deleted")]
        [hold] = holds.find(decided.connection, "canvas", undecided=True, after=None, limit=10)
        with decided.connection.transaction():
            holds.approve(decided.connection, decided.policies, hold.hold, hold.snapshot, "ops")
        await eventually(lambda: not decided.work())

    assert sorted(lms.writes[1:]) == [(who, "PSUNV-1259-1001", "active") for who in ("just before", "newcomer")]
    decided.check()


async def test_a_read_that_shows_more_access_than_was_believed_takes_nothing_away(ledger: SeatLedger, lms: ScriptedLms) -> None:
    """A teacher has made a student active again whom we took for inactive: removing them is the guard's to allow."""
    key = ledger.want(seat_of("p1"), "deleted", applied="inactive", enrollment="e1")
    ledger.connection.execute("update work set cleared = null, read_first = true")
    lms.rows["p1", "S-1"] = "active"

    async with driving(ledger.url, lms):
        await eventually(lambda: ledger.work(key) is None)

    assert ledger.outcomes(key) == ["not_sent", "done"], "read, left to the guard, and only then removed"
    assert ledger.one("select how from removal") == "counted"


async def test_a_defect_of_the_guard_stops_removals_and_nothing_else(decided: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(reviewing, "review", broken)
    tidied: list[object] = []
    monkeypatch.setattr(reviewing, "tidy", lambda *_: tidied.append(...))
    monkeypatch.setattr(guarding, "_TIDY_EVERY_SECONDS", 0.1)
    lms, told = full_class(), Told()
    drop(decided, range(1))
    decided.take(enrollment(person="newcomer"))

    async with driving(decided.url, lms, Timing(), told):
        await eventually(lambda: lms.writes == [("newcomer", "PSUNV-1259-1001", "active")])
        await eventually(lambda: told.failures > 1)

    assert set(decided.work().values()) == {"guarded"}
    assert len(tidied) > 1, "what is left over may be what it failed of"
