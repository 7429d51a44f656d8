"""Two publishers over one mirror, as processes: killed, stopped, out of order, with a full disk, without Kafka."""

from __future__ import annotations

import asyncio
import signal
from functools import partial
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import psycopg
import pytest

from schemas.keys import enrollment_key
from services.sandbox.broker import EmbeddedBroker
from tests.integration.publisher.mirror.bench import Bench, LogReader, eventually
from tests.integration.publisher.mirror.test_process import EVENT, answers, process

STUDENT = enrollment_key("main", "PSUNV", "2258", "1001", "0090001", "learner")


async def post(client: httpx.AsyncClient, sequence: int, **changes: Any) -> httpx.Response:
    """Deliver what the source says."""
    return await client.post("/intake/events", json=EVENT | {"sequence": sequence} | changes)


async def is_taken(client: httpx.AsyncClient, sequence: int, **changes: Any) -> bool:
    """Deliver as a source does: again, until it is taken."""
    return (await post(client, sequence, **changes)).status_code == 200


async def are_ready(*clients: httpx.AsyncClient) -> None:
    """Wait until all publishers take traffic; two at once take turns at opening the mirror."""
    for client in clients:
        await eventually(partial(answers, client, "/readyz"), 40)


async def is_stopped(pid: int) -> bool:
    """By a signal."""
    return bool(psutil.Process(pid).status() == psutil.STATUS_STOPPED)


@pytest.mark.parametrize("step", ["before_commit", "after_ack"])
async def test_the_other_publisher_takes_what_a_killed_one_did_not_answer_and_there_is_one_version(
    bench: Bench, event_log: LogReader, step: str
) -> None:
    async with process(bench, FAILPOINT=f"publisher.{step}:kill@1") as (one, to_one), process(bench) as (_, to_other):
        await are_ready(to_one, to_other)
        with pytest.raises(httpx.TransportError):
            await post(to_one, 5)
        assert await asyncio.wait_for(one.wait(), 20) == -signal.SIGKILL
        await eventually(lambda: is_taken(to_other, 5))
    assert event_log.statuses(STUDENT) == ["enrolled"]


@pytest.mark.parametrize("step", ["before_commit", "after_commit"])
async def test_a_publisher_that_is_stopped_amid_a_request_delays_nobody_and_undoes_nothing_when_it_wakes(
    bench: Bench, event_log: LogReader, step: str
) -> None:
    async with process(bench, FAILPOINT=f"publisher.{step}:pause@1") as (one, to_one), process(bench) as (_, to_other):
        await are_ready(to_one, to_other)
        stuck = asyncio.create_task(post(to_one, 5))
        await eventually(lambda: is_stopped(one.pid))
        await eventually(lambda: is_taken(to_other, 5), 30)  # what the stopped one holds locked is let go of
        assert (await post(to_other, 6, status="dropped")).json()["events"] == 1
        one.send_signal(signal.SIGCONT)
        await asyncio.gather(stuck, return_exceptions=True)
        await eventually(lambda: is_taken(to_one, 5))
        assert (await post(to_one, 6, status="dropped")).json()["unchanged"] == 1
    assert event_log.statuses(STUDENT) == ["enrolled", "dropped"]


async def test_of_two_gateways_the_one_with_older_news_changes_nothing(bench: Bench, event_log: LogReader) -> None:
    async with process(bench) as (_, to_one), process(bench) as (_, to_other):
        await are_ready(to_one, to_other)
        await post(to_one, 9, status="dropped")
        late = (await post(to_other, 8)).json()
    assert (late["unchanged"], late["events"]) == (1, 0)
    assert event_log.statuses(STUDENT) == ["dropped"]


@pytest.mark.parametrize("kafka", ["embedded"], indirect=True)
async def test_a_full_disk_of_the_outbox_is_503_and_not_ready_and_heals_by_itself(bench: Bench, event_log: LogReader) -> None:
    async with process(bench) as (_, client):
        await eventually(lambda: answers(client, "/readyz"))
        with psycopg.connect(bench.database_url) as connection:
            connection.execute(
                """create function full_disk() returns trigger language plpgsql as
                     $$ begin raise exception 'could not extend file' using errcode = 'disk_full'; end $$;
                   create trigger full_disk before insert on mirror.outbox for each row execute function full_disk()"""
            )
        refused = await post(client, 5)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert not (await client.get("/readyz")).json()["database"]
        with psycopg.connect(bench.database_url) as connection:
            assert connection.execute("select count(*) from mirror.source_row").fetchone() == (0,), "no half of it"
            connection.execute("drop trigger full_disk on mirror.outbox")
        await eventually(lambda: is_taken(client, 5))
        assert await answers(client, "/readyz")
    assert event_log.statuses(STUDENT) == ["enrolled"]


async def test_without_kafka_every_delivery_is_503_no_queue_grows_beyond_its_bound_and_all_is_well_afterwards(
    hurt: Bench, own_broker: EmbeddedBroker
) -> None:
    people, bound, at_once = [str(number) for number in range(60)], 10, asyncio.Semaphore(10)
    impatient = {"ANSWER_WITHIN_SECONDS": "1.5", "DELIVERY_TIMEOUT_SECONDS": "1", "OUTBOX_SWEEP_AFTER_SECONDS": "0.3"}
    async with process(hurt, **impatient, MAX_UNPUBLISHED_EVENTS=str(bound)) as (_, client):
        await eventually(lambda: answers(client, "/readyz"))
        own_broker.set_down()

        async def status(person: str) -> int:
            async with at_once:
                return (await post(client, 5, person=person)).status_code

        assert set(await asyncio.gather(*map(status, people))) == {503}
        with psycopg.connect(hurt.database_url) as connection:
            row = connection.execute("select count(*) from mirror.outbox").fetchone()
        assert row is not None
        assert bound <= row[0] < 2 * bound + 1, "what was in hand when the bound was reached, and no more"
        assert not (await client.get("/readyz")).json()["outbox"]
        own_broker.set_up()
        await eventually(lambda: answers(client, "/readyz"), 30)
        for person in people:
            await eventually(partial(is_taken, client, 5, person=person))
    versions = {(event.entity_key, event.version) for event in LogReader(hurt.kafka, hurt.topics).events()}
    assert len(versions) == len(people), "one version each"
