"""Driver, ledger and Canvas together: what a teacher did is adopted without a call, and ends through the guard."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.consumer.ledger import overruling, policies
from services.consumer.ledger.overruling import Filter
from services.consumer.policy.model import default_text
from services.consumer.rosters import adoptions, recording, runs, sections
from services.consumer.rosters.runs import Scope
from services.consumer.targets.port import Observation, RosterRow
from services.sandbox.canvas.server import CanvasServer
from tests.integration.consumer.drive.drive_support import TARGET, SeatLedger, Told, eventually
from tests.integration.consumer.drive.test_driving_canvas import driving_canvas
from tests.integration.consumer.drive.test_rosters import PEOPLE, compared, put, shown, standing, written
from tests.integration.consumer.ledger_support import TENANT, Ledger, enrollment
from tests.serving import serving

SECTION, STUDENT = "PSUNV-1259-1001", "StudentEnrollment"
ADOPTED = (
    default_text()
    .replace("extra_manual: report", "extra_manual: {adopt_for_days: 120}")
    .replace("wrong_state: repair", "wrong_state: {adopt_for_days: 30}")
    .replace("wait_seconds: 60", "wait_seconds: 0")
)


@pytest.fixture
def canvas() -> Iterator[CanvasServer]:
    with serving(CanvasServer()) as server:
        server.control.sections(SECTION, course="C-1")
        server.control.users(*PEOPLE)
        yield server


@pytest.fixture
def decided(database_url: str) -> Iterator[Ledger]:
    """The same ledger as `ledger`, for what the student system says."""
    ledger = Ledger(database_url)
    ledger.policies.swap_settle_seconds = 0
    policies.store(ledger.connection, TENANT, ADOPTED, "registrar")
    yield ledger
    ledger.check()
    ledger.close()


def enrolled(decided: Ledger, canvas: CanvasServer, *people: str) -> None:
    """They have their seats, in the ledger and in Canvas, since an hour."""
    decided.take(*(enrollment(person=person) for person in people))
    decided.settle()
    decided.connection.execute("update seat set applied_version = version, applied_at = clock_timestamp() - interval '1 hour'")
    for person in people:
        put(canvas, person, section=SECTION)


def adopted(decided: Ledger) -> dict[str, str]:
    """What the overrides in force give, by person."""
    found = overruling.find(decided.connection, TENANT, Filter(state="in_force"), 2**62, 100)
    return {one.person: one.gives for one in found if one.actor == "policy:drift"}


async def test_guests_are_adopted_without_a_call_and_go_through_the_guard(
    ledger: SeatLedger, decided: Ledger, canvas: CanvasServer, tmp_path: Path
) -> None:
    enrolled(decided, canvas, "p00")
    for person in PEOPLE[1:]:
        put(canvas, person, section=SECTION)
    async with driving_canvas(ledger, canvas, tmp_path, Told()):
        run = await compared(ledger)
        assert (run.differences, run.repairs) == (19, 19)
        await eventually(lambda: adopted(decided) == dict.fromkeys(PEOPLE[1:], "active"))
        again = await compared(ledger)
        assert (again.differences, again.repairs, standing(ledger)) == (0, 0, [])
        assert written(canvas) == Counter()

        ledger.connection.execute(
            "update override set made_at = made_at - interval '121 days', ends_at = ends_at - interval '121 days'"
        )
        overruling.end_due(decided.connection, decided.policies)
        await eventually(lambda: set(decided.work().values()) == {"held"})
        assert len(decided.work()) == 19
    assert written(canvas) == Counter()
    assert shown(canvas, SECTION) == dict.fromkeys(PEOPLE, "active")


async def test_a_student_whom_the_teacher_concluded_is_not_given_back(
    ledger: SeatLedger, decided: Ledger, canvas: CanvasServer, tmp_path: Path
) -> None:
    enrolled(decided, canvas, *PEOPLE[:3])
    put(canvas, "p01", "completed", section=SECTION)
    async with driving_canvas(ledger, canvas, tmp_path, Told()):
        await compared(ledger)
        await eventually(lambda: adopted(decided) == {"p01": "completed"})
        again = await compared(ledger)
    assert (again.differences, standing(ledger), decided.work()) == (0, [], {})
    assert (shown(canvas, SECTION)["p01"], written(canvas)) == ("completed", Counter())


async def test_what_was_recorded_before_a_crash_is_adopted_after_it(
    ledger: SeatLedger, decided: Ledger, canvas: CanvasServer, tmp_path: Path
) -> None:
    """Another driver recorded the roster, and its process ended before it adopted anything."""
    enrolled(decided, canvas, "p00")
    put(canvas, "p01", section=SECTION)
    runs.start(ledger.connection, TARGET, uuid.uuid4(), Scope(), decided.policies, "somebody", repair=True)
    (section,) = sections.due(ledger.connection, TARGET, 10, 0)
    roster = [RosterRow(person, STUDENT, STUDENT, Observation("active", f"e-{person}", "c")) for person in ("p00", "p01")]
    recording.record(ledger.connection, TARGET, section, roster, {}, decided.policies, lambda _: True)
    assert adopted(decided) == {}

    async with driving_canvas(ledger, canvas, tmp_path, Told()):
        await eventually(lambda: adopted(decided) == {"p01": "active"})
    assert (standing(ledger), decided.work(), written(canvas)) == ([], {}, Counter())


async def test_a_section_that_cannot_be_adopted_stops_no_other_and_is_left_to_the_next_comparison(
    ledger: SeatLedger, decided: Ledger, canvas: CanvasServer, tmp_path: Path
) -> None:
    enrolled(decided, canvas, "p00")
    decided.take(enrollment(person="p00", section="1002"))
    decided.settle()
    canvas.control.sections("PSUNV-1259-1002", course="C-1")
    for section, person in (("1001", "p01"), ("1002", "p02")):
        put(canvas, person, section=f"PSUNV-1259-{section}")
    decided.connection.execute(
        """create function defect() returns trigger language plpgsql as $$ begin raise exception 'a defect'; end $$"""
    )
    decided.connection.execute(
        "create trigger defect before insert on override for each row when (new.person = 'p01') execute function defect()"
    )
    told = Told()
    async with driving_canvas(ledger, canvas, tmp_path, told):
        await compared(ledger)
        await eventually(lambda: adopted(decided) == {"p02": "active"} and adoptions.due(decided.connection, TARGET) == [])
    assert (told.failures, [one.person for one in standing(ledger)]) == (1, ["p01"])
