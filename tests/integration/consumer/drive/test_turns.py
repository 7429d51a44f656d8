"""Whose turn it is: what no backlog, however long, may do to a change that has just come."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from services.consumer.drive import intents, waiting
from services.consumer.nouns import PRIORITY_ADD, PRIORITY_DROP, PRIORITY_REPAIR, PRIORITY_SUSPECT
from services.consumer.targets.port import Presence, ServerFault, Unknown
from services.kit.postgres import Connection
from tests.integration.consumer.drive.drive_support import (
    TARGET,
    ScriptedLms,
    SeatLedger,
    Timing,
    answering,
    driving,
    eventually,
    seat_of,
)

FEW = 64
"""People in one look."""


def turns(ledger: SeatLedger) -> Counter[tuple[int, str]]:
    """How many people of each priority and term a look shows."""
    found = intents.look(ledger.connection, TARGET, [], FEW)
    return Counter((row.priority, row.term.removeprefix("PSUNV/")) for row in found.rows)


def test_a_hundred_thousand_waiting_seats_are_nothing_to_a_fresh_add(ledger: SeatLedger) -> None:
    ledger.backlog(100_000, waits_for="S-new")
    key = ledger.want(seat_of("fresh"))

    found = intents.look(ledger.connection, TARGET, [], FEW)

    assert [row.seat for row in found.rows] == [key]
    assert not found.cut


def test_every_look_at_a_long_table_goes_by_its_index_though_nobody_analysed_it(ledger: SeatLedger) -> None:
    """The plans are made while the table is empty, and stay."""
    ledger.connection.execute("alter table work set (autovacuum_enabled = false)")
    assert turns(ledger) == {}
    ledger.backlog(20_000, term="a")
    ledger.backlog(20_000, term="b", priority=PRIORITY_DROP)

    assert turns(ledger).keys() == {(PRIORITY_ADD, "a"), (PRIORITY_DROP, "b")}

    for name, plan in _plans(ledger.connection).items():
        assert "Seq Scan" not in plan, name
        assert "Bitmap" not in plan, name


def _plans(connection: Connection) -> dict[str, str]:
    """The prepared statements of this connection that hop through the lines, explained as they run."""
    found = connection.execute(
        """select name, statement, cardinality(parameter_types) from pg_prepared_statements
            where statement like '%%with recursive%%'"""
    ).fetchall()
    assert len(found) == 2
    plans: dict[str, str] = {}
    for name, statement, count in found:
        values = ", ".join(_value(statement, number) for number in range(1, count + 1))
        rows = connection.execute(f"explain execute {name}({values})".encode()).fetchall()
        plans[statement] = "\n".join(row[0] for row in rows)
    return plans


def _value(statement: str, number: int) -> str:
    """A literal for a parameter, by what it is compared with or cast to."""
    if f"${number}::text[]" in statement:
        return "'{}'"
    return "'canvas'" if f"target = ${number}" in statement else "64"


def test_a_backlog_of_one_term_leaves_room_for_each_other_term(ledger: SeatLedger) -> None:
    ledger.backlog(5_000, term="long")
    ledger.backlog(10, term="short")
    ledger.backlog(1, term="new")

    shown = turns(ledger)

    assert (shown[PRIORITY_ADD, "short"], shown[PRIORITY_ADD, "new"]) == (10, 1)
    assert shown[PRIORITY_ADD, "long"] > FEW / 2


def test_a_flood_of_drops_leaves_a_fifth_to_what_is_less_urgent(ledger: SeatLedger) -> None:
    ledger.backlog(5_000, priority=PRIORITY_DROP)
    ledger.backlog(5_000, priority=PRIORITY_ADD)

    shown = turns(ledger)

    assert shown[PRIORITY_ADD, "1259"] == pytest.approx(FEW / 5, abs=1)
    assert intents.look(ledger.connection, TARGET, [], FEW).cut == {(PRIORITY_DROP, "PSUNV/1259"), (PRIORITY_ADD, "PSUNV/1259")}


async def test_an_add_of_another_term_overtakes_a_backlog(ledger: SeatLedger, lms: ScriptedLms) -> None:
    ledger.backlog(3_000, term="long")
    lms.seconds = 0.01

    async with driving(ledger.url, lms, replace(Timing(), max_in_flight=4)):
        await eventually(lambda: lms.writes)
        key = ledger.want(seat_of("fresh", term="other"), applied="absent")
        await eventually(lambda: ledger.work(key) is None)
        assert ledger.one("select count(*) from work") > 1_000


async def test_an_endless_stream_of_drops_does_not_starve_the_adds(ledger: SeatLedger, lms: ScriptedLms) -> None:
    ledger.backlog(2_000, priority=PRIORITY_DROP)
    ledger.backlog(100, priority=PRIORITY_ADD)
    lms.seconds = 0.005

    async with driving(ledger.url, lms, replace(Timing(), max_in_flight=4)):
        await eventually(lambda: len(lms.writes) >= 300, within=30)

    asked = Counter(wanted for _, _, wanted in lms.writes[:300])
    assert asked["active"] == pytest.approx(60, abs=8)  # a fifth; the first intents are written before a fifth can be told


async def test_a_suspicion_goes_before_a_backlog_of_drops(ledger: SeatLedger, lms: ScriptedLms) -> None:
    """Between the unknown outcome and the read after the late bound nothing of the backlog may hold it up."""
    ledger.backlog(3_000, priority=PRIORITY_DROP)
    key = ledger.want(seat_of("doubt"), "deleted", applied="active", enrollment="e", due_in=-60)
    lms.rows["doubt", "S-1"] = "active"
    lms.scripts["doubt"].append(answering(Unknown("timeout"), applies=True))
    lms.seconds = 0.01

    async with driving(ledger.url, lms, replace(Timing(), max_in_flight=4)):
        await eventually(lambda: ledger.work(key) == "suspect")
        assert ledger.one("select priority from work where seat = %s", key) == PRIORITY_SUSPECT
        await eventually(lambda: ledger.work(key) is None, within=3)
        assert ledger.one("select count(*) from work") > 1_000


async def test_what_a_recovery_doubts_does_not_go_before_fresh_work(ledger: SeatLedger, lms: ScriptedLms) -> None:
    lms.rows["p1", "S-1"] = "active"
    key = ledger.want(seat_of("p1"), priority=PRIORITY_REPAIR)
    ledger.connection.execute("update work set read_first = true")
    ledger.connection.execute("update seat set mark = 1, suspect_until = clock_timestamp() + interval '1 h'")

    async with driving(ledger.url, lms):
        await eventually(lambda: ledger.work(key) == "suspect")

    assert ledger.one("select priority from work") == PRIORITY_REPAIR


async def test_one_target_that_fails_leaves_another_one_alone(ledger: SeatLedger, lms: ScriptedLms) -> None:
    """Two drivers in one process, on one ledger, each with a lease and a token of its own."""
    ledger.backlog(500, target="broken")
    broken = ScriptedLms(seconds=0.2)
    for number in range(1, 501):
        broken.always[f"person-{number}"] = answering(ServerFault("http_500"))
    async with driving(ledger.url, broken, target="broken"), driving(ledger.url, lms):
        await eventually(lambda: broken.writes)
        key = ledger.want(seat_of("fresh"), applied="absent")
        await eventually(lambda: ledger.work(key) is None, within=3)


async def test_seats_that_wait_cost_no_call_while_their_object_is_asked_for(ledger: SeatLedger, lms: ScriptedLms) -> None:
    ledger.backlog(50, waits_for="S-new")
    ledger.connection.execute(
        "insert into dependency (target, kind, object, state, next_probe_at) values (%s, 'section', 'S-new', 'missing', now())",
        [TARGET],
    )
    lms.missing = {("section", "S-new")}

    async with driving(ledger.url, lms):
        await eventually(lambda: ledger.one("select max(probes) from dependency") > 1)
        assert ledger.one("select min(next_at) > clock_timestamp() + interval '3 min' from work") is True
        assert (lms.reads, lms.writes) == ([], [])
        lms.missing.clear()
        ledger.connection.execute("update dependency set next_probe_at = clock_timestamp()")
        await eventually(lambda: ledger.one("select count(*) from work") == 0)


def test_a_timer_grows_with_the_time_that_a_seat_has_waited_up_to_six_hours(ledger: SeatLedger) -> None:
    ledger.backlog(4, waits_for="S-new")
    ledger.connection.execute(
        "insert into dependency (target, kind, object, state, next_probe_at) values (%s, 'section', 'S-new', 'missing', now())",
        [TARGET],
    )
    delays = {}
    for hours in (0, 1, 100):
        ledger.connection.execute(
            "update work set next_at = clock_timestamp(), created_at = clock_timestamp() - %s * interval '1 h'", [hours]
        )
        assert waiting.look_at_timers(ledger.connection, TARGET) == 0
        delays[hours] = float(ledger.one("select extract(epoch from max(next_at) - clock_timestamp()) from work")) / 3600
    assert delays[0] < 0.11
    assert 0.7 < delays[1] < 1.3
    assert 4.4 < delays[100] < 7.6


def test_a_wake_of_many_that_was_interrupted_is_found(ledger: SeatLedger) -> None:
    ledger.backlog(2_500, waits_for="S-new")
    ledger.connection.execute(
        "insert into dependency (target, kind, object, state, next_probe_at) values (%s, 'section', 'S-new', 'missing', now())",
        [TARGET],
    )

    assert waiting.resolve(ledger.connection, TARGET, "section", "S-new") == 2_000

    assert waiting.asleep_in_vain(ledger.connection, TARGET) == [("section", "S-new")]
    assert waiting.wake(ledger.connection, TARGET, "section", "S-new") == 500
    assert waiting.asleep_in_vain(ledger.connection, TARGET) == []


async def test_probes_take_a_tenth_of_the_token_and_the_newest_object_does_not_wait_for_the_rest(
    ledger: SeatLedger, lms: ScriptedLms
) -> None:
    ledger.connection.execute(
        """insert into dependency (target, kind, object, state, probes, next_probe_at)
           select %s, 'user', 'old-' || i, 'missing', 20, clock_timestamp() - interval '1 h'
             from generate_series(1, 2000) as i""",
        [TARGET],
    )
    ledger.connection.execute(
        """insert into work (target, seat, tenant, person, term, state, priority, next_at, waits_kind, waits_object)
           select target, 'seat-' || object, 'main', object, 't', 'waiting', 2, clock_timestamp() + interval '1 h', kind, object
             from dependency"""
    )
    probes: list[str] = []
    at_once = most = 0

    async def probe(kind: str, sis_id: str) -> Presence:
        nonlocal at_once, most
        probes.append(sis_id)
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0.02)
        at_once -= 1
        return Presence(sis_id == "new")

    lms.probe = probe  # type: ignore[method-assign]
    lms.missing = {("user", "new")}
    key = ledger.want(seat_of("new"))
    async with driving(ledger.url, lms, replace(Timing(), max_in_flight=20)):
        await eventually(lambda: ledger.work(key) == "waiting")
        lms.missing.clear()
        await eventually(lambda: ledger.work(key) is None, within=4)

    assert most == 2
    assert len(probes) > 20
