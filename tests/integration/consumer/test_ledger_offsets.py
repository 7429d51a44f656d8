"""The stored offset moves by compare-and-set, in the batch's own transaction; and the ledger knows when it lost history."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta

import pytest

from services.consumer.ledger import database, history, offsets, recovery
from services.consumer.ledger.history import Happening
from services.consumer.ledger.offsets import LogPartition, OffsetConflict, Span
from services.consumer.ledger.recovery import HistoryChanged
from services.consumer.ledger.storing import Batch, store
from services.kit.postgres import DatabaseIdentity, identity
from tests.integration.consumer.ledger_support import Ledger, arrivals, enrollment, seat

PLACE = LogPartition("id", "enrollstream.enrollment.v1", 0)


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    ledger = Ledger(database_url)
    offsets.begin(ledger.connection, {PLACE: 0})
    yield ledger
    ledger.check()
    ledger.close()


def batch(first: int, end: int, *, version: int = 1, status: str = "enrolled") -> Batch:
    event = enrollment(status, version=version)  # type: ignore[arg-type]
    return Batch(arrivals(event, first_offset=first), spans=[Span(PLACE, first, end)])


def keep(ledger: Ledger, what: Batch) -> None:
    store(ledger.connection, what, ledger.policies, identity(ledger.connection))


def position(ledger: Ledger) -> int | None:
    return offsets.stored(ledger.connection, [PLACE]).get(PLACE)


def test_a_batch_that_begins_after_the_stored_offset_is_refused_with_everything_in_it(ledger: Ledger) -> None:
    with pytest.raises(OffsetConflict):
        keep(ledger, batch(5, 9))

    assert position(ledger) == 0
    assert ledger.rows("select count(*) from entity") == [(0,)]
    assert ledger.rows("select count(*) from history") == [(0,)]


def test_a_zombies_batch_neither_moves_the_offset_back_nor_a_seat(ledger: Ledger) -> None:
    keep(ledger, batch(0, 5, version=1))
    keep(ledger, batch(5, 9, version=2, status="dropped"))

    keep(ledger, batch(0, 5, version=1))

    assert position(ledger) == 9
    assert ledger.desired() == {seat(): "deleted"}


def test_without_a_stored_offset_nothing_is_stored(ledger: Ledger) -> None:
    ledger.connection.execute("delete from intake_offset")

    with pytest.raises(OffsetConflict):
        keep(ledger, batch(0, 5))

    assert position(ledger) is None


def test_a_first_start_does_not_move_an_offset_that_is_there(ledger: Ledger) -> None:
    keep(ledger, batch(0, 5))

    offsets.begin(ledger.connection, {PLACE: 0})

    assert position(ledger) == 5


def test_two_readers_of_one_batch_count_it_once(ledger: Ledger) -> None:
    def read(_number: int) -> None:
        with database.connect(ledger.url) as connection:
            store(connection, batch(0, 5), ledger.policies, identity(connection))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, range(4)))

    assert position(ledger) == 5
    assert ledger.rows("select count(*) from history where what = 'received'") == [(1,)]
    assert len(ledger.history("decided")) == 1


def test_activity_counts_every_batch(ledger: Ledger) -> None:
    assert offsets.last_activity(ledger.connection) == 0
    keep(ledger, batch(0, 5))
    keep(ledger, batch(5, 9, version=2))

    assert offsets.last_activity(ledger.connection) == 2


def test_a_batch_of_a_session_from_before_a_failover_is_abandoned(ledger: Ledger) -> None:
    before = identity(ledger.connection)

    with pytest.raises(HistoryChanged):
        store(ledger.connection, batch(0, 5), ledger.policies, before._replace(timeline=before.timeline - 1))

    assert position(ledger) == 0


@pytest.mark.parametrize("known", [("7000000000000000000", None), (None, 99)])
def test_a_database_that_is_not_the_one_we_knew_means_recovery_once(ledger: Ledger, known: tuple[str | None, int | None]) -> None:
    ledger.take(enrollment())
    ledger.settle()
    current = recovery.begin_session(ledger.connection, 60)
    assert not recovery.is_active(ledger.connection)
    remembered = DatabaseIdentity(known[0] or current.system_id, known[1] or current.timeline)
    ledger.connection.execute("update recovery set system_id = %s, timeline = %s", remembered)

    def start(_number: int) -> None:
        with database.connect(ledger.url) as connection:
            assert recovery.begin_session(connection, 60) == current

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(start, range(3)))

    assert ledger.rows("select applied, mark, suspect_until is not null from seat") == [("unknown", 1, True)]
    assert ledger.rows("select action from audit") == [("recovery.enter",)]
    known_now = recovery.read(ledger.connection)
    assert known_now is not None
    assert (known_now.active, known_now.reason, known_now.known, known_now.log_lost) == (True, "database", current, False)


def test_recovery_ends_when_every_seat_has_been_looked_at(ledger: Ledger) -> None:
    ledger.take(enrollment(person="1"), enrollment(person="2"))
    ledger.settle()
    recovery.begin_session(ledger.connection, 60)
    recovery.enter(ledger.connection, "test", 0, behind=False)

    assert not recovery.end_if_done(ledger.connection)
    ledger.connection.execute("update work set read_first = false where person = '1'")
    assert not recovery.end_if_done(ledger.connection)
    ledger.connection.execute("update work set state = 'waiting', waits_kind = 'user', waits_object = '2' where person = '2'")
    ledger.connection.execute("insert into dependency values ('canvas', 'user', '2', 'missing', now(), null, 0, now())")
    assert recovery.end_if_done(ledger.connection), "what waits has been looked at: the answer is why it waits"
    assert not recovery.end_if_done(ledger.connection)


def entered(ledger: Ledger, *, log_lost: bool = False) -> datetime:
    """When recovery mode was entered, just now."""
    recovery.begin_session(ledger.connection, 60)
    recovery.enter(ledger.connection, "test", 0, log_lost=log_lost)
    known = recovery.read(ledger.connection)
    assert known is not None
    assert known.behind
    return known.since


def test_a_ledger_is_behind_until_it_has_read_as_far_as_the_log_went(ledger: Ledger) -> None:
    keep(ledger, batch(0, 5))
    since = entered(ledger)

    assert not recovery.catch_up(ledger.connection, since, {PLACE: 9})
    ledger.connection.execute("update work set read_first = false")
    assert not recovery.end_if_done(ledger.connection), "every seat was looked at, but there may be more in the log"

    keep(ledger, batch(5, 9, version=2))
    assert not recovery.catch_up(ledger.connection, since - timedelta(seconds=1), {PLACE: 9}), "entered again meanwhile"
    assert recovery.catch_up(ledger.connection, since, {PLACE: 9})
    assert not recovery.catch_up(ledger.connection, since, {PLACE: 9})


def test_when_the_log_has_lost_something_too_reading_it_is_not_enough(ledger: Ledger) -> None:
    keep(ledger, batch(0, 5))
    since = entered(ledger, log_lost=True)

    assert not recovery.catch_up(ledger.connection, since, {PLACE: 5})
    ledger.connection.execute("insert into digest_reading (topic_id, next, agreed_for) values ('digests', 0, %s)", [since])
    assert recovery.catch_up(ledger.connection, since, {PLACE: 5})


def test_history_has_its_months_in_time_and_takes_rows_anyway(ledger: Ledger) -> None:
    history.append(ledger.connection, [Happening("main", "1", "received")])
    today = ledger.rows("select current_date")[0][0]

    history.create_partitions(ledger.connection, today)
    history.create_partitions(ledger.connection, today)
    history.create_partitions(ledger.connection, date(2031, 11, 30))

    names = {name for (name,) in ledger.rows("select relname from pg_class where relname ~ '^history_203'")}
    assert {"history_2031_11", "history_2031_12", "history_2032_01"} <= names
    history.append(ledger.connection, [Happening("main", "1", "received")])
    assert ledger.rows("select count(*) from history") == [(2,)]
