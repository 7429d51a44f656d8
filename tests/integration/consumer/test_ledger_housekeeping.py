"""What every process looks after now and then."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.consumer.housekeeping import Housekeeping
from services.consumer.ledger import policies, recovery
from services.consumer.metrics import Metrics
from services.consumer.policy.model import default_text
from tests.integration.consumer.ledger_support import TENANT, TIMERS, Heard, Ledger, enrollment, seat


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    ledger = Ledger(database_url)
    recovery.begin_session(ledger.connection, 60)
    yield ledger
    ledger.check()
    ledger.close()


def test_an_unfinished_change_of_policy_is_finished(ledger: Ledger) -> None:
    ledger.take(enrollment("dropped"))
    policies.store(
        ledger.connection, TENANT, default_text().replace("drop_action: deleted", "drop_action: inactive"), "registrar"
    )
    woken = Heard()

    Housekeeping(ledger.url, ledger.policies, Metrics(), woken.wake, TIMERS).once(ledger.connection)

    assert ledger.desired() == {seat(): "inactive"}
    assert woken == [seat()]


def test_gauges_follow_the_ledger(ledger: Ledger) -> None:
    metrics = Metrics()
    housekeeping = Housekeeping(ledger.url, ledger.policies, metrics, Heard().wake, TIMERS)
    ledger.take(enrollment(person="1"), enrollment(person="2"))

    def gauge(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(name, labels)

    housekeeping.once(ledger.connection)
    assert gauge("sis_seats", target="canvas", state="pending") == 2
    assert gauge("sis_ledger_recovery") == 0

    recovery.enter(ledger.connection, "test", 0, behind=False)
    housekeeping.once(ledger.connection)
    assert gauge("sis_ledger_recovery") == 1

    ledger.connection.execute("update work set read_first = false")
    housekeeping.once(ledger.connection)
    assert gauge("sis_ledger_recovery") == 0
