"""A driver that stands still for longer than its lease and goes on afterwards, as a process; and one that hands over in order."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from services.sandbox.canvas.server import CanvasServer
from tests.integration.consumer.drive.drive_support import (
    ScriptedLms,
    SeatLedger,
    Told,
    driving,
    eventually,
    seat_of,
)
from tests.integration.consumer.drive.test_driving_canvas import driving_canvas
from tests.serving import serving

ROOT = Path(__file__).parents[4]
Moment = Literal["before_the_call", "during_the_call", "after_the_call"]
_FAILPOINTS: dict[Moment, str] = {
    "before_the_call": "consumer.after_intent:pause@1",
    "during_the_call": "",
    "after_the_call": "consumer.after_call:pause@1",
}


@pytest.fixture
def canvas() -> Iterator[CanvasServer]:
    with serving(CanvasServer()) as server:
        server.control.sections("S-1", course="C-1")
        server.control.users("p1", "p2")
        yield server


@contextlib.contextmanager
def _driver_process(ledger: SeatLedger, canvas: CanvasServer, folder: Path, failpoint: str) -> Iterator[subprocess.Popen[bytes]]:
    token = folder / "token-of-the-process"
    token.write_text(canvas.token)
    command = [sys.executable, "-m", "tests.integration.consumer.drive.driving_program", ledger.url, canvas.url, str(token)]
    environment = {**os.environ, "FAILPOINT": failpoint}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def _stands_still(pid: int) -> bool:
    """By its state in ``/proc/<pid>/stat``."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize("moment", ["before_the_call", "during_the_call", "after_the_call"])
async def test_a_driver_that_wakes_after_its_lease_gives_nobody_access_for_long(
    ledger: SeatLedger, canvas: CanvasServer, tmp_path: Path, moment: Moment, told: Told
) -> None:
    """It has an old add in hand; meanwhile a drop was decided, and made by its successor."""
    key = ledger.want(seat_of("p1"), applied="absent")
    if moment == "during_the_call":
        canvas.control.fault("latency", ms=700, count=1)
    with _driver_process(ledger, canvas, tmp_path, _FAILPOINTS[moment]) as zombie:
        if moment == "during_the_call":
            await eventually(lambda: ledger.one("select count(*) from intent") == 1, within=20)
            zombie.send_signal(signal.SIGSTOP)
        await eventually(lambda: _stands_still(zombie.pid), within=20)

        async with driving_canvas(ledger, canvas, tmp_path, told):
            await eventually(lambda: ledger.one("select count(distinct owner) from intent where closed_at is not null") == 1, 30)
            ledger.want(seat_of("p1"), "deleted")
            await eventually(lambda: ledger.applied(key) in ("absent", "deleted"), within=20)
            before = len(canvas.control.writes())

            zombie.send_signal(signal.SIGCONT)

            await eventually(lambda: ledger.work(key) is None, within=20)
            other = ledger.want(seat_of("p2"))
            await eventually(lambda: ledger.work(other) is None)

    late = [write for write in canvas.control.writes()[before:] if write["user"] == "p1"]
    assert [write["method"] for write in late] in ([], ["DELETE"])  # never another add
    assert {row["user"]: row["state"] for row in canvas.control.roster("S-1")}.get("p1", "deleted") == "deleted"
    assert ledger.seat(key)["suspect_until"] is None
    assert canvas.control.violations() == []


async def test_a_driver_that_is_told_to_stop_hands_over_without_a_second_call(ledger: SeatLedger, lms: ScriptedLms) -> None:
    """Zero duplicates: what was under way is finished and recorded, what was only planned is left as it was."""
    ledger.backlog(150)
    lms.seconds = 0.01
    async with driving(ledger.url, lms) as first:
        await eventually(lambda: len(lms.writes) > 40, within=30)
        async with driving(ledger.url, lms):
            first.stop()
            await eventually(lambda: ledger.one("select count(*) from work") == 0, within=30)

    assert len(lms.writes) == 150
    assert lms.reads == []
    assert ledger.one("select count(distinct owner) from intent") == 2
    assert ledger.one("select count(*) from intent where outcome <> 'done'") == 0


async def test_work_of_a_killed_driver_is_read_before_it_is_written_again(ledger: SeatLedger, lms: ScriptedLms) -> None:
    """Three calls were on the wire; two had taken effect."""
    ledger.backlog(3)
    rows = ledger.connection.execute("select person from seat order by seat").fetchall()
    ledger.connection.execute(
        """insert into lease (target, owner, epoch, expires_at) values ('canvas', 'killed', 1, clock_timestamp());
           insert into intent (target, intent, seat, tenant, person, owner, epoch, call, wanted, version, decision, mark,
                               deadline)
           select target, gen_random_uuid(), seat, tenant, person, 'killed', 1, 'write', 'active', 1, 1, 0,
                  clock_timestamp() + interval '0.5 s' from seat"""
    )
    for (person,) in rows[:2]:
        lms.rows[person, "1259-S"] = "active"

    async with driving(ledger.url, lms):
        await eventually(lambda: ledger.one("select count(*) from work") == 0, within=20)

    assert {person for _, person in lms.reads} == {person for (person,) in rows}
    assert [person for person, _, _ in lms.writes] == [rows[2][0]]
