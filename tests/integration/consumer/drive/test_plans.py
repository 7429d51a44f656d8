"""What a statement of the driver reads, when a wave of work comes to a plan that was made for an empty table."""

from __future__ import annotations

from services.consumer.drive import intents, lease, outcomes
from services.consumer.drive.lease import Lease
from services.consumer.drive.orders import Order
from services.consumer.drive.reactions import Attempt, Settlement, react
from services.consumer.guard import reviewing
from services.consumer.ledger import database, policies
from services.consumer.ledger.policies import Policies
from services.consumer.policy.model import default_text
from services.consumer.targets.port import Done, Observation
from services.kit.postgres import Connection, prefer_indexes
from tests.integration.consumer.drive.drive_support import SeatLedger, seat_of


def test_intents_of_a_wave_are_written_without_reading_all_of_it(ledger: SeatLedger) -> None:
    """The driver plans anew when the table has more than a look shows; here it was counted when there was nothing in it."""
    ledger.connection.execute("alter table work set (autovacuum_enabled = off)")  # the server would notice in its own time
    ledger.connection.execute("analyze work")
    with database.connect(ledger.url) as connection:
        prefer_indexes(connection)
        mine = lease.acquire(connection, "canvas", "me", 60)
        assert mine is not None
        for number in range(12):
            seat = ledger.want(seat_of(f"p{number}"), applied="absent")
            assert intents.open_intents(connection, mine, [seat], intents.new_ids(1), deadline_seconds=5, send_by=0)
        ledger.backlog(3000)
        connection.execute("discard plans")
        wave = [f"seat-{number}" for number in range(1000, 1020)]
        with connection.transaction():
            before = _rows_read(connection)
            opened = intents.open_intents(connection, mine, wave, intents.new_ids(20), deadline_seconds=5, send_by=0)
            assert len(opened) == 20
            assert _rows_read(connection) - before < 100


def test_a_look_at_a_wave_reads_no_more_of_it_than_it_shows(ledger: SeatLedger) -> None:
    ledger.connection.execute("alter table work set (autovacuum_enabled = off)")
    ledger.connection.execute("analyze work")
    with database.connect(ledger.url) as connection:
        prefer_indexes(connection)
        for number in range(12):
            ledger.want(seat_of(f"p{number}"), applied="absent")
            assert len(intents.look(connection, "canvas", (), 20).rows) == number + 1
            assert intents.look_at(connection, "canvas", [f"seat-{number}"], 20).rows == []
        ledger.backlog(3000)
        with connection.transaction():
            before = _rows_read(connection)
            assert len(intents.look(connection, "canvas", (), 20).rows) == 20
            assert _rows_read(connection) - before < 200
        connection.execute("discard plans")
        with connection.transaction():
            before = _rows_read(connection)
            assert len(intents.look_at(connection, "canvas", ["seat-1000", "seat-2000"], 20).rows) == 2
            assert _rows_read(connection) - before < 10


def test_an_outcome_is_recorded_without_reading_the_intents_of_the_day(ledger: SeatLedger) -> None:
    """They are kept for a day after they were closed; the plan was made when there were none."""
    ledger.connection.execute("alter table intent set (autovacuum_enabled = off)")
    ledger.connection.execute("analyze intent")
    with database.connect(ledger.url) as connection:
        prefer_indexes(connection)
        mine = lease.acquire(connection, "canvas", "me", 60)
        assert mine is not None
        for number in range(12):
            order = _opened(connection, mine, ledger.want(seat_of(f"p{number}"), applied="absent"))
            outcomes.record(connection, mine, [_done(order)], suspect_seconds=60)
        ledger.connection.execute(
            """insert into intent (target, intent, seat, tenant, person, owner, epoch, call, wanted, version, decision, mark,
                                   deadline, closed_at)
               select 'canvas', gen_random_uuid(), 's', 'main', 'p', 'me', 1, 'write', 'active', 1, 1, 0, clock_timestamp(),
                      clock_timestamp()
                 from generate_series(1, 3000)"""
        )
        order = _opened(connection, mine, ledger.want(seat_of("p99"), applied="absent"))
        with connection.transaction():
            before = _rows_read(connection, "intent")
            assert outcomes.record(connection, mine, [_done(order)], suspect_seconds=60)[order.intent].settled
            assert _rows_read(connection, "intent") - before < 10


def test_an_outcome_is_recorded_without_reading_the_seats_of_others(ledger: SeatLedger) -> None:
    """In the first minutes of a first load nobody has counted the table of seats."""
    ledger.connection.execute("alter table seat set (autovacuum_enabled = off)")
    ledger.connection.execute("alter table work set (autovacuum_enabled = off)")
    ledger.backlog(3000)
    ledger.connection.execute("delete from work")
    with database.connect(ledger.url) as connection:
        prefer_indexes(connection)
        mine = lease.acquire(connection, "canvas", "me", 60)
        assert mine is not None
        for number in range(12):
            order = _opened(connection, mine, ledger.want(seat_of(f"p{number}"), applied="absent"))
            with connection.transaction():
                before = _rows_read(connection, "seat")
                assert outcomes.record(connection, mine, [_done(order)], suspect_seconds=60)[order.intent].settled
                assert _rows_read(connection, "seat") - before < 20


def test_a_round_of_the_guard_reads_what_waits_for_it_and_not_the_backlog(ledger: SeatLedger) -> None:
    """Its plans were made when there was nothing but a removal now and then."""
    ledger.connection.execute("alter table work set (autovacuum_enabled = off)")
    ledger.connection.execute("alter table seat set (autovacuum_enabled = off)")
    ledger.connection.execute("analyze work, seat")
    policies.ensure(ledger.connection, "main", default_text())
    with database.connect(ledger.url) as connection:
        prefer_indexes(connection)
        for number in range(12):
            assert _judged(connection, ledger, f"p{number}") == 1
        ledger.backlog(3000)
        ledger.connection.execute("update guard set sizes_at = clock_timestamp()")  # counting them anew reads all seats, rarely
        with connection.transaction():
            before = _rows_read(connection) + _rows_read(connection, "seat")
            assert _judged(connection, ledger, "p99") == 1
            assert _rows_read(connection) + _rows_read(connection, "seat") - before < 100


def _judged(connection: Connection, ledger: SeatLedger, person: str) -> int:
    """A round for one removal; how many were let through or held."""
    ledger.want(seat_of(person, f"S-{person}", f"C-{person}"), "deleted", applied="active", enrollment="e")
    ledger.connection.execute("update work set state = 'guarded', cleared = null where person = %s", [person])
    done = reviewing.review(connection, "canvas", Policies("canvas"), lambda _: True)
    return done.passed.total() + done.held


def _opened(connection: Connection, mine: Lease, seat: str) -> Order:
    [order] = intents.open_intents(connection, mine, [seat], intents.new_ids(1), deadline_seconds=5, send_by=0)
    return order


def _done(order: Order) -> Settlement:
    return react(order, Attempt(Done(Observation("active", "e-1", "c-1")), None, wrote=True), 0.5)


def _rows_read(connection: Connection, table: str = "work") -> int:
    row = connection.execute(
        "select seq_tup_read + idx_tup_fetch from pg_stat_xact_user_tables where relname = %s", [table]
    ).fetchone()
    assert row is not None
    return int(row[0])
