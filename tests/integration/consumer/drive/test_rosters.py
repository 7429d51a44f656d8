"""Driver, ledger and Canvas together: comparing rosters before the first write, beside another feed, and for good."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.consumer.ledger import policies, writing
from services.consumer.ledger.policies import Policies
from services.consumer.ledger.writing import Compared
from services.consumer.policy.model import default_text
from services.consumer.rosters import findings, runs
from services.consumer.rosters.findings import Filter, Finding
from services.consumer.rosters.runs import AlreadyRunning, Run, Scope
from services.sandbox.canvas.server import CanvasServer
from tests.integration.consumer.drive.drive_support import TARGET, SeatLedger, Told, eventually, seat_of
from tests.integration.consumer.drive.test_driving_canvas import driving_canvas
from tests.policies import unguarded
from tests.serving import serving

PEOPLE = [f"p{number:02}" for number in range(20)]
TERM = "PSUNV/1259"


@pytest.fixture
def canvas() -> Iterator[CanvasServer]:
    with serving(CanvasServer()) as server:
        server.control.sections("S-1", "S-2", course="C-1")
        server.control.users(*PEOPLE)
        yield server


@pytest.fixture
def ledger(ledger: SeatLedger) -> SeatLedger:
    policies.ensure(ledger.connection, "main", unguarded())
    return ledger


def put(canvas: CanvasServer, person: str, state: str = "active", section: str = "S-1", **more: Any) -> None:
    """Somebody else's row."""
    row = {"section": section, "user": person, "role": "StudentEnrollment", "state": state}
    canvas.control.objects(enrollments=[row | more])


def shown(canvas: CanvasServer, section: str = "S-1") -> dict[str, str]:
    return {row["user"]: row["state"] for row in canvas.control.roster(section)}


def written(canvas: CanvasServer) -> Counter[str]:
    """How many changes were applied, by method."""
    return Counter(write["method"] for write in canvas.control.writes() if write["applied"])


def settle(ledger: SeatLedger, person: str, state: str = "active") -> str:
    """A seat that was confirmed some time ago."""
    key = ledger.want(seat_of(person), state, applied=state)  # type: ignore[arg-type]
    ledger.connection.execute(
        "update seat set applied_version = version, applied_at = clock_timestamp() - interval '1 hour', origin = 'ours'"
        " where seat = %s",
        [key],
    )
    ledger.connection.execute("delete from work where seat = %s", [key])
    return key


async def compared(ledger: SeatLedger, scope: Scope = Scope(), *, repair: bool = True) -> Run:  # noqa: B008  (a tuple)
    """A comparison from its start to its end, after everything that came before has become quiet."""
    ledger.connection.execute("update seat set applied_at = applied_at - interval '1 hour' where applied_at < clock_timestamp()")
    run = uuid.uuid4()
    with ledger.connection.transaction():
        runs.start(ledger.connection, TARGET, run, scope, Policies(TARGET), "somebody", repair=repair)

    def ended() -> bool:
        found = runs.read(ledger.connection, TARGET, run)
        return found is not None and found.state == "done"

    await eventually(ended)
    found = runs.read(ledger.connection, TARGET, run)
    assert found is not None
    return found


def standing(ledger: SeatLedger) -> list[Finding]:
    return findings.page(ledger.connection, Policies(TARGET), Filter(), 0, 1000)


def kinds(ledger: SeatLedger) -> dict[str | None, str]:
    return {one.person: one.kind for one in standing(ledger)}


def into_shadow(ledger: SeatLedger, term: str = "") -> None:
    writing.shadow(ledger.connection, TARGET, term, "a trial", "somebody")


async def test_a_shadow_is_compared_and_nothing_is_written(ledger: SeatLedger, canvas: CanvasServer, tmp_path: Path) -> None:
    into_shadow(ledger)
    for person in PEOPLE[:10]:
        ledger.want(seat_of(person))
    for person in PEOPLE[:8]:
        put(canvas, person, sis_import_id=1)
    ledger.want(seat_of("p11"), "deleted")
    put(canvas, "p11", sis_import_id=1)
    put(canvas, "p12", sis_import_id=1)
    put(canvas, "p13")

    told = Told()
    async with driving_canvas(ledger, canvas, tmp_path, told):
        run = await compared(ledger)
        assert kinds(ledger) == {
            "p08": "missing",
            "p09": "missing",
            "p11": "wrong_state",
            "p12": "extra_sis",
            "p13": "extra_manual",
        }
        assert (run.sections, run.people, run.differences, run.repairs) == (1, 11, 5, 0)
        assert ledger.one("select count(*) from work") == 3
        assert ledger.one("select count(*) from seat where applied = 'active' and origin = 'adopted'") == 9
        assert ledger.one("select count(*) from seat where applied = 'unknown'") == 0
        assert {one.live for one in standing(ledger)} == {False}

        # The other feed goes on; the next comparison shows what it did.
        put(canvas, "p08", sis_import_id=2)
        put(canvas, "p11", "deleted", sis_import_id=2)
        await compared(ledger)
        assert kinds(ledger) == {"p09": "missing", "p12": "extra_sis", "p13": "extra_manual"}
        assert ledger.one("select count(*) from work") == 1
        assert written(canvas) == Counter()

        released = writing.go_live(ledger.connection, TARGET, TERM, "the trial is over", "somebody", compared=Compared("{}", ""))
        assert released == writing.Released(adds=1, removals=0, updates=0)
        told.calls.clear()
        await eventually(lambda: ledger.one("select count(*) from work") == 0)
        assert told.calls == [("read", "done"), ("write", "done")], "what was learnt in shadow is looked at before it is written"
        await eventually(lambda: standing(ledger) and len(standing(ledger)) == 2, within=20)
    assert written(canvas) == Counter(POST=1)
    assert shown(canvas)["p09"] == "active"
    assert canvas.control.violations() == []


async def test_only_a_term_that_is_live_is_written_to(ledger: SeatLedger, canvas: CanvasServer, tmp_path: Path) -> None:
    into_shadow(ledger, "PSUNV/1262")
    ledger.want(seat_of("p00", "S-2", term="1262"))
    put(canvas, "p01", section="S-2")
    ledger.want(seat_of("p01", "S-2", term="1262"), "deleted", applied="active")
    live = ledger.want(seat_of("p00", "S-1"))
    async with driving_canvas(ledger, canvas, tmp_path, Told()):
        await eventually(lambda: ledger.work(live) is None)
        ledger.want(seat_of("p02"))
        await eventually(lambda: shown(canvas).get("p02") == "active")
        assert shown(canvas, "S-2") == {"p01": "active"}

        writing.go_live(ledger.connection, TARGET, "PSUNV/1262", "now", "somebody", compared=None)
        await eventually(lambda: shown(canvas, "S-2") == {"p00": "active", "p01": "deleted"})


async def test_what_was_changed_behind_our_back_is_repaired_and_nothing_else(
    ledger: SeatLedger, canvas: CanvasServer, tmp_path: Path
) -> None:
    for person in PEOPLE[:10]:
        settle(ledger, person)
        put(canvas, person)
    settle(ledger, "p10", "deleted")
    put(canvas, "p01", "deleted")
    put(canvas, "p02", "completed")
    put(canvas, "p03", "inactive")
    put(canvas, "p10", "active")

    async with driving_canvas(ledger, canvas, tmp_path, Told()):
        run = await compared(ledger)
        assert (run.differences, run.repairs) == (4, 4)
        await eventually(lambda: ledger.one("select count(*) from work") == 0)
        assert shown(canvas) == dict.fromkeys(PEOPLE[:10], "active") | {"p10": "deleted"}
        assert written(canvas).total() == 4
        again = await compared(ledger)
    assert (again.differences, standing(ledger)) == (0, [])
    assert canvas.control.violations() == []


async def test_a_report_repairs_nothing(ledger: SeatLedger, canvas: CanvasServer, tmp_path: Path) -> None:
    settle(ledger, "p01")
    async with driving_canvas(ledger, canvas, tmp_path, Told()):
        await compared(ledger, repair=False)
        await compared(ledger, repair=False)
        (found,) = standing(ledger)
        assert (found.kind, found.confirmed, found.repair_at) == ("missing", True, None)
        assert ledger.one("select count(*) from work") == 0
    assert written(canvas) == Counter()


async def test_repairs_stop_at_their_bound(ledger: SeatLedger, canvas: CanvasServer, tmp_path: Path) -> None:
    policies.store(ledger.connection, "main", unguarded().replace("most_repairs: 500", "most_repairs: 3"), "registrar")
    for person in PEOPLE[:8]:
        settle(ledger, person)
    async with driving_canvas(ledger, canvas, tmp_path, Told()):
        run = await compared(ledger)
        await eventually(lambda: ledger.one("select count(*) from work") == 0)
    assert (run.differences, run.repairs, written(canvas)) == (8, 3, Counter(POST=3))


async def test_who_was_put_there_by_hand_goes_after_the_days_that_the_policy_gives(
    ledger: SeatLedger, canvas: CanvasServer, tmp_path: Path
) -> None:
    rules = unguarded().replace("extra_manual: report", "extra_manual: {remove_after_days: 14}")
    policies.store(ledger.connection, "main", rules, "registrar")
    settle(ledger, "p00")
    put(canvas, "p00")
    put(canvas, "p01")
    put(canvas, "p02", sis_import_id=3)
    put(canvas, "p03", role="TaEnrollment")
    async with driving_canvas(ledger, canvas, tmp_path, Told()):
        await compared(ledger)
        assert kinds(ledger) == {"p01": "extra_manual", "p02": "extra_sis"}
        assert written(canvas) == Counter()

        ledger.connection.execute("update roster_finding set found_at = found_at - interval '14 days'")
        run = await compared(ledger)
        assert run.repairs == 1
        await eventually(lambda: shown(canvas)["p01"] == "deleted")
        await eventually(lambda: kinds(ledger) == {"p02": "extra_sis"}, within=20)
    assert written(canvas) == Counter(DELETE=1)
    assert ledger.one("select origin, desired, applied from seat where person = 'p01'") == ("foreign", "deleted", "deleted")


async def test_a_wrong_role_is_put_right_on_both_sides(ledger: SeatLedger, canvas: CanvasServer, tmp_path: Path) -> None:
    settle(ledger, "p01")
    put(canvas, "p01", "deleted")
    put(canvas, "p01", role="TaEnrollment")
    async with driving_canvas(ledger, canvas, tmp_path, Told()):
        run = await compared(ledger)
        assert (run.differences, run.repairs) == (1, 2)
        await eventually(lambda: ledger.one("select count(*) from work") == 0)
    roles = {row["role"]: row["state"] for row in canvas.control.roster("S-1")}
    assert roles == {"StudentEnrollment": "active", "TaEnrollment": "deleted"}


async def test_a_removal_that_a_roster_asks_for_is_held_like_any_other(
    ledger: SeatLedger, canvas: CanvasServer, tmp_path: Path
) -> None:
    rules = default_text().replace("extra_manual: report", "extra_manual: {remove_after_days: 0}")
    policies.store(ledger.connection, "main", rules.replace("wait_seconds: 60", "wait_seconds: 0"), "registrar")
    for person in PEOPLE:
        put(canvas, person)
    settle(ledger, "p00")
    async with driving_canvas(ledger, canvas, tmp_path, Told()):
        run = await compared(ledger)
        assert run.repairs == 19
        await eventually(lambda: ledger.one("select count(*) from work where state = 'held'") == 19)
    assert written(canvas) == Counter()


async def test_somebody_under_another_id_is_neither_missing_nor_extra(
    ledger: SeatLedger, canvas: CanvasServer, tmp_path: Path
) -> None:
    canvas.control.objects(users=[{"sis_user_id": "old-01", "also": "p01"}])
    canvas.control.objects(users=[{"sis_user_id": "p01", "login_state": "suspended"}])
    into_shadow(ledger)
    key = ledger.want(seat_of("old-01"))
    put(canvas, "p01", sis_import_id=1)
    async with driving_canvas(ledger, canvas, tmp_path, Told()):
        await compared(ledger)
    assert standing(ledger) == []
    assert (ledger.applied(key), ledger.work(key)) == ("active", None)


async def test_a_seat_in_motion_is_left_alone(ledger: SeatLedger, canvas: CanvasServer, tmp_path: Path) -> None:
    """Recorded after the roster was read, suspect, failing: what the roster shows of it may be old, or is known already."""
    later, suspect, dead = (settle(ledger, person) for person in ("p01", "p02", "p03"))
    ledger.connection.execute("update seat set applied_at = clock_timestamp() + interval '1 minute' where seat = %s", [later])
    ledger.connection.execute("update seat set suspect_until = clock_timestamp() + interval '1 hour' where seat = %s", [suspect])
    ledger.connection.execute("update seat set applied = 'absent' where seat = %s", [dead])
    ledger.connection.execute(
        """insert into work (target, seat, tenant, person, state, priority, next_at, reason)
           select target, seat, tenant, person, 'dead', 2, clock_timestamp(), 'refused' from seat where seat = %s""",
        [dead],
    )
    async with driving_canvas(ledger, canvas, tmp_path, Told()):
        run = await compared(ledger)
    assert (run.differences, run.untold, standing(ledger), ledger.work(dead)) == (0, 3, [], "dead")
    assert written(canvas) == Counter()


async def test_a_section_that_is_missing_or_cannot_be_read_ends_nothing(
    ledger: SeatLedger, canvas: CanvasServer, tmp_path: Path
) -> None:
    for section in ("S-1", "S-2", "S-9"):
        key = ledger.want(seat_of("p01", section), applied="active")
        ledger.connection.execute("update seat set applied_at = clock_timestamp() - interval '1 hour' where seat = %s", [key])
        ledger.connection.execute("delete from work where seat = %s", [key])
    put(canvas, "p01")
    put(canvas, "p01", section="S-2")
    canvas.control.fault("status", status=500, endpoints=["enrollments.list"], count=2)
    async with driving_canvas(ledger, canvas, tmp_path, Told()):
        run = await compared(ledger)
    assert (run.sections, run.open, run.missing, run.failed, run.differences) == (3, 0, 1, 0, 0)


async def test_one_comparison_at_a_time(ledger: SeatLedger) -> None:
    settle(ledger, "p01")
    first = uuid.uuid4()
    runs.start(ledger.connection, TARGET, first, Scope(), Policies(TARGET), "somebody", repair=False)
    with pytest.raises(AlreadyRunning) as refused:
        runs.start(ledger.connection, TARGET, uuid.uuid4(), Scope(), Policies(TARGET), "somebody", repair=False)
    assert refused.value.run == first
    assert runs.cancel(ledger.connection, TARGET, first)
    assert not runs.cancel(ledger.connection, TARGET, first)


async def test_a_comparison_goes_on_where_another_driver_stopped(
    ledger: SeatLedger, canvas: CanvasServer, tmp_path: Path
) -> None:
    """Sections that were read stay read; one whose lease was lost before it was recorded is read again."""
    for person in PEOPLE[:5]:
        settle(ledger, person)
        put(canvas, person)
    ledger.connection.execute(
        """insert into seat (target, seat, tenant, person, section, lms_section, lms_user, role, base_role, desired, effect,
                             version, policy_version, accepted_at, applied, applied_at)
           select target, 'S-' || i || '/p', tenant, person, 'PSUNV/1259/S-' || i, 'S-' || i, lms_user, role, base_role,
                  'deleted', 'drop', 1, 1, accepted_at, 'deleted', applied_at
             from seat, generate_series(100, 160) as i where person = 'p00'"""
    )
    canvas.control.sections(*(f"S-{number}" for number in range(100, 161)), course="C-1")
    run = uuid.uuid4()
    runs.start(ledger.connection, TARGET, run, Scope(), Policies(TARGET), "somebody", repair=False)

    def left() -> int:
        found = runs.read(ledger.connection, TARGET, run)
        assert found is not None
        return found.open

    async with driving_canvas(ledger, canvas, tmp_path, Told()):
        await eventually(lambda: left() < 50)
    before = left()
    canvas.control.forget_calls()
    async with driving_canvas(ledger, canvas, tmp_path, Told()):
        await eventually(lambda: left() == 0)
    assert 0 < before < 62
    assert canvas.control.calls()["total"] <= before + 2
