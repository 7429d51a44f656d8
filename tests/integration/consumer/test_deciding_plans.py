"""What deciding one person reads in a ledger whose tables nobody has counted yet, as in the first minutes of a first load."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from services.consumer.ledger import database
from services.kit.postgres import Connection, prefer_indexes
from tests.integration.consumer.ledger_support import Ledger, arrivals, enrollment

TABLES = ("person", "entity", "entitlement", "seat", "work", "intent")
STRANGERS = 1500


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    it = Ledger(database_url)
    for table in TABLES:
        it.connection.execute(f"alter table {table} set (autovacuum_enabled = off)".encode())
    it.take(*(enrollment(person=f"8{number:06}") for number in range(STRANGERS)))
    yield it
    it.close()


def _settled(ledger: Ledger) -> None:
    ledger.settle()


def _left_to_do(_: Ledger) -> None:
    """The next change finds that the LMS is as wanted again, which is the longer question."""


@pytest.mark.parametrize("between", [_settled, _left_to_do])
def test_a_change_is_decided_without_reading_anybody_else(ledger: Ledger, between: Callable[[Ledger], None]) -> None:
    ledger.take(enrollment(person="9", version=1))
    ledger.settle()
    with database.connect(ledger.url) as connection:
        prefer_indexes(connection)
        for version in range(2, 20):
            event = enrollment("dropped" if version % 2 == 0 else "enrolled", person="9", version=version)
            with connection.transaction():
                before = _rows_read(connection)
                ledger.take_batch(connection, arrivals(event))
                read = _rows_read(connection) - before
            between(ledger)
            assert read < 50, f"change {version} has read {read} rows"


def _rows_read(connection: Connection) -> int:
    row = connection.execute(
        "select sum(seq_tup_read + idx_tup_fetch)::int from pg_stat_xact_user_tables where relname = any(%s)", [list(TABLES)]
    ).fetchone()
    assert row is not None
    return int(row[0])
