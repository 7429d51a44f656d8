"""The publisher as a process: it tells when it is ready, takes a change over HTTP, and stops in order."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from services.kit.credentials import basic
from services.sandbox.demo.processes import free_port
from tests.integration.publisher.mirror.bench import Bench, LogReader, empty, eventually
from tests.plain_http import NO_TLS

EVENT = {
    "kind": "enrollment",
    "institution": "PSUNV",
    "term": "2258",
    "section": "1001",
    "person": "0090001",
    "role_family": "learner",
    "status": "enrolled",
    "role": "student",
}


@asynccontextmanager
async def process(bench: Bench, **environment: str) -> AsyncIterator[tuple[asyncio.subprocess.Process, httpx.AsyncClient]]:
    """The publisher and a client for it."""
    credentials = bench.folder / "sources"
    credentials.write_text("sis:secret\n")
    port = free_port()
    needed = {
        "DATABASE_URL": bench.database_url,
        "TOPIC_PREFIX": bench.topics.prefix,
        "INTAKE_CREDENTIALS_FILE": str(credentials),
        "KAFKA_BOOTSTRAP_SERVERS": bench.kafka.bootstrap_servers,
        "KAFKA_LINGER_MS": str(bench.kafka.linger_ms),
        "KAFKA_FETCH_WAIT_MAX_MS": str(bench.kafka.fetch_wait_max_ms),
        "PORT": str(port),
    }
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.publisher", env=os.environ | needed | environment, stderr=asyncio.subprocess.PIPE
    )
    try:
        url = f"http://127.0.0.1:{port}"
        async with httpx.AsyncClient(base_url=url, verify=NO_TLS, auth=("sis", "secret"), timeout=20) as client:
            yield running, client
    finally:
        if running.returncode is None:
            running.kill()
        await running.communicate()


async def answers(client: httpx.AsyncClient, path: str, status: int = 200) -> bool:
    """Whether a path answers so."""
    try:
        return (await client.get(path)).status_code == status
    except httpx.TransportError:
        return False


async def test_a_change_posted_over_http_is_in_the_log_and_sigterm_ends_with_zero(bench: Bench, event_log: LogReader) -> None:
    async with process(bench) as (publisher, client):
        await eventually(lambda: answers(client, "/readyz"))
        response = await client.post("/intake/events", json=EVENT)
        assert (response.status_code, response.json()["events"]) == (200, 1)
        metrics = (await client.get("/metrics")).text
        publisher.send_signal(signal.SIGTERM)
        output = (await asyncio.wait_for(publisher.communicate(), 20))[1].decode()
    assert publisher.returncode == 0, output
    assert [event.tenant for event in event_log.events()] == ["main"]
    assert 'sis_events_published_total{kind="enrollment"} 1.0' in metrics
    assert "0090001" not in output + metrics


async def test_what_is_under_way_at_sigterm_is_answered(bench: Bench, event_log: LogReader) -> None:
    async with process(bench) as (publisher, client):
        await eventually(lambda: answers(client, "/readyz"))
        posts = [client.post("/intake/events", json=EVENT | {"person": str(number)}) for number in range(20)]
        work = asyncio.gather(*posts, return_exceptions=True)
        await asyncio.sleep(0.02)
        publisher.send_signal(signal.SIGTERM)
        outcomes = await work
        await asyncio.wait_for(publisher.communicate(), 20)
    taken = sum(isinstance(outcome, httpx.Response) and outcome.status_code == 200 for outcome in outcomes)
    assert publisher.returncode == 0
    assert len({event.entity_key for event in event_log.events()}) >= taken


@pytest.mark.parametrize("kafka", ["embedded"], indirect=True)
async def test_without_its_database_it_lives_and_is_not_ready(bench: Bench) -> None:
    async with process(bench, DATABASE_URL="postgresql://127.0.0.1:1/nowhere") as (publisher, client):
        await eventually(lambda: answers(client, "/healthz"))
        assert await answers(client, "/readyz", 503)
        response = await client.post("/intake/events", json=EVENT, headers={"Authorization": basic("sis", "secret")})
        assert (response.status_code, "retry-after" in response.headers) == (503, True)
        publisher.send_signal(signal.SIGTERM)
        await asyncio.wait_for(publisher.communicate(), 20)
    assert publisher.returncode == 0


@pytest.mark.parametrize("kafka", ["embedded"], indirect=True)
async def test_a_start_that_fails_ends_with_an_error(bench: Bench) -> None:
    key = bench.folder / "key"
    key.write_text("no Fernet key\n")
    async with process(bench, QUARANTINE_KEY_FILE=str(key)) as (publisher, _):
        await asyncio.wait_for(publisher.wait(), 20)
        assert publisher.returncode == 3


@pytest.mark.parametrize("kafka", ["embedded"], indirect=True)
async def test_a_first_start_complains_of_nothing_but_the_missing_key(bench: Bench) -> None:
    empty(bench)
    async with process(bench) as (publisher, client):
        await eventually(lambda: answers(client, "/readyz"))
        publisher.send_signal(signal.SIGTERM)
        output = (await asyncio.wait_for(publisher.communicate(), 20))[1].decode()
    complaints = [line["event"] for line in map(json.loads, output.splitlines()) if line["level"] in {"warning", "error"}]
    assert complaints == ["quarantine_without_key"]


async def test_help_lists_every_setting_and_a_missing_one_is_named() -> None:
    for arguments, status, text in ((["--help"], 0, "ANSWER_WITHIN_SECONDS"), ([], 2, "DATABASE_URL")):
        running = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.publisher", *arguments, stdout=-1, stderr=-1, env={"PATH": os.environ["PATH"]}
        )
        printed = b"".join(await running.communicate()).decode()
        assert (running.returncode, text in printed) == (status, True)
