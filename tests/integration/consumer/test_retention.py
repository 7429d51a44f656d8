"""What the ledger forgets, and what it keeps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from uuid import UUID

import pytest

from services.consumer.ledger import database, history, replays, retention
from services.consumer.ledger.replay_scopes import Scope
from services.consumer.ledger.replays import Order
from tests.integration.consumer.ledger_support import TENANT, Ledger, enrollment

NOW = datetime.now(UTC)
MONTHS = [date(2026, month, 1) for month in range(6, 12)]


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    ledger = Ledger(database_url)
    yield ledger
    ledger.close()


def partitions(ledger: Ledger) -> list[date]:
    return [month for month in history.months(ledger.connection) if month.year == 2026]


def test_whole_months_of_history_are_dropped(ledger: Ledger) -> None:
    history.create_partitions(ledger.connection, MONTHS[0], len(MONTHS))
    for month in MONTHS:
        ledger.connection.execute(
            "insert into history (at, tenant, person, what) values (%s, 'main', '1', 'received')", [month + timedelta(days=3)]
        )

    retention.forget(ledger.connection, datetime(2026, 11, 28, tzinfo=UTC), history_months=2)

    assert partitions(ledger) == MONTHS[3:]
    assert ledger.rows("select count(*) from history") == [(3,)]


def test_zero_months_keep_everything(ledger: Ledger) -> None:
    history.create_partitions(ledger.connection, MONTHS[0], 2)
    retention.forget(ledger.connection, datetime(2036, 1, 1, tzinfo=UTC), history_months=0)
    assert partitions(ledger) == MONTHS[:2]


def test_a_month_that_is_being_read_is_dropped_later(ledger: Ledger) -> None:
    history.create_partitions(ledger.connection, MONTHS[0], 1)
    with closing(database.connect(ledger.url, autocommit=False)) as reader:
        reader.execute("select count(*) from history")
        retention.forget(ledger.connection, NOW, history_months=1)
        assert partitions(ledger) == MONTHS[:1]
    retention.forget(ledger.connection, NOW, history_months=1)
    assert partitions(ledger) == []


def test_replays_are_forgotten_long_after_their_end_and_a_plan_with_the_replay_that_applied_it(ledger: Ledger) -> None:
    kept = [replay(ledger), replay(ledger, ended_days_ago=89)]
    old_plan = replay(ledger, ended_days_ago=92)
    replay(ledger, ended_days_ago=91, plan=old_plan)
    plan_of_a_kept_one = replay(ledger, ended_days_ago=91)
    kept += [plan_of_a_kept_one, replay(ledger, ended_days_ago=89, plan=plan_of_a_kept_one)]

    retention.forget(ledger.connection, NOW, history_months=0)

    assert {name for (name,) in ledger.rows("select replay from replay")} == set(kept)


def replay(ledger: Ledger, ended_days_ago: int | None = None, plan: UUID | None = None) -> UUID:
    """One that runs, or that ended."""
    scope = Scope.model_validate({"person": {"tenant": TENANT, "person": "9000001"}})
    made = replays.create(ledger.connection, Order(scope, [], dry_run=plan is None, verify=False, plan=plan), "ops")
    if ended_days_ago is not None:
        ended = NOW - timedelta(days=ended_days_ago)
        ledger.connection.execute("update replay set state = 'done', finished_at = %s where replay = %s", [ended, made])
    return made


def test_a_hold_stays_while_anything_is_in_it(ledger: Ledger) -> None:
    ledger.take(enrollment())
    for closed_days_ago in (None, 89, 91, 91):
        ledger.connection.execute(
            """insert into hold (target, tenant, scope, key, removals, active, gained, allowed, state, closed_at)
               values ('canvas', 'main', 'tenant', '', 1, 1, 0, 'most 0', %s, %s)""",
            ["open" if closed_days_ago is None else "discarded", closed_days_ago and NOW - timedelta(days=closed_days_ago)],
        )
    holds = [hold for (hold,) in ledger.rows("select hold from hold order by hold")]
    ledger.connection.execute("update work set state = 'held', hold = %s, hold_number = 1", [holds[-1]])

    retention.forget(ledger.connection, NOW, history_months=0)

    assert [hold for (hold,) in ledger.rows("select hold from hold order by hold")] == [*holds[:2], holds[-1]]
