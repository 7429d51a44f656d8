"""What holds when Kafka is slow or away, when the process is killed, and when two of them write the same rows."""

from __future__ import annotations

import asyncio
import random
import signal
import threading
from typing import Any

import psycopg
import pytest
from confluent_kafka import KafkaError

from schemas.keys import enrollment_key
from services.publisher.changes import Change, Unavailable
from services.publisher.mirror.writer import MirrorWriter
from services.sandbox.broker import EmbeddedBroker
from tests.integration.publisher.mirror.bench import (
    Bench,
    LogReader,
    assert_no_ghost_and_no_twin,
    assignment,
    change,
    eventually,
    keep_what_was_issued,
    learner,
    run_and_kill,
)

IMPATIENT: dict[str, Any] = {"answer_within_seconds": 1.0, "delivery_timeout_seconds": 0.6, "outbox_sweep_after_seconds": 0.3}


async def test_acks_slower_than_the_bound_lose_nothing_and_make_no_ghost(hurt: Bench, own_broker: EmbeddedBroker) -> None:
    async with hurt.writer(**IMPATIENT) as writer:
        keep_what_was_issued(hurt.database_url)
        await _until_taken(writer, "enrolled")
        own_broker.set_round_trip(3_000)
        with pytest.raises(Unavailable):
            await writer.accept([change("1", "dropped")], "peoplesoft")
        own_broker.set_round_trip(0)
        await _until_taken(writer, "enrolled")
        log = LogReader(hurt.kafka, hurt.topics)
        await eventually(lambda: _all_published(hurt))
    assert log.statuses(learner("1")) == ["enrolled", "dropped", "enrolled"]
    assert_no_ghost_and_no_twin(hurt.database_url, log.events())


async def test_a_duplicate_of_an_unpublished_change_waits_too(hurt: Bench, own_broker: EmbeddedBroker) -> None:
    same = change("1")
    async with hurt.writer(**IMPATIENT) as writer:
        own_broker.set_down()
        for _ in range(2):
            with pytest.raises(Unavailable):
                await writer.accept([same], "peoplesoft")
        own_broker.set_up()
        receipts = []

        async def taken() -> bool:
            try:
                receipts.append(await writer.accept([same], "peoplesoft"))
            except Unavailable:
                return False
            return True

        await eventually(taken)
    assert receipts[0].events == 0
    assert LogReader(hurt.kafka, hurt.topics).statuses(learner("1")) == ["enrolled"]


async def test_a_duplicate_of_a_move_waits_for_what_the_entity_that_was_left_has_to_say(
    hurt: Bench, own_broker: EmbeddedBroker
) -> None:
    left, joined = (enrollment_key("main", "PSUNV", "2258", "1001", person, "staff") for person in "AB")
    async with hurt.writer(**IMPATIENT) as writer:
        await eventually(lambda: _taken(writer, assignment("1", "A", 1)))
        own_broker.set_down()
        with pytest.raises(Unavailable):
            await writer.accept([assignment("1", "B", 2)], "peoplesoft")
        with psycopg.connect(hurt.database_url) as connection:  # as if Kafka had taken only the other event
            connection.execute("update mirror.entity set published_version = version where key = %s", [joined.key])
            connection.execute("delete from mirror.outbox where key = %s", [joined.key])
        with pytest.raises(Unavailable):
            await writer.accept([assignment("1", "B", 2)], "peoplesoft")
        own_broker.set_up()
        await eventually(lambda: _taken(writer, assignment("1", "B", 2)))
    assert LogReader(hurt.kafka, hurt.topics).statuses(left) == ["enrolled", "dropped"]


async def test_readiness_tells_that_kafka_is_away(
    hurt: Bench, own_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.publisher.log._CONTACT_SECONDS", 0.5)
    async with hurt.writer(**IMPATIENT) as writer:
        await eventually(lambda: _ready(writer, kafka=True))
        own_broker.set_down()
        await eventually(lambda: _ready(writer, kafka=False))
        own_broker.set_up()
        await eventually(lambda: _ready(writer, kafka=True))


async def test_what_was_committed_before_a_kill_is_published_after_it(bench: Bench, event_log: LogReader) -> None:
    assert await run_and_kill(bench, "publisher.after_commit:kill@1") == (-signal.SIGKILL, "")
    assert event_log.events() == []
    async with bench.writer(outbox_sweep_after_seconds=0.3):

        async def published() -> bool:
            return event_log.statuses(learner("1")) == ["enrolled"]

        await eventually(published)


async def test_what_the_sweeper_finds_before_its_own_thread_hands_it_over_is_sent_once_and_the_sweeper_goes_on(
    hurt: Bench, own_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    monkeypatch.setattr("services.publisher.mirror.store.failpoint", lambda name: _hold(name, go_on))
    async with hurt.writer(**IMPATIENT | {"answer_within_seconds": 3.0, "delivery_timeout_seconds": 2.0}) as writer:
        own_broker.set_round_trip(800)
        receipt = asyncio.create_task(writer.accept([change("1")], "peoplesoft"))
        await eventually(lambda: _is(bool(writer._outbox._under_way), True))  # by the sweeper: the thread is held up
        go_on.set()
        assert (await receipt).events == 1
        own_broker.set_round_trip(0)
        own_broker.set_down()
        with pytest.raises(Unavailable):
            await writer.accept([change("2")], "peoplesoft")
        own_broker.set_up()
        await eventually(lambda: _all_published(hurt))  # nobody else sends it again
    events = LogReader(hurt.kafka, hurt.topics).events()
    assert [event.entity_key for event in events].count(learner("1")) == 1


async def test_a_kill_between_ack_and_reply_makes_no_second_version(bench: Bench, event_log: LogReader) -> None:
    assert await run_and_kill(bench, "publisher.after_ack:kill@1") == (-signal.SIGKILL, "")
    async with bench.writer(outbox_sweep_after_seconds=0.3) as writer:
        receipt = await writer.accept([change("1", position=7)], "peoplesoft")  # the source repeats what was not answered
        assert (receipt.events, receipt.unchanged) == (0, 1)
    assert event_log.statuses(learner("1")) == ["enrolled"]


async def test_an_event_that_kafka_never_takes_becomes_a_dead_letter_and_no_endless_503(
    bench: Bench, event_log: LogReader
) -> None:
    async with bench.writer() as writer:
        both = await asyncio.gather(
            writer.accept([change("big", note="x" * 1_100_000)], "peoplesoft"), writer.accept([change("small")], "peoplesoft")
        )
        assert [receipt.events for receipt in both] == [1, 1]
        again = await writer.accept([change("big", note="x" * 1_100_000)], "peoplesoft")
        assert again.events == 0
        await writer.accept([change("big", note="smaller")], "peoplesoft")
    with psycopg.connect(bench.database_url) as connection:
        assert connection.execute("select dead_reason from mirror.outbox").fetchall() == [("too_large",)]
    assert event_log.statuses(learner("small")) == ["enrolled"]
    assert [event.codes for event in event_log.of(learner("big"))] == [{"NOTE": "smaller"}]


async def test_a_batch_refused_for_one_record_goes_through_record_by_record(hurt: Bench, own_broker: EmbeddedBroker) -> None:
    async with hurt.writer() as writer:
        own_broker.fail_next(EmbeddedBroker.PRODUCE, [EmbeddedBroker.POLICY_VIOLATION])
        await writer.accept([change("1"), change("2"), change("3")], "peoplesoft")
    with psycopg.connect(hurt.database_url) as connection:
        assert connection.execute("select count(*) from mirror.outbox").fetchone() == (0,)
    assert len(LogReader(hurt.kafka, hurt.topics).events()) == 3


async def test_a_producer_that_kafka_has_fenced_off_is_replaced(hurt: Bench, own_broker: EmbeddedBroker) -> None:
    async with hurt.writer(**IMPATIENT) as writer:
        await _until_taken(writer, "enrolled")
        own_broker.fail_next(EmbeddedBroker.PRODUCE, [EmbeddedBroker.OUT_OF_ORDER_SEQUENCE_NUMBER])
        with pytest.raises(Unavailable):
            await writer.accept([change("1", "dropped")], "peoplesoft")
        await _until_taken(writer, "waitlisted")
        assert writer.alive() == {"producer": True}
        await eventually(lambda: _all_published(hurt))
    assert LogReader(hurt.kafka, hurt.topics).statuses(learner("1")) == ["enrolled", "dropped", "waitlisted"]


async def test_a_producer_that_cannot_be_replaced_is_given_up_for_good_and_leaves_nobody_waiting(
    hurt: Bench, own_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_more(*_: object) -> None:
        raise MemoryError

    async with hurt.writer(**IMPATIENT) as writer:
        await _until_taken(writer, "enrolled")
        monkeypatch.setattr("services.publisher.log._producer", no_more)
        own_broker.fail_next(EmbeddedBroker.PRODUCE, [EmbeddedBroker.OUT_OF_ORDER_SEQUENCE_NUMBER])
        for status in ("dropped", "waitlisted"):
            with pytest.raises(Unavailable):
                await writer.accept([change("1", status)], "peoplesoft")
        await eventually(lambda: _is(writer.alive(), {"producer": False}))
        assert not writer.ready()["kafka"]
        began = asyncio.get_running_loop().time()
        await writer._outbox.sweep(0)
        assert asyncio.get_running_loop().time() - began < 10, "a send ends whatever became of the thread"


async def test_a_record_too_large_for_the_broker_becomes_a_dead_letter(hurt: Bench, own_broker: EmbeddedBroker) -> None:
    # Patient: an answer that came after it was given up would use up a refusal, and the sweeper's next send would pass.
    async with hurt.writer() as writer:
        await writer.accept([change("0", position=1)], "peoplesoft")
        own_broker.fail_next(EmbeddedBroker.PRODUCE, [KafkaError.MSG_SIZE_TOO_LARGE] * 2)
        await writer.accept([change("1", position=5)], "peoplesoft")
        with psycopg.connect(hurt.database_url) as connection:
            assert connection.execute("select dead_reason from mirror.outbox").fetchall() == [("too_large",)]
        await writer.accept([change("1", "dropped", position=6)], "peoplesoft")
    assert LogReader(hurt.kafka, hurt.topics).statuses(learner("1")) == ["dropped"]


async def test_two_writers_of_the_same_rows_agree(bench: Bench, event_log: LogReader) -> None:
    chance = random.Random(7)  # noqa: S311
    people, seats, rounds = ["1", "2", "3"], ["s1", "s2"], 40
    async with bench.writer() as one, bench.writer() as other:
        keep_what_was_issued(bench.database_url)
        work = []
        for position in range(rounds):
            for person in people:
                status = "enrolled" if position % 2 else "dropped"
                work.append([change(person, status, position)])
            work.append([assignment(seat, chance.choice("ABC"), position) for seat in seats])
        chance.shuffle(work)
        await asyncio.gather(*(writer.accept(changes, "peoplesoft") for changes in work for writer in (one, other)))
    assert {event_log.of(learner(person))[-1].status for person in people} == {"enrolled"}
    for person in "ABC":
        key = enrollment_key("main", "PSUNV", "2258", "1001", person, "staff")
        taught = any(_holder(work, seat, rounds - 1) == person for seat in seats)
        assert [event.status for event in event_log.of(key)][-1:] == (["enrolled"] if taught else ["dropped"])
    assert_no_ghost_and_no_twin(bench.database_url, event_log.events())


async def test_a_connection_lost_during_the_commit_produces_nothing(bench: Bench, event_log: LogReader) -> None:
    async with bench.writer() as writer:
        with psycopg.connect(bench.database_url) as connection:
            connection.execute(
                """create function die() returns trigger language plpgsql as
                     $$ begin perform pg_terminate_backend(pg_backend_pid()); perform pg_sleep(1); return null; end $$;
                   create constraint trigger die after insert on mirror.outbox deferrable initially deferred
                     for each row execute function die()"""
            )
        with pytest.raises(Unavailable, match="database"):
            await writer.accept([change("1", "enrolled", 1)], "peoplesoft")
        with psycopg.connect(bench.database_url) as connection:
            connection.execute("drop trigger die on mirror.outbox")
        assert event_log.events() == []
        assert (await writer.accept([change("1", "enrolled", 1)], "peoplesoft")).events == 1
    assert event_log.statuses(learner("1")) == ["enrolled"]


async def test_nothing_is_issued_below_a_floor_that_another_process_raised(bench: Bench, event_log: LogReader) -> None:
    far = 4_000_000_000_000_000
    async with bench.writer() as writer:
        await writer.accept([change("1")], "peoplesoft")
        with psycopg.connect(bench.database_url) as connection:
            connection.execute("update mirror.mirror set floor = %s", [far])
        with pytest.raises(Unavailable, match="recovering"):
            await writer.accept([change("1", "dropped")], "peoplesoft")
        await eventually(lambda: _taken(writer, change("1", "waitlisted")))
    first, *others = event_log.of(learner("1"))
    assert first.version < far < min(event.version for event in others)
    assert "dropped" not in event_log.statuses(learner("1"))


async def _until_taken(writer: MirrorWriter, status: str) -> None:
    """Post a state as a source does: again, until it is taken. The first send of an impatient writer has to find the brokers."""
    wanted = change("1", status)
    await eventually(lambda: _taken(writer, wanted))


async def _taken(writer: MirrorWriter, wanted: Change) -> bool:
    try:
        await writer.accept([wanted], "peoplesoft")
    except Unavailable:
        return False
    return True


async def _is(found: object, wanted: object) -> bool:
    return found == wanted


async def _all_published(bench: Bench) -> bool:
    async with await psycopg.AsyncConnection.connect(bench.database_url) as connection:
        cursor = await connection.execute("select count(*) from mirror.outbox")
        return await cursor.fetchone() == (0,)


async def _ready(writer: MirrorWriter, *, kafka: bool) -> bool:
    return writer.ready()["kafka"] is kafka


def _hold(failpoint: str, go_on: threading.Event) -> None:
    """Stands for a thread that gets no CPU, or whose commit reaches it late."""
    if failpoint == "publisher.after_commit":
        assert go_on.wait(20)


def _holder(work: list[list[Change]], seat: str, position: int) -> str:
    """Who a seat belonged to in the newest message."""
    rows = [row for changes in work for row in changes]
    [person] = {row.columns["EMPLID"] for row in rows if row.key.get("SEAT") == seat and row.order.position == position}
    return str(person)
