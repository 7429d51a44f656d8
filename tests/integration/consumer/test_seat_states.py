"""In what state every seat is, since when, and why; and that nothing in the ledger ever goes back."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import psycopg
import pytest

from services.consumer.gauges import SeatGauges
from services.consumer.ledger import dead_letters, states
from services.consumer.metrics import Metrics
from services.consumer.nouns import SeatRef
from tests.integration.consumer.ledger_support import TIMERS, Ledger, enrollment, seat


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    ledger = Ledger(database_url)
    yield ledger
    ledger.close()


def change(ledger: Ledger, ref: SeatRef, assignment: str) -> None:
    statement = f"update work set {assignment} where (target, seat) = (%s, %s)"  # noqa: S608  (the test's own words)
    ledger.connection.execute(statement.encode(), ref)


def one_in_each_state(ledger: Ledger) -> None:
    """Seven people: settled, pending, retrying, waiting for a user, held, refused, and pending with a call of unknown outcome."""
    ledger.take(*(enrollment(person=str(number)) for number in range(7)))
    ledger.settle(seat("0"))
    change(ledger, seat("2"), "state = 'retrying', next_at = clock_timestamp() + interval '1 minute', reason = 'server_fault'")
    change(ledger, seat("3"), "state = 'waiting', waits_kind = 'user', waits_object = '3'")
    change(ledger, seat("4"), "state = 'held'")
    ledger.kill(seat("5"), "refused", "unknown_role")
    ledger.connection.execute("update seat set suspect_until = clock_timestamp() where seat = %s", [seat("6").seat])
    ledger.connection.execute(
        """insert into intent (target, intent, seat, tenant, person, owner, epoch, call, wanted, version, decision, mark,
                               deadline)
           values ('canvas', %s, %s, 'main', '1', 'somebody', 1, 'write', 'active', 1, 1, 0, clock_timestamp())""",
        [uuid.uuid4(), seat("1").seat],
    )


def test_every_state_is_a_gauge_with_its_number_and_its_age(ledger: Ledger) -> None:
    one_in_each_state(ledger)
    metrics = Metrics()

    SeatGauges(metrics, ledger.policies, TIMERS).observe(ledger.connection)

    def gauge(name: str, **labels: str) -> float:
        value = metrics.registry.get_sample_value(name, {"target": "canvas"} | labels)
        assert value is not None, labels
        return value

    # Who is suspect counts as such beside having work, and so does whoever's call is under way.
    expected = {"settled": 1, "pending": 2, "retrying": 1, "waiting": 1, "held": 1, "dead": 1, "suspect": 1, "intent_open": 1}
    assert {state: gauge("sis_seats", state=state) for state in expected} == expected
    assert all(gauge("sis_seats_oldest_seconds", state=state) > 0 for state in expected if state != "settled")
    assert (gauge("sis_waiting_seats", kind="user"), gauge("sis_waiting_seats", kind="section")) == (1, 0)
    assert gauge("sis_dead_seats", **{"class": "refused:unknown_role"}) == 1
    assert gauge("sis_dead_seats_left_to_people") == 0


def test_an_emptied_state_and_an_emptied_class_read_zero(ledger: Ledger) -> None:
    ledger.take(enrollment())
    ledger.kill(seat(), "refused", "validation")
    metrics = Metrics()
    gauges = SeatGauges(metrics, ledger.policies, TIMERS)
    gauges.observe(ledger.connection)
    ledger.settle()

    gauges._count_unsettled._next_at = 0  # its turn has come
    gauges.observe(ledger.connection)

    of_class = {"target": "canvas", "class": "refused:validation"}
    assert metrics.registry.get_sample_value("sis_dead_seats", of_class) == 0
    assert metrics.registry.get_sample_value("sis_seats", {"target": "canvas", "state": "dead"}) == 0


def test_a_state_keeps_its_age_through_attempts_and_a_new_one_begins_anew(ledger: Ledger) -> None:
    ledger.take(enrollment())
    change(ledger, seat(), "state = 'retrying'")
    since = ledger.rows("select state_since from work")

    change(ledger, seat(), "attempts = 2, next_at = clock_timestamp()")
    assert ledger.rows("select state_since from work") == since
    ledger.kill(seat(), "refused")
    assert ledger.rows("select state_since from work") > since


def test_a_seat_is_suspect_since_the_first_call_of_unknown_outcome(ledger: Ledger) -> None:
    ledger.take(enrollment())
    ledger.connection.execute("update seat set suspect_until = clock_timestamp(), mark = 1")
    since = ledger.rows("select suspect_since from seat")

    ledger.connection.execute("update seat set suspect_until = clock_timestamp() + interval '1 minute', mark = 2")
    assert ledger.rows("select suspect_since from seat") == since
    ledger.connection.execute("update seat set suspect_until = null")
    assert ledger.rows("select suspect_since from seat") == [(None,)]


def test_the_summary_narrows_to_a_term(ledger: Ledger) -> None:
    one_in_each_state(ledger)
    ledger.connection.execute("update seat set section = 'PSUNV/12590/1001' where seat = %s", [seat("0").seat])

    def states_of(institution: str | None = None, term: str | None = None) -> dict[str, int]:
        found = states.summary(ledger.connection, "canvas", institution, term)
        return {line.state: line.seats for line in found}

    everything = {"settled": 1, "pending": 2, "retrying": 1, "waiting": 1, "held": 1, "dead": 1}
    assert states_of() == everything
    assert states_of("PSUNV") == everything
    assert states_of("PSUNV", "12590") == {"settled": 1}
    assert states_of("PSUNV", "1259") == {"pending": 2, "retrying": 1, "waiting": 1, "held": 1, "dead": 1}
    pending = next(line for line in states.summary(ledger.connection, "canvas", None, None) if line.state == "pending")
    assert (pending.suspect, pending.intent_open) == (1, 1)


def test_a_backlog_is_what_waits_for_nobody_else_and_ends_at_the_pace_of_late(ledger: Ledger) -> None:
    def backlog() -> states.Backlog:
        return states.backlog(states.summary(ledger.connection, "canvas", None, None))

    one_in_each_state(ledger)
    ledger.connection.execute(
        "update seat set applied_at = clock_timestamp() - interval '6 minutes' where applied_at is not null"
    )
    assert (backlog().seats, backlog().eta_seconds) == (3, None)
    ledger.connection.execute("update seat set applied_at = clock_timestamp() where seat = %s", [seat("0").seat])
    assert backlog().eta_seconds == 3 / 0.2 * 60


@pytest.mark.parametrize(
    "backwards",
    [
        "update entity set version = version - 1",
        "update entity set content_hash = 'another'",
        "update seat set decision = decision - 1",
        "update seat set desired = 'deleted'",
        "update seat set mark = mark - 1",
        "update lease set epoch = epoch - 1",
        "update lease set owner = 'another'",
        "update intent set closed_at = null",
        "update intent set outcome = 'done'",
        "update policy set body = 'another'",
    ],
)
def test_nothing_in_the_ledger_goes_back(ledger: Ledger, backwards: str) -> None:
    ledger.take(enrollment(version=5))
    ledger.connection.execute("insert into lease values ('canvas', 'somebody', 7, clock_timestamp())")
    one_in_each_state(ledger)
    ledger.connection.execute("update intent set closed_at = clock_timestamp(), outcome = 'unknown'")

    with pytest.raises(psycopg.errors.AssertFailure):
        ledger.connection.execute(backwards.encode())


def test_half_a_million_unsettled_seats_are_counted_without_looking_at_the_settled_ones(ledger: Ledger) -> None:
    """By the plans: none of them reads the seats from end to end."""
    for query in (states._GROUPS, states._SUSPECT, states._INTENT_OPEN):
        plan = "\n".join(line for (line,) in ledger.rows(f"explain {query}", "canvas"))
        assert "Seq Scan on seat" not in plan, plan
    parameters = {"target": "canvas", "class": "refused", "since": "-infinity", "seat": "", "limit": 100}
    ledger.connection.execute("set enable_seqscan = off")  # the table is empty; what counts is that the index can serve it
    ledger.connection.execute("set enable_bitmapscan = off")
    lines = ledger.connection.execute(f"explain {dead_letters._PAGE}".encode(), parameters).fetchall()
    assert "work_dead" in str(lines)
    assert "Sort" not in str(lines)
