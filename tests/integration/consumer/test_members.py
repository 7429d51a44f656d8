"""A term whose sections all change at once: nobody waits for it, nobody is forgotten, and each is decided by the newest state."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest

from schemas import codec
from services.consumer.ledger import database, members
from services.consumer.ledger.members import AT_ONCE
from tests.integration.consumer.ledger_support import TENANT, Ledger, enrollment, seat, section_event


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    ledger = Ledger(database_url)
    yield ledger
    assert members.waiting(ledger.connection).sections == 0
    ledger.check()
    ledger.close()


def enroll(ledger: Ledger, sections: int, each: int) -> None:
    """Enrollments as the intake would have stored them long ago, of people who are not decided yet."""
    event = orjson.loads(codec.encode(enrollment()))
    ledger.connection.execute(
        """insert into entity
             (tenant, kind, key, person, section, version, content_hash, event, topic, "partition", "offset", accepted_at)
           select %(tenant)s, 'enrollment', format('PSUNV/1259/%%s/%%s/learner', section, person), person,
                  format('PSUNV/1259/%%s', section), 1, '0',
                  %(event)s::jsonb || jsonb_build_object('person', person, 'section', section), 't', 0, 0, clock_timestamp()
             from (select number::text as section from generate_series(1, %(sections)s) as number) as sections
            cross join lateral (select format('%%s-%%s', section, number) as person
                                  from generate_series(1, %(each)s) as number) as people""",
        {"tenant": TENANT, "event": orjson.dumps(event).decode(), "sections": sections, "each": each},
    )
    ledger.connection.execute("analyze entity")


def decided(ledger: Ledger) -> int:
    return int(ledger.rows("select count(*) from history where what = 'decided'")[0][0])


def test_a_term_of_twenty_thousand_is_decided_behind_the_fresh_enrollments(ledger: Ledger) -> None:
    enroll(ledger, sections=500, each=40)

    ledger.take(*(section_event("active", version=9, section=str(number)) for number in range(1, 501)))

    assert decided(ledger) <= AT_ONCE
    assert members.waiting(ledger.connection).sections == 500 - AT_ONCE // 40
    ledger.take(enrollment(person="fresh", section="9000", version=10))
    assert ledger.desired()[seat("fresh", "9000")] == "active"
    before = decided(ledger)
    for _ in range(20):
        assert members.decide_next(ledger.connection, ledger.policies) is not None
    assert decided(ledger) == before + 20 * 40
    # The other 18,000 are decided alike; that would only take time.
    ledger.connection.execute("delete from entity using section_to_decide as rest where rest.section = entity.section")
    ledger.connection.execute("delete from section_to_decide")


def test_a_section_that_changes_again_while_its_members_are_decided_begins_anew(ledger: Ledger) -> None:
    enroll(ledger, sections=1, each=700)
    ledger.take(section_event("cancelled", version=9, section="1"))
    members.decide_next(ledger.connection, ledger.policies)

    ledger.take(section_event("active", version=10, section="1"))
    ledger.decide_queued()

    assert set(ledger.desired().values()) == {"active"}


def test_who_dies_in_the_middle_leaves_the_rest_to_another(ledger: Ledger) -> None:
    enroll(ledger, sections=1, each=700)
    ledger.take(section_event("active", version=9, section="1"))
    members.decide_next(ledger.connection, ledger.policies)
    with database.connect(ledger.url) as dying, dying.transaction(force_rollback=True):
        members.decide_next(dying, ledger.policies)
        assert members.decide_next(ledger.connection, ledger.policies) is None  # it is being worked at

    ledger.decide_queued()

    assert len(ledger.desired()) == 700


def test_members_who_drop_meanwhile_stay_dropped(ledger: Ledger) -> None:
    enroll(ledger, sections=3, each=400)
    ledger.take(*(section_event("active", version=9, section=str(number)) for number in (1, 2, 3)))
    over = threading.Event()

    def drain() -> None:
        with database.connect(ledger.url) as connection:
            while not over.is_set() or members.waiting(connection).sections:
                members.decide_next(connection, ledger.policies)

    with ThreadPoolExecutor(2) as pool:
        draining = [pool.submit(drain) for _ in range(2)]
        try:
            for number in range(1, 401, 7):
                gone = (enrollment("dropped", person=f"{section}-{number}", section=section, version=20) for section in "321")
                ledger.take(*gone, section_event("active", version=20 + number, section=str(1 + number % 3)))
        finally:
            over.set()
        for one in draining:
            one.result(60)

    assert list(ledger.desired().values()).count("active") == 1200 - 3 * len(range(1, 401, 7))
