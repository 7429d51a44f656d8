"""Comparing one page of the mirror's digest with the ledger: what counts as a difference, and what does not."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from schemas import codec
from schemas.digests import Bound, DigestEnd, DigestPage, Entry
from schemas.events import EnrollmentEvent
from schemas.keys import EntityKey
from services.consumer.ledger import differences, digests
from services.consumer.ledger.differences import Found
from services.consumer.ledger.digests import Reading
from services.consumer.ledger.offsets import LogPartition
from services.consumer.ledger.parked import Parked, park
from tests.integration.consumer.ledger_support import Ledger, arrivals, enrollment

PLACE = "enrollstream.enrollment.v1/0"
EVERYTHING = 10**6


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    ledger = Ledger(database_url)
    yield ledger
    ledger.connection.close()


def entry(event: EnrollmentEvent, *, version: int | None = None, content: str | None = None, published: bool = True) -> Entry:
    """What a mirror that has this event says."""
    return Entry(*event.entity_key, version or event.version, content or event.content_hash, published)


def page(*entries: Entry, log_end: int = EVERYTHING, complete_to: int = 0, number: int = 0) -> DigestPage:
    """One page about all keys."""
    return DigestPage(
        round=uuid.UUID(int=1),
        number=number,
        after=None,
        upto=None,
        complete_to=complete_to,
        log_ends={PLACE: log_end},
        entries=list(entries),
    )


def found(ledger: Ledger, page: DigestPage) -> dict[EntityKey, str]:
    """All differences of the page, recorded."""
    result: list[Found] = []
    for part in differences.slices(ledger.connection, page):
        some = differences.compare(ledger.connection, page, part)
        differences.record(ledger.connection, part, some)
        result += some
    assert len({one.key for one in result}) == len(result)
    return {one.key: one.difference for one in result}


def test_each_kind_of_difference_has_its_name(ledger: Ledger) -> None:
    same, behind, ahead, other, lost = (enrollment(version=5, person=f"900000{number}") for number in range(5))
    unknown = enrollment(version=5, person="9000009")
    ledger.take(same, behind, ahead, other, lost)
    listed = page(entry(same), entry(behind, version=6), entry(ahead, version=4), entry(other, content="f" * 32), entry(unknown))
    assert found(ledger, listed) == {
        behind.entity_key: "behind",
        ahead.entity_key: "ahead",
        other.entity_key: "hash",
        lost.entity_key: "missing_there",
        unknown.entity_key: "missing_here",
    }


def test_what_kafka_may_not_have_is_not_missed_here(ledger: Ledger) -> None:
    known, unknown = enrollment(version=5), enrollment(version=5, person="9000002")
    ledger.take(known)
    assert found(ledger, page(entry(known, version=6, published=False), entry(unknown, published=False))) == {}


def test_what_came_after_the_page_is_not_missed_there(ledger: Ledger) -> None:
    first, second = enrollment(version=5), enrollment(version=5, person="9000002")
    ledger.take_batch(ledger.connection, arrivals(first, second, first_offset=7))
    early = page(entry(first, version=4), log_end=7, complete_to=4)
    assert found(ledger, early) == {}
    later = page(entry(first, version=4), log_end=8, complete_to=4)
    assert found(ledger, later) == {first.entity_key: "ahead"}


def test_old_versions_are_missed_there_although_the_log_is_another_one(ledger: Ledger) -> None:
    """The topic was created anew, so that its offsets say nothing about what the ledger read from the old one."""
    event = enrollment(version=5)
    ledger.take_batch(ledger.connection, arrivals(event, first_offset=1_000))
    assert found(ledger, page(log_end=3, complete_to=5)) == {event.entity_key: "missing_there"}


def test_a_parked_event_counts_as_seen(ledger: Ledger) -> None:
    event = enrollment(version=5)
    value = codec.encode(event).replace(b'"enrolled"', b'"auditing"')
    park(ledger.connection, [Parked(LogPartition("id", "enrollstream.enrollment.v1", 0), 3, b"k", value, "status")])
    assert found(ledger, page(entry(event))) == {}
    assert found(ledger, page(entry(event, version=6))) == {event.entity_key: "missing_here"}


def test_an_endless_range_is_compared_in_parts_and_every_key_once(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mirror that lost everything lists nothing, in one page."""
    events = [enrollment(version=5, person=f"90000{number:02}") for number in range(25)]
    ledger.take(*events)
    monkeypatch.setattr(differences, "_SLICE", 4)
    assert len(list(differences.slices(ledger.connection, page()))) == 7
    assert found(ledger, page()) == {event.entity_key: "missing_there" for event in events}
    assert found(ledger, page(*map(entry, events))) == {}


def test_pages_meet_without_a_gap_whatever_the_characters(ledger: Ledger) -> None:
    """Keys are ordered by their bytes, in which capitals come before small letters; a database's own order may say otherwise."""
    events = [
        enrollment(version=5, person=person, tenant=tenant) for tenant in ("main", "Ünïon") for person in ("B", "a", "é", "Z-1")
    ]
    ledger.take(*events)
    ordered = sorted(events, key=lambda event: tuple(part.encode() for part in event.entity_key))
    middle = Bound(*ordered[3].entity_key)
    first = page(*map(entry, ordered[:4])).model_copy(update={"upto": middle})
    second = page(*map(entry, ordered[4:])).model_copy(update={"after": middle})
    assert (found(ledger, first), found(ledger, second)) == ({}, {})


def test_the_publisher_is_told_again_later_and_at_last_once_a_day(ledger: Ledger) -> None:
    event = enrollment(version=5)
    (part,) = differences.slices(ledger.connection, page(entry(event)))
    told = []
    for _ in range(differences.OFTEN + 1):
        some = differences.compare(ledger.connection, page(entry(event)), part)
        recorded = differences.record(ledger.connection, part, some)
        told.append((len(recorded.tell), recorded.curable))
        differences.told(ledger.connection, recorded.tell, again_seconds=0)
    assert told == [(1, 1)] * differences.OFTEN + [(0, 0)]
    assert differences.stubborn(ledger.connection) == 1
    ledger.take(event)
    gone = differences.record(ledger.connection, part, differences.compare(ledger.connection, page(entry(event)), part))
    assert gone.repaired == {"missing_here": 1}
    assert differences.stubborn(ledger.connection) == 0


def test_a_round_is_complete_only_when_every_page_was_compared(ledger: Ledger) -> None:
    digests.begin_reading(ledger.connection, Reading("id", 0))
    end = DigestEnd(round=uuid.UUID(int=1), pages=2)
    digests.page_compared(ledger.connection, page(number=1), 0, 0)
    assert digests.round_ended(ledger.connection, end, 1) is None
    digests.page_compared(ledger.connection, page(number=0), 2, 3)
    digests.page_compared(ledger.connection, page(number=1), 3, 4)
    assert digests.round_ended(ledger.connection, end, 4) == 7
    assert digests.reading(ledger.connection) == Reading("id", 5)


def test_the_comparison_waits_for_every_partition(ledger: Ledger) -> None:
    places = [LogPartition("id", "topic", number) for number in range(3)]
    ledger.connection.execute(
        "insert into intake_offset values ('id', 'topic', 0, 5), ('id', 'topic', 1, 4), ('old', 'topic', 2, 9)"
    )
    assert digests.passed(ledger.connection, {places[0]: 5, places[1]: 4})
    assert not digests.passed(ledger.connection, {places[0]: 6, places[1]: 4})
    assert digests.passed(ledger.connection, {places[2]: 0}), "an empty partition holds nothing"
    assert not digests.passed(ledger.connection, {places[2]: 1}), "what was read of the old topic says nothing about the new one"
