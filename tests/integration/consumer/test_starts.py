"""An enrollment whose day is still to come gives access from that day on, by itself, where the policy says so."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from schemas.events import EnrollmentEvent, EnrollmentStatus
from services.consumer.housekeeping import Housekeeping
from services.consumer.ledger import database, deciding, policies, redeciding, waking
from services.consumer.ledger.waking import Woken
from services.consumer.metrics import Metrics
from services.consumer.nouns import PersonRef
from services.consumer.policy.model import default_text
from services.kit.postgres import Connection
from tests.integration.consumer.api_support import Api
from tests.integration.consumer.ledger_support import TENANT, TIMERS, Heard, Ledger, enrollment, hashed, seat, section_event
from tests.policies import unguarded

ZONE = ZoneInfo("America/New_York")
WAITS = unguarded().replace("starts: at_once", "starts: {on_the_day_in: America/New_York}")
PERSON = PersonRef(TENANT, "9000001")


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    ledger = Ledger(database_url)
    policies.store(ledger.connection, TENANT, WAITS, "registrar")
    list(redeciding.redecide(ledger.connection, ledger.policies, TENANT))
    yield ledger
    ledger.check()
    ledger.close()


def starting(days: int, status: EnrollmentStatus = "enrolled", *, version: int = 1, section: str = "1001") -> EnrollmentEvent:
    """So many days from today."""
    day = datetime.now(ZONE).date() + timedelta(days=days)
    return hashed(enrollment(status, version=version, section=section).model_copy(update={"effective_date": day}))


def noted(ledger: Ledger) -> list[datetime]:
    return [at for (at,) in ledger.rows("select at from wake")]


def midnight(days: int) -> datetime:
    return datetime.combine(datetime.now(ZONE).date() + timedelta(days=days), time.min, ZONE)


def let_the_day_come(ledger: Ledger) -> None:
    """The notes and the entities are as if they had been of an earlier day."""
    ledger.connection.execute("update wake set at = clock_timestamp()")
    today = datetime.now(ZONE).date().isoformat()
    ledger.connection.execute(
        "update entity set event = jsonb_set(event, '{effective_date}', to_jsonb(%s::text)) where event->>'effective_date' > %s",
        [today, today],
    )


def test_nothing_is_given_and_nothing_is_asked_of_the_lms_before_the_day(ledger: Ledger) -> None:
    ledger.take(starting(3))

    assert ledger.desired() == {}
    assert noted(ledger) == [midnight(3)]
    assert waking.wake_due(ledger.connection, ledger.policies) == Woken(set(), more=False)
    assert noted(ledger) == [midnight(3)]


@pytest.mark.parametrize("days", [0, -30])
def test_whose_day_has_come_is_given_a_seat_at_once(ledger: Ledger, days: int) -> None:
    ledger.take(starting(days))

    assert ledger.desired() == {seat(): "active"}
    assert noted(ledger) == []


def test_the_seat_comes_by_itself(ledger: Ledger) -> None:
    ledger.take(starting(3))
    let_the_day_come(ledger)
    woken = Heard()
    housekeeping = Housekeeping(ledger.url, ledger.policies, Metrics(), woken.wake, TIMERS)

    assert not housekeeping.once(ledger.connection)

    assert ledger.desired() == {seat(): "active"}
    assert woken == [seat()]
    assert noted(ledger) == []
    [detail] = ledger.history("decided")
    assert detail["cause"] == "start"
    since_midnight = (datetime.now(UTC) - midnight(0)).total_seconds()
    [(age,)] = ledger.rows("select extract(epoch from clock_timestamp() - accepted_at)::float8 from seat")
    assert age == pytest.approx(since_midnight, abs=60), "freshness counts from the day's beginning, not from the event"


def test_of_several_starts_the_next_one_is_noted(ledger: Ledger) -> None:
    ledger.take(starting(5), starting(2, section="2002"))
    assert noted(ledger) == [midnight(2)]

    ledger.connection.execute("update wake set at = clock_timestamp()")
    assert waking.wake_due(ledger.connection, ledger.policies) == Woken(set(), more=False)

    assert noted(ledger) == [midnight(2)], "a clock that was ahead of its time forgets nothing"
    assert ledger.desired() == {}


def test_a_start_that_moves_or_goes_away_leaves_nothing_wrong_behind(ledger: Ledger) -> None:
    ledger.take(starting(3))
    ledger.take(starting(9, version=2))
    assert noted(ledger) == [midnight(9)]

    ledger.take(starting(9, "dropped", version=3))
    assert ledger.desired() == {seat(): "deleted"}
    let_the_day_come(ledger)
    waking.wake_due(ledger.connection, ledger.policies)

    assert ledger.desired() == {seat(): "deleted"}
    assert noted(ledger) == []


def test_taking_access_away_never_waits(ledger: Ledger) -> None:
    ledger.take(enrollment())

    ledger.take(starting(3, "dropped", version=2))

    assert ledger.desired() == {seat(): "deleted"}


def test_the_clock_is_asked_when_the_person_is_locked(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for somebody that decides the person at midnight must not decide by the day before."""
    ledger.take(starting(0))
    asked = threading.Event()
    ask = deciding._now

    def ask_and_tell(connection: Connection) -> datetime:
        asked.set()
        return ask(connection)

    monkeypatch.setattr(deciding, "_now", ask_and_tell)

    def decide_too() -> None:
        with database.connect(ledger.url) as connection, connection.transaction():
            ledger.decide(connection, {PERSON})

    with ThreadPoolExecutor(1) as pool:
        with ledger.connection.transaction():
            deciding.lock_persons(ledger.connection, [PERSON])
            done = pool.submit(decide_too)
            while ledger.rows("select count(*) from pg_locks where not granted") == [(0,)]:
                pass
            assert not asked.is_set()
        done.result(20)

    assert asked.is_set()


def test_the_switch_works_both_ways(ledger: Ledger) -> None:
    ledger.take(starting(3))
    policies.store(ledger.connection, TENANT, unguarded(), "registrar")
    list(redeciding.redecide(ledger.connection, ledger.policies, TENANT))
    assert ledger.desired() == {seat(): "active"}

    policies.store(ledger.connection, TENANT, WAITS, "registrar")
    list(redeciding.redecide(ledger.connection, ledger.policies, TENANT))
    assert ledger.desired() == {seat(): "deleted"}
    assert noted(ledger) == [midnight(3)]


def test_the_packaged_policy_does_not_wait(database_url: str) -> None:
    ledger = Ledger(database_url)
    ledger.take(starting(3))

    assert "starts: at_once" in default_text()
    assert ledger.desired() == {seat(): "active"}
    assert noted(ledger) == []
    ledger.close()


@pytest.mark.parametrize("day", [date.min, date.max])
def test_days_at_the_ends_of_the_calendar_are_only_early_or_late(ledger: Ledger, day: date) -> None:
    ledger.take(hashed(enrollment().model_copy(update={"effective_date": day})))

    assert ledger.desired() == ({seat(): "active"} if day == date.min else {})


async def test_a_trace_says_from_when(ledger: Ledger, tmp_path: Path) -> None:
    ledger.take(starting(3))

    section = {"institution": "PSUNV", "term": "1259", "section": "1001"}
    found = (await Api(ledger, tmp_path).call("POST", "/trace", json={"person": "9000001", "section": section})).json()

    assert "begins_later" in [one["code"] for one in found["findings"]]
    assert datetime.fromisoformat(found["enrollments"][0]["begins_at"]) == midnight(3)


@pytest.mark.parametrize("why", ["cancelled class", "role without a seat"])
async def test_a_trace_promises_nothing_that_will_not_come(ledger: Ledger, tmp_path: Path, why: str) -> None:
    role = {"role": "other"} if why == "role without a seat" else {}
    ledger.take(section_event("cancelled" if why == "cancelled class" else "active"))
    ledger.take(hashed(starting(3).model_copy(update=role)))

    section = {"institution": "PSUNV", "term": "1259", "section": "1001"}
    found = (await Api(ledger, tmp_path).call("POST", "/trace", json={"person": "9000001", "section": section})).json()

    assert "begins_later" not in [one["code"] for one in found["findings"]]
