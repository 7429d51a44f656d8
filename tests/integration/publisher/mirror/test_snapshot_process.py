"""Full extracts over HTTP, against a publisher process: its answers, and its death in the middle of one."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.drills.injectors import disk
from tests.integration.publisher.mirror.bench import Bench, LogReader, eventually
from tests.integration.publisher.mirror.test_process import answers, process
from tests.integration.publisher.mirror.test_snapshots import csv_of, everybody, person, row
from tests.integration.publisher.test_extracts_over_sockets import free_bytes

pytestmark = pytest.mark.parametrize("kafka", ["embedded"], indirect=True)
OPERATOR = httpx.BasicAuth("operator", "word")


def claim(**more: str) -> dict[str, str]:
    return {"institution": "NORTH", "term": "2267", "started_at": datetime.now(UTC).isoformat()} | more


async def send(client: httpx.AsyncClient, content: bytes, **more: str) -> httpx.Response:
    return await client.post("/intake/snapshots/STDNT_ENRL", params=claim(**more), content=content)


def operated(bench: Bench) -> dict[str, str]:
    """Environment of a publisher that knows an operator."""
    file = bench.folder / "operators"
    file.write_text("operator:word\n")
    return {"OPERATIONS_CREDENTIALS_FILE": str(file)}


def most_memory(pid: int) -> int:
    """Of a process up to now, in KiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])  # type: ignore[index]


async def in_hand(client: httpx.AsyncClient, deliveries: int) -> bool:
    return f"sis_intake_requests_in_hand {deliveries}.0" in (await client.get("/metrics")).text


async def state(client: httpx.AsyncClient, snapshot: str) -> dict[str, Any]:
    found: dict[str, Any] = (await client.get(f"/snapshots/{snapshot}", auth=OPERATOR)).json()
    return found


async def test_a_publisher_that_dies_amid_an_extract_leaves_it_to_the_next(bench: Bench, event_log: LogReader) -> None:
    operators = operated(bench)
    async with process(bench, **operators, FAILPOINT="publisher.after_snapshot_page:kill@2") as (publisher, client):
        await eventually(lambda: answers(client, "/readyz"), 60)
        taken = await send(client, csv_of(everybody(1_300)))
        assert taken.status_code == 202, taken.text
        await asyncio.wait_for(publisher.wait(), 60)
    assert 500 <= len({event.entity_key for event in event_log.events()}) < 1_300
    async with process(bench, **operators) as (_, client):
        await eventually(lambda: answers(client, "/readyz"), 60)

        async def applied() -> bool:
            return bool((await state(client, taken.json()["id"]))["state"] == "applied")

        await eventually(applied, 60)
        assert "sis_snapshots_total" in (await client.get("/metrics")).text
    events = event_log.events()
    assert len({event.entity_key for event in events}) == 1_300
    assert {getattr(event, "status", None) for event in events} == {"enrolled"}


async def test_what_is_refused_is_said_to_the_sender_and_to_operators(bench: Bench) -> None:
    async with process(bench, **operated(bench)) as (_, client):
        await eventually(lambda: answers(client, "/readyz"), 60)
        refusals = {
            "empty": await send(client, csv_of([])),
            "truncated": await send(client, csv_of(everybody(30))[:-40]),
            "missing_columns": await send(client, csv_of(everybody(30)).replace(b"EMPLID", b"STUDENT_ID")),
        }
        for reason, answer in refusals.items():
            assert (answer.status_code, answer.json()["reason"]) == (422, reason)
        assert "without EMPLID; not known: STUDENT_ID: has a column been renamed?" in refusals["missing_columns"].json()["detail"]
        listed = (await client.get("/snapshots", auth=OPERATOR)).json()["snapshots"]
        assert {one["reason"] for one in listed} == set(refusals)
        assert (await client.get("/snapshots")).status_code == 401
        metrics = (await client.get("/metrics")).text
        assert 'sis_snapshots_total{outcome="refused",reason="truncated"} 1.0' in metrics
        assert person(3) not in str(listed) + metrics


async def test_a_file_without_line_ends_is_refused_before_it_fills_the_memory(bench: Bench) -> None:
    megabyte = b'{"EMPLID":"0090001"},' * 50_000

    async def one_line() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield megabyte

    async with process(bench) as (publisher, client):
        await eventually(lambda: answers(client, "/readyz"), 60)
        idle = most_memory(publisher.pid)
        answer = await client.post("/intake/snapshots/STDNT_ENRL", params=claim(), content=one_line(), timeout=60)
        assert most_memory(publisher.pid) - idle < 40_000
        assert (answer.status_code, answer.json()["reason"]) == (422, "malformed_csv")


async def test_a_slow_sender_does_not_keep_a_publisher_from_stopping(bench: Bench) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield b"EMPLID,"
        begun.set()
        await ended.wait()

    async with process(bench, BODY_TIMEOUT_SECONDS="0.5", ANSWER_WITHIN_SECONDS="2", DELIVERY_TIMEOUT_SECONDS="1") as (
        publisher,
        client,
    ):
        await eventually(lambda: answers(client, "/readyz"), 60)
        sending = asyncio.create_task(client.post("/intake/snapshots/STDNT_ENRL", params=claim(), content=slowly(), timeout=60))
        await begun.wait()
        await eventually(lambda: in_hand(client, 1))
        publisher.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(publisher.wait(), 15) == 0
        ended.set()
        with suppress(httpx.TransportError):
            assert (await sending).status_code >= 500, "it has to come again"


async def test_a_publisher_that_is_killed_amid_an_upload_leaves_nothing_on_its_disk(bench: Bench, tmp_path: Path) -> None:
    if reason := disk.missing():
        pytest.skip(reason)
    begun, ended = asyncio.Event(), asyncio.Event()

    async def half_of_it() -> AsyncIterator[bytes]:
        yield b"x" * 500_000
        begun.set()
        await ended.wait()

    with disk.small_disk(tmp_path / "disk", 1) as folder:
        async with process(bench, TMPDIR=str(folder)) as (publisher, client):
            await eventually(lambda: answers(client, "/readyz"), 60)
            empty = free_bytes(folder)
            sending = asyncio.create_task(
                client.post("/intake/snapshots/STDNT_ENRL", params=claim(), content=half_of_it(), timeout=60)
            )
            await begun.wait()

            async def is_there() -> bool:
                return free_bytes(folder) <= empty - 400_000

            await eventually(is_there)
            publisher.kill()
            await publisher.wait()
            ended.set()
            with suppress(httpx.TransportError):
                await sending
            assert free_bytes(folder) == empty


async def test_a_held_extract_is_let_go_by_its_digest_alone(bench: Bench) -> None:
    async with process(bench, **operated(bench)) as (_, client):
        await eventually(lambda: answers(client, "/readyz"), 60)
        hours_ago = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
        first = (await send(client, csv_of(everybody(60)), started_at=hours_ago)).json()["id"]

        async def applied(snapshot: str = first) -> bool:
            return bool((await state(client, snapshot))["state"] == "applied")

        await eventually(applied, 60)
        content = csv_of(everybody(30))
        held = await send(client, content)
        assert (held.status_code, held.json()["reason"]) == (409, "shrunk")
        path = f"/snapshots/{held.json()['snapshot']['id']}/approve"
        wrong = await client.post(path, json={"digest": "0" * 64}, auth=OPERATOR)
        assert (wrong.status_code, wrong.json()["reason"]) == (409, "other_digest")
        right = await client.post(path, json={"digest": hashlib.sha256(content).hexdigest()}, auth=OPERATOR)
        assert right.status_code == 202, right.text
        assert right.json()["approved_by"] == "operator"
        await eventually(lambda: applied(right.json()["id"]), 60)


async def test_an_extract_needs_a_believable_claim(bench: Bench) -> None:
    content = csv_of([row(person(1))])
    digest = base64.b64encode(hashlib.sha256(b"another file").digest()).decode()
    async with process(bench, MAX_SNAPSHOT_BYTES="2000") as (_, client):
        await eventually(lambda: answers(client, "/readyz"), 60)
        tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        assert (await send(client, content, started_at=tomorrow)).status_code == 422
        assert (await send(client, content, started_at="yesterday")).status_code == 422
        assert (await send(client, content, started_at="0001-01-01T00:00:00Z")).status_code == 422
        assert (await send(client, content, terms="2267")).status_code == 422
        assert (await client.post("/intake/snapshots/GRADES", params=claim(), content=content)).status_code == 404
        assert (await send(client, csv_of(everybody(60)))).status_code == 413
        assert (await client.post("/intake/snapshots/STDNT_ENRL", auth=("sis", "wrong"))).status_code == 401
        other = await client.post(
            "/intake/snapshots/STDNT_ENRL",
            params=claim(),
            content=content,
            headers={"Content-Digest": f"sha-256=:{digest}:"},
        )
        assert (other.status_code, other.json()["reason"]) == (422, "digest_mismatch")
