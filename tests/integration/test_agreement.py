"""Rule R1 at work: mirror and ledger find out by digests that one of them has lost something, and the other one helps."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from pathlib import Path

import httpx
import psycopg
import pytest

from schemas import digests as digest_format
from schemas.digests import DigestEnd
from schemas.keys import EntityKey
from schemas.returns import DigestsWanted, RepublishKeys, RepublishScope, ReturnedEvent, Scope
from schemas.topics import Topics
from services.consumer.ledger import digests, recovery
from services.kit.credentials import Callers
from services.kit.kafka import KafkaSettings
from services.kit.openapi import App
from services.publisher.intake.digests import digests_router
from tests.integration.agreement_support import Pair, pair, read_all
from tests.integration.publisher.mirror.bench import Bench, LogReader, change, eventually, learner
from tests.openapi import Promise

ANNA, BERT = "9000001", "9000002"


@pytest.fixture
def bench(database_url: str, kafka: KafkaSettings, topics: Topics, tmp_path: Path) -> Bench:
    """One database for both: each service has a schema of its own."""
    return Bench(database_url, kafka, topics, tmp_path)


@pytest.fixture
def event_log(bench: Bench) -> LogReader:
    return LogReader(bench.kafka, bench.topics)


def forget(both: Pair, key: EntityKey) -> None:
    """The mirror loses everything about an entity."""
    with psycopg.connect(both.bench.database_url) as connection:
        connection.execute("delete from mirror.source_row where entity_key = %s", [key.key])
        connection.execute("delete from mirror.entity where key = %s", [key.key])


def tamper(both: Pair, key: EntityKey, **fields: object) -> None:
    """The ledger believes something else; nothing that it would let happen."""
    with psycopg.connect(both.bench.database_url) as connection:
        connection.execute("set session_replication_role = replica")
        for name, value in fields.items():
            kind = "bigint" if isinstance(value, int) else "text"
            statement = f"update ledger.entity set {name} = %s, event = jsonb_set(event, %s, to_jsonb(%s::{kind})) where key = %s"  # noqa: S608
            connection.execute(statement.encode(), [value, [name], value, key.key])


async def test_who_agrees_says_nothing_and_moves_nothing(bench: Bench, event_log: LogReader) -> None:
    async with pair(bench) as both:
        await both.send(change(ANNA), change(BERT), change(BERT, section="1002"))
        seats, events = both.seats(), len(event_log.events())
        await both.round()
        await both.round()
        assert both.returned() == []
        assert (both.seats(), len(event_log.events())) == (seats, events)


async def test_a_mirror_that_lost_an_entity_gets_it_back_and_rises_above_it(bench: Bench, event_log: LogReader) -> None:
    async with pair(bench) as both:
        await both.send(change(ANNA, note="x"), change(BERT))
        lost, seats = both.version(learner(ANNA)), both.seats()
        forget(both, learner(ANNA))
        await both.round()
        await both.settled()
        assert both.version(learner(ANNA)) > lost
        assert event_log.of(learner(ANNA))[-1].codes == {"NOTE": "x"}
        await both.round()
        assert (both.difference("missing_there"), both.repaired("missing_there")) == (1, 1)
        assert [type(one) for one in both.returned()] == [ReturnedEvent]
        # The mirror has its rows again: it can tell old news from new.
        await both.send(change(ANNA, "dropped", position=1))
        assert event_log.statuses(learner(ANNA))[-1] == "enrolled"
        assert [seat[:6] for seat in both.seats()] == [seat[:6] for seat in seats]


async def test_a_mirror_that_went_back_does_not_undo_a_drop(bench: Bench, event_log: LogReader) -> None:
    async with pair(bench) as both:
        await both.send(change(ANNA, "enrolled"))
        with psycopg.connect(bench.database_url) as connection:
            connection.execute("create table was as select * from mirror.entity")
            connection.execute("create table rows as select * from mirror.source_row")
            connection.commit()
            await both.send(change(ANNA, "dropped"))
            dropped = both.version(learner(ANNA))
            connection.execute("delete from mirror.entity; insert into mirror.entity select * from was")
            connection.execute("delete from mirror.source_row; insert into mirror.source_row select * from rows")
        await both.round()
        await both.settled()
        assert both.version(learner(ANNA)) > dropped
        assert event_log.statuses(learner(ANNA)) == ["enrolled", "dropped", "dropped"]
        assert both.difference("ahead") == 1


async def test_a_version_far_in_the_future_is_still_surpassed(bench: Bench) -> None:
    """The mirror that issued it had another clock, and is lost."""
    future = 8_000_000_000_000_000
    async with pair(bench) as both:
        await both.send(change(ANNA), change(BERT))
        tamper(both, learner(ANNA), version=future)
        await both.round()
        await both.settled()
        assert both.version(learner(ANNA)) == future + 1


async def test_a_ledger_that_lost_entities_gets_them_again(bench: Bench) -> None:
    async with pair(bench) as both:
        await both.send(change(ANNA), change(BERT))
        lost = both.version(learner(ANNA))
        both.ledger.connection.execute("delete from entity where key = %s", [learner(ANNA).key])
        tamper(both, learner(BERT), version=7)
        await both.round()
        await both.settled()
        assert both.version(learner(ANNA), "ledger") > lost
        assert (both.difference("missing_here"), both.difference("behind")) == (1, 1)
        assert [type(one) for one in both.returned()] == [RepublishKeys]


async def test_one_version_with_two_contents_is_an_alarm_and_ends(bench: Bench, event_log: LogReader) -> None:
    async with pair(bench) as both:
        await both.send(change(ANNA), change(BERT))
        tamper(both, learner(ANNA), content_hash="f" * 32)
        await both.round()
        await both.settled()
        await both.round()
        assert (both.difference("hash"), both.repaired("hash")) == (1, 1)
        assert len(event_log.of(learner(ANNA))) == 2
        assert len(event_log.of(learner(BERT))) == 1


async def test_what_is_on_its_way_is_no_difference(bench: Bench) -> None:
    """The intake is far behind when the digest is read: the comparison waits for it instead of asking for everything."""
    async with pair(bench) as both:
        await both.send(change(ANNA))
        with psycopg.connect(bench.database_url) as blocker:
            blocker.execute("lock table ledger.entity in exclusive mode")
            await both.writer.accept([change(BERT), change(ANNA, "dropped")], "test")
            await both.writer.ask_for_digests("test")

            async def emitted() -> bool:
                return not both.ledger.rows("select from mirror.digest_request")

            await eventually(emitted)
            assert both.version(learner(BERT), "ledger") == 0
        await both.settled()
        await both.round()
        assert both.returned() == []


async def test_the_same_event_returned_twice_makes_one_version(bench: Bench, event_log: LogReader) -> None:
    async with pair(bench) as both:
        await both.send(change(ANNA))
        (event,) = event_log.of(learner(ANNA))
        assert await both.writer.take_back([event]) == 0
        forget(both, learner(ANNA))
        assert await both.writer.take_back([event, event]) == 1
        assert await both.writer.take_back([event]) == 0
        assert len(event_log.of(learner(ANNA))) == 2


async def test_an_event_without_rows_drops_nobody_and_brings_nobody_back(bench: Bench, event_log: LogReader) -> None:
    """It says that its rows belong elsewhere by now; a mirror that still has them here knows less, not more."""
    async with pair(bench) as both:
        await both.send(change(ANNA))
        (event,) = event_log.of(learner(ANNA))
        moved = event.model_copy(update={"status": "dropped", "source_rows": [], "version": event.version + 1})
        assert await both.writer.take_back([moved]) == 0
        assert event_log.statuses(learner(ANNA)) == ["enrolled"]


async def test_a_wish_for_a_republish_reaches_the_mirror_once(bench: Bench, event_log: LogReader) -> None:
    async with pair(bench) as both:
        await both.send(change(ANNA), change(BERT))
        with both.ledger.connection.transaction():
            digests.request_republish(both.ledger.connection, Scope(all=True), "trimmed")
            digests.request_republish(both.ledger.connection, Scope(all=True), "trimmed")

        async def emitted() -> bool:
            return len(event_log.events()) == 4

        await eventually(emitted)
        await both.settled()
        assert [type(one) for one in both.returned()] == [RepublishScope]
        assert both.ledger.rows("select from republish_wish") == []


async def test_an_operator_may_ask_for_a_round(bench: Bench) -> None:
    file = bench.folder / "operators"
    file.write_text("ops:sesame\n")
    async with bench.writer() as writer:
        app = App(access={})
        app.include_router(digests_router(writer, Callers(file)))
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://publisher") as client:
            assert (await client.post("/digests")).status_code == HTTPStatus.UNAUTHORIZED
            answer = await client.post("/digests", headers={"Authorization": "Bearer sesame"})
        Promise(app.openapi()).check("post", "/digests", answer)
        assert answer.status_code == HTTPStatus.ACCEPTED

        async def answered() -> bool:
            values = await asyncio.to_thread(read_all, bench, bench.topics.digests)
            ends = [digest for value in values if isinstance(digest := digest_format.decode(value), DigestEnd)]
            return any(answer.json()["request"] in map(str, end.answers) for end in ends)

        await eventually(answered)


async def test_recovery_is_reconciled_by_a_round_that_begins_after_it(bench: Bench) -> None:
    async with pair(bench) as both:
        await both.send(change(ANNA), change(BERT))
        await both.round()
        both.ledger.connection.execute("delete from entity where key = %s", [learner(ANNA).key])
        recovery.enter(both.ledger.connection, "trimmed", 0)
        assert not digests.reconciled(both.ledger.connection)

        async def reconciled() -> bool:
            return digests.reconciled(both.ledger.connection)

        await eventually(reconciled)
        await both.settled()
        assert both.repaired("missing_here") == 1
        assert DigestsWanted in {type(one) for one in both.returned()}


async def test_a_mirror_that_is_asked_for_an_entity_tells_it(bench: Bench, event_log: LogReader) -> None:
    """Whatever version it is in, and nothing of what nobody knows."""
    async with pair(bench) as both:
        await both.send(change(ANNA), change(BERT))
        before = both.version(learner(ANNA))
        for person in (ANNA, "9999999"):
            both.ledger.connection.execute(
                """insert into lms_object (target, kind, object, tenant, key, state, lacks_kind, lacks_key, ask_at)
                   values ('canvas', 'person', %s, 'main', %s, 'waiting', 'enrollment', %s, clock_timestamp())""",
                [person, person, learner(person).key],
            )

        async def told() -> bool:
            return both.version(learner(ANNA), "ledger") > before

        await eventually(told)
        assert len(event_log.of(learner(BERT))) == 1
        await both.settled()
