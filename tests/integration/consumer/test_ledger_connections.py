"""A process that stands still in a transaction, or whose host vanished, must not hold its people locked for long."""

from __future__ import annotations

import pytest

from services.consumer.ledger import database
from services.kit.postgres import AWAY


def test_no_connection_to_the_ledger_may_idle_in_a_transaction_for_longer_than_a_driver_may_be_silent(database_url: str) -> None:
    with database.connect(database_url) as connection:
        row = connection.execute(
            "select extract(epoch from current_setting('idle_in_transaction_session_timeout')::interval)"
        ).fetchone()
    assert row is not None
    assert 0 < row[0] <= 15


def test_whoever_was_ended_in_a_transaction_finds_the_ledger_away_and_others_find_its_locks_free(database_url: str) -> None:
    database.migrate(database_url)
    with database.connect(database_url) as other, database.connect(database_url) as stopped:
        other.execute("insert into person (tenant, person) values ('main', '1')")
        stopped.execute("set idle_in_transaction_session_timeout = '100ms'")
        stopped.execute("begin")
        stopped.execute("select from person for update")
        other.execute("set lock_timeout = '10s'")
        other.execute("select from person for update")
        with pytest.raises(AWAY):
            stopped.execute("select 1")
