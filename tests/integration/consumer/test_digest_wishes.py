"""Asking the mirror for a round because of recovery mode: what is asked for has to arrive, or is asked for again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

import pytest

from schemas import returns
from schemas.returns import WHATEVER_IT_IS, DigestsWanted, KeyAt, RepublishKeys, Return
from schemas.topics import Topics
from services.consumer.digests import Comparison
from services.consumer.ledger import database, digests, recovery
from services.consumer.ledger.digests import Reading
from services.consumer.log.records import LogUnavailable
from services.consumer.metrics import Metrics
from tests.integration.consumer.intake_support import settings
from tests.integration.consumer.ledger_support import Ledger


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    ledger = Ledger(database_url)
    digests.begin_reading(ledger.connection, Reading("id", 0))
    recovery.enter(ledger.connection, "trimmed", 0, behind=False)
    yield ledger
    ledger.connection.close()


class Topic:
    """`DigestLog`: an empty topic of digests, and one of returns that can be away."""

    def __init__(self) -> None:
        self.sent: list[Return] = []
        self.away = False

    def poll(self, _wait_seconds: float) -> None:
        pass

    def send(self, values: Sequence[bytes]) -> None:
        if self.away:
            raise LogUnavailable("returns refused")
        self.sent += map(returns.decode, values)

    @property
    def asked_for(self) -> list[KeyAt]:
        """Which entities were asked for."""
        return [key for one in self.sent if isinstance(one, RepublishKeys) for key in one.keys]

    @property
    def wished(self) -> list[UUID]:
        """Which rounds were asked for."""
        return [one.request for one in self.sent if isinstance(one, DigestsWanted)]


def comparison(topic: Topic, database_url: str) -> Comparison:
    """A process that compares."""
    chosen = settings(database_url, Topics("test"))
    return Comparison(topic, chosen, Metrics(), lambda _seconds: None)  # type: ignore[arg-type]


def test_a_round_is_wished_for_once(ledger: Ledger, database_url: str) -> None:
    topic = Topic()
    comparing = comparison(topic, database_url)
    comparing.step(ledger.connection)
    comparing.step(ledger.connection)
    assert len(topic.wished) == 1


def test_a_wish_that_kafka_did_not_take_is_sent_at_the_next_step(ledger: Ledger, database_url: str) -> None:
    topic = Topic()
    comparing = comparison(topic, database_url)
    topic.away = True
    with pytest.raises(LogUnavailable):
        comparing.step(ledger.connection)
    topic.away = False
    comparing.step(ledger.connection)
    comparing.step(ledger.connection)
    assert len(topic.wished) == 1


def test_a_wish_of_which_the_ledger_never_heard_that_it_was_sent_is_the_same_again(ledger: Ledger, database_url: str) -> None:
    """Two rounds at most, and the first answer counts."""
    noted = digests.round_wish(ledger.connection, 300)  # by a process that died, or whose connection broke in the commit
    topic = Topic()
    with database.connect(ledger.url) as successor:
        comparison(topic, database_url).step(successor)
    assert topic.wished == [noted]


def lacking(ledger: Ledger, sis_id: str, section: str) -> None:
    """An object that waits for the SIS to tell of a section."""
    ledger.connection.execute(
        """insert into lms_object (target, kind, object, tenant, key, state, lacks_kind, lacks_key, ask_at)
           values ('canvas', 'section', %s, 'main', %s, 'waiting', 'section', %s, clock_timestamp())""",
        [sis_id, section, section],
    )


def test_what_an_object_waits_for_is_asked_for_once_and_again_after_a_while(ledger: Ledger, database_url: str) -> None:
    topic = Topic()
    comparing = comparison(topic, database_url)
    lacking(ledger, "S-1", "PSUNV/1259/1001")
    lacking(ledger, "S-1-again", "PSUNV/1259/1001")
    comparing.step(ledger.connection)
    comparing.step(ledger.connection)
    assert topic.asked_for == [KeyAt("main", "section", "PSUNV/1259/1001", WHATEVER_IT_IS)]

    ledger.connection.execute("update lms_object set ask_at = ask_at - interval '10 minutes'")
    comparing.step(ledger.connection)
    assert len(topic.asked_for) == 2


def test_what_kafka_did_not_take_is_asked_for_at_the_next_step(ledger: Ledger, database_url: str) -> None:
    topic = Topic()
    comparing = comparison(topic, database_url)
    lacking(ledger, "S-1", "PSUNV/1259/1001")
    topic.away = True
    with pytest.raises(LogUnavailable):
        comparing.step(ledger.connection)
    topic.away = False
    comparing.step(ledger.connection)
    assert len(topic.asked_for) == 1
