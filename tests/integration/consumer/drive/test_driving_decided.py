"""Deciding and driving at once: whatever the order, the LMS ends as decided and the ledger's assertions hold."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from schemas.events import EnrollmentStatus
from services.consumer.nouns import Seat, SeatState, satisfied
from services.consumer.targets.port import Outcome, ServerFault, Unknown
from tests.integration.consumer.drive.drive_support import ScriptedLms, Timing, Told, driving, eventually
from tests.integration.consumer.ledger_support import Ledger, enrollment

PEOPLE = [f"9{number:06}" for number in range(25)]
SECTIONS = ["1001", "1002"]
STATUSES: list[EnrollmentStatus] = ["enrolled", "dropped", "enrolled", "withdrawn", "dropped"]


@pytest.fixture
def decided(database_url: str) -> Iterator[Ledger]:
    ledger = Ledger(database_url)
    ledger.policies.swap_settle_seconds = 0.05
    yield ledger
    ledger.close()


@pytest.mark.parametrize("seed", range(3))
async def test_changes_of_mind_during_calls_end_right(decided: Ledger, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  (it must repeat)
    lms = ScriptedLms(seconds=0.003)

    async def unreliable(lms: ScriptedLms, seat: Seat, wanted: SeatState) -> Outcome:
        fate = chance.random()
        if fate < 0.1:
            return Unknown("timeout")
        if fate < 0.2:
            lms.apply(seat, wanted)
            return Unknown("connection")
        if fate < 0.25:
            return ServerFault("http_500")
        return lms.apply(seat, wanted)

    lms.always = dict.fromkeys(PEOPLE, unreliable)
    told = Told()
    async with driving(decided.url, lms, Timing(), told) as driver:
        for version in range(1, 41):
            events = [
                enrollment(chance.choice(STATUSES), version=version, person=person, section=chance.choice(SECTIONS))
                for person in chance.sample(PEOPLE, 8)
            ]
            decided.take(*events)
            driver.wake(decided.work())
            await asyncio.sleep(chance.random() * 0.05)
        lms.always.clear()
        await eventually(lambda: not decided.work(), within=40)

    decided.check()
    assert lms.overlaps == 0
    assert told.dead == []
    rows = decided.rows("select person, lms_section, desired from seat")
    wrong = [row for row in rows if not satisfied(row[2], lms.rows.get((row[0], row[1]), "absent"))]
    assert wrong == []
