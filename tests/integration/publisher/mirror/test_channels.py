"""When each channel last delivered, as every publisher knows it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from services.publisher.channels import Channel, Channels
from services.publisher.metrics import Metrics
from services.publisher.silence import Cadence
from tests.integration.publisher.mirror.bench import Bench, eventually
from tests.integration.publisher.mirror.test_process import EVENT, answers, process

NOW = datetime.now(UTC).replace(microsecond=0)
EXPECTED = {"ib:SIS": Cadence(timedelta(minutes=30)), "ib:NEVER": Cadence(timedelta(minutes=30))}


@asynccontextmanager
async def channels(
    database_url: str, *, at: datetime = NOW, expected: Mapping[str, Cadence] = EXPECTED
) -> AsyncIterator[Channels]:
    """One publisher's, which has it `at` now."""

    async def opened() -> None:
        return

    running = Channels(opened, database_url, "main", expected, UTC, Metrics(), lambda: at)
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


async def known(running: Channels) -> dict[str, Channel]:
    return {one.name: one for one in await running.listed()}


async def test_what_one_publisher_heard_every_publisher_knows(database_url: str) -> None:
    async with channels(database_url) as one, channels(database_url, at=NOW + timedelta(minutes=40)) as other:
        one.heard("ib:SIS", NOW - timedelta(minutes=1))
        one.heard("ib:SIS", NOW)
        one.heard("events:app", NOW)
        here, there = await known(one), await known(other)
    assert (here["ib:SIS"].last_at, here["ib:SIS"].deliveries, here["ib:SIS"].is_silent) == (NOW, 2, False)
    assert there["ib:SIS"].is_silent
    assert not there["events:app"].is_silent, "nobody said that it should deliver"


async def test_a_channel_that_never_delivered_is_silent_since_it_was_first_expected(database_url: str) -> None:
    async with channels(database_url, at=NOW - timedelta(minutes=31)) as first:
        assert not (await known(first))["ib:NEVER"].is_silent
    async with channels(database_url) as after_a_restart:
        assert (await known(after_a_restart))["ib:NEVER"].is_silent
        assert (await known(after_a_restart))["ib:NEVER"].last_at is None


async def test_a_channel_that_was_expected_before_it_delivered_is_silent_since_then(database_url: str) -> None:
    async with channels(database_url, at=NOW - timedelta(hours=2)) as running:
        await running.listed()
        running.heard("ib:NEVER", NOW - timedelta(minutes=10))
    async with channels(database_url) as running:
        heard = (await known(running))["ib:NEVER"]
    assert (heard.last_at, heard.deliveries, heard.is_silent) == (NOW - timedelta(minutes=10), 1, False)


async def test_a_channel_that_is_expected_no_longer_and_never_delivered_is_not_listed(database_url: str) -> None:
    async with channels(database_url) as running:
        await running.listed()
    async with channels(database_url, expected={}) as running:
        assert await known(running) == {}


async def test_what_was_heard_last_is_written_down_at_the_end(database_url: str) -> None:
    async with channels(database_url) as ending:
        ending.heard("ib:SIS", NOW)
    async with channels(database_url) as next_one:
        assert (await known(next_one))["ib:SIS"].last_at == NOW


async def test_an_expected_channel_is_known_beside_a_sender_with_a_thousand_names(database_url: str) -> None:
    async with channels(database_url) as running:
        running.heard("ib:SIS", NOW - timedelta(minutes=5))
        for number in range(1_000):
            running.heard(f"ib:NODE{number}", NOW)
        assert (await known(running))["ib:SIS"].last_at == NOW - timedelta(minutes=5)


async def test_an_expected_channel_that_ended_long_ago_is_silent_in_a_new_process_too(database_url: str) -> None:
    async with channels(database_url) as before:
        before.heard("ib:SIS", NOW - timedelta(days=181))
    async with channels(database_url) as after:
        assert (await known(after))["ib:SIS"].is_silent


@pytest.mark.parametrize("kafka", ["embedded"], indirect=True)
async def test_operators_see_who_delivers_and_who_is_silent(bench: Bench) -> None:
    cadences, operators = bench.folder / "cadences.yaml", bench.folder / "operators"
    cadences.write_text("ib:SIS: {every_minutes: 0.001}\n")
    operators.write_text("operator:word\n")
    files = {"SOURCE_CADENCE_FILE": str(cadences), "OPERATIONS_CREDENTIALS_FILE": str(operators)}
    async with process(bench, **files) as (_, client):
        await eventually(lambda: answers(client, "/readyz"), 60)
        assert (await client.post("/intake/events", json=EVENT)).status_code == 200
        assert (await client.get("/sources")).status_code == 401

        async def listed() -> bool:
            channels = (await client.get("/sources", auth=("operator", "word"))).json()["channels"]
            told = [(one["channel"], one["deliveries"], one.get("silent")) for one in channels]
            return told == [("events:sis", 1, None), ("ib:SIS", 0, True)]

        await eventually(listed)  # it is expected since the process first looked

        async def told() -> bool:
            return 'sis_channel_silent{channel="ib:SIS"} 1.0' in (await client.get("/metrics")).text

        await eventually(told)
