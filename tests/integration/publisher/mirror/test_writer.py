"""What the mirror promises to whoever gives it changes."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from schemas.keys import enrollment_key
from services.publisher.changes import Receipt, Unavailable
from tests.integration.publisher.mirror.bench import Bench, LogReader, assignment, change, learner


async def test_an_accepted_change_is_in_the_log_with_its_source_row(bench: Bench, event_log: LogReader) -> None:
    async with bench.writer() as writer:
        receipt = await writer.accept([change("007", "enrolled", 5)], "peoplesoft")
        assert receipt == Receipt(changed=1, unchanged=0, ambiguous=0, events=1)
        [event] = event_log.of(learner("007"))
    assert (event.status, event.person) == ("enrolled", "007")
    [row] = event.source_rows
    assert (row.record, row.key, row.order.position) == ("ENRL", {"EMPLID": "007", "CLASS_NBR": "1001"}, 5)


async def test_what_changes_nothing_causes_no_event(bench: Bench, event_log: LogReader) -> None:
    async with bench.writer() as writer:
        await writer.accept([change("1", position=5)], "peoplesoft")
        same_again = await writer.accept([change("1", position=5)], "peoplesoft")
        touched = await writer.accept([change("1", position=6)], "peoplesoft")
        older = await writer.accept([change("1", "dropped", position=4)], "peoplesoft")
    assert [same_again.events, touched.events, older.events] == [0, 0, 0]
    assert [same_again.unchanged, touched.unchanged, older.unchanged] == [1, 1, 1]
    assert event_log.statuses(learner("1")) == ["enrolled"]


async def test_versions_of_an_entity_strictly_increase(bench: Bench, event_log: LogReader) -> None:
    async with bench.writer() as writer:
        for status in ("enrolled", "dropped", "enrolled", "waitlisted"):
            await writer.accept([change("1", status)], "peoplesoft")
    assert event_log.statuses(learner("1")) == ["enrolled", "dropped", "enrolled", "waitlisted"]


async def test_a_row_that_moves_refolds_the_entity_it_left(bench: Bench, event_log: LogReader) -> None:
    one, other = (enrollment_key("main", "PSUNV", "2258", "1001", person, "staff") for person in ("A", "B"))
    async with bench.writer() as writer:
        await writer.accept([assignment("1", "A", 1)], "peoplesoft")
        receipt = await writer.accept([assignment("1", "B", 2)], "peoplesoft")
    assert receipt.events == 2
    assert event_log.statuses(one) == ["enrolled", "dropped"]
    assert event_log.statuses(other) == ["enrolled"]


async def test_a_deletion_that_carries_only_keys_finds_its_entity(bench: Bench, event_log: LogReader) -> None:
    key = enrollment_key("main", "PSUNV", "2258", "1001", "A", "staff")
    async with bench.writer() as writer:
        await writer.accept([assignment("1", "A", 1)], "peoplesoft")
        await writer.accept([assignment("1", None, 2, deleted=True)], "peoplesoft")
        nobody = await writer.accept([assignment("never seen", None, 3, deleted=True)], "peoplesoft")
    assert event_log.statuses(key) == ["enrolled", "dropped"]
    assert nobody == Receipt(changed=0, unchanged=1, ambiguous=0, events=0)


async def test_one_bad_request_of_a_group_fails_alone(bench: Bench, event_log: LogReader) -> None:
    poison = change("bad", note="\0")  # PostgreSQL holds no NUL, so the shared transaction fails
    async with bench.writer() as writer:
        outcomes = await asyncio.gather(
            *(writer.accept([change(f"p{number}")], "peoplesoft") for number in range(10)),
            writer.accept([poison], "peoplesoft"),
            *(writer.accept([change(f"q{number}")], "peoplesoft") for number in range(10)),
            return_exceptions=True,
        )
    failed = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
    assert len(failed) == 1
    assert not isinstance(failed[0], Unavailable)
    assert len(event_log.events()) == 20


async def test_requests_share_transactions(bench: Bench) -> None:
    async with bench.writer() as writer:
        await asyncio.gather(*(writer.accept([change(f"p{number}")], "peoplesoft") for number in range(50)))
        committed = writer._metrics.fold_seconds._sum.get(), _count(writer)
    assert committed[1] < 50


def _count(writer: object) -> int:
    [family] = writer._metrics.fold_seconds.collect()  # type: ignore[attr-defined]
    return int(next(sample.value for sample in family.samples if sample.name.endswith("_count")))


async def test_a_body_of_thousands_of_rows_is_taken(bench: Bench, event_log: LogReader) -> None:
    async with bench.writer() as writer:
        receipt = await writer.accept([change(f"p{number}") for number in range(2_000)], "peoplesoft")
    assert receipt.events == 2_000
    assert len(event_log.events()) == 2_000


async def test_nothing_is_left_over_after_an_answer(bench: Bench) -> None:
    async with bench.writer() as writer:
        await writer.accept([change("1"), change("2")], "peoplesoft")
        with psycopg.connect(bench.database_url) as connection:
            outbox = connection.execute("select count(*) from mirror.outbox").fetchone()
            behind = connection.execute("select count(*) from mirror.entity where published_version <> version").fetchone()
    assert (outbox, behind) == ((0,), (0,))


async def test_no_change_is_taken_before_the_mirror_is_open_or_after_it_stopped(bench: Bench) -> None:
    async with bench.writer(open_it=False) as writer:
        with pytest.raises(Unavailable, match="recovering"):
            await writer.accept([change("1")], "peoplesoft")
        assert not writer.ready()["open"]
        await asyncio.wait_for(writer.opened(), 30)
        await writer.accept([change("1")], "peoplesoft")
    with pytest.raises(Unavailable, match="stopping"):
        await writer.accept([change("1")], "peoplesoft")
