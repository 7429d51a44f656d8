"""What only a real server and a real disk can show of extracts: what is refused before it is sent, and what has no room."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO
from uuid import UUID

import httpx
import pytest

from services.kit.http import server
from services.kit.openapi import App
from services.publisher.changes import Unavailable
from services.publisher.intake.budget import Budget, Room
from services.publisher.intake.snapshots import snapshots_router
from services.publisher.intake.spool import Spool
from services.publisher.metrics import Metrics
from services.publisher.snapshots.table import Snapshot
from services.publisher.translate.extract import ExtractRefused, Manifest
from tests.drills.injectors import disk
from tests.integration.publisher.test_intake_over_sockets import eventually
from tests.unit.publisher.fakes import FakeCallers, FakeChannels

PATH = "/intake/snapshots/STDNT_ENRL?institution=NORTH&term=2267&started_at=2026-11-01T10:00:00Z"
MEBIBYTE = 1024 * 1024
FILE = b"x" * MEBIBYTE
NOW = datetime(2026, 11, 1, 11, tzinfo=UTC)
TAKEN = Snapshot(
    UUID(int=1), "STDNT_ENRL", "NORTH", "2267", "snapshot:campus", NOW, NOW, NOW, "", 0, "applying", None, None,
    rows=1, unusable=0, absent=0, total=1, done=0, changed=0, approved_by=None, closed_at=None,
)  # fmt: skip


class FakeStore:
    """Takes whatever comes, unless it is busy."""

    def __init__(self) -> None:
        self.is_busy = False
        self.taken: list[bytes] = []
        self.manifests: list[Manifest] = []

    async def expect(self, manifest: Manifest) -> None:
        if self.is_busy:
            raise Unavailable("busy")

    async def take(self, manifest: Manifest, file: BinaryIO, digest: str, size: int) -> Snapshot:
        self.taken.append(file.read())
        self.manifests.append(manifest)
        return replace(TAKEN, digest=digest, bytes=size)

    async def refuse(self, manifest: Manifest, digest: str, size: int, refusal: ExtractRefused) -> Snapshot:
        raise NotImplementedError


@dataclass
class Desk:
    """A publisher's route for extracts, over a real socket."""

    store: FakeStore = field(default_factory=FakeStore)
    metrics: Metrics = field(default_factory=Metrics)
    now: datetime = NOW
    port: int = 0

    def app(self) -> App:
        room = Room(3 * MEBIBYTE, self.metrics.extract_bytes_in_hand)
        spool, budget = Spool(room, 2 * MEBIBYTE, 3), Budget(10, 10 * MEBIBYTE, self.metrics)
        app = App(access={})
        callers = FakeCallers({"Basic known": "campus"})
        parts = (self.store, callers, self.metrics, "main", spool, budget, FakeChannels(), lambda: self.now)
        app.include_router(snapshots_router(*parts))
        return app

    async def post(self, content: bytes | AsyncIterator[bytes]) -> httpx.Response:
        headers = {"authorization": "Basic known"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{self.port}", headers=headers, timeout=10) as client:
            return await client.post(PATH, content=content)

    async def begin(self, *headers: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """An upload of which only the head was sent."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        lines = [f"POST {PATH} HTTP/1.1", "Host: x", "Authorization: Basic known", *headers, "", ""]
        writer.write("\r\n".join(lines).encode())
        return reader, writer

    def bytes_in_hand(self) -> float | None:
        return self.metrics.registry.get_sample_value("sis_intake_extract_bytes_in_hand")

    def unavailable(self, reason: str) -> float | None:
        labels = {"source": "snapshot", "reason": reason}
        return self.metrics.registry.get_sample_value("sis_intake_unavailable_total", labels)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    desk = Desk()
    uvicorn = server(desk.app(), "127.0.0.1", 0)
    running = asyncio.create_task(uvicorn.serve())
    await eventually(lambda: uvicorn.started)
    desk.port = uvicorn.servers[0].sockets[0].getsockname()[1]
    yield desk
    uvicorn.should_exit = True
    await running


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where extracts lie: a disk of 1 MiB."""
    if reason := disk.missing():
        assert not os.environ.get("CI"), reason
        pytest.skip(reason)
    with disk.small_disk(tmp_path / "disk", 1) as folder:
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        yield folder


def free_bytes(folder: Path) -> int:
    """On its disk."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


async def undeclared(content: bytes) -> AsyncIterator[bytes]:
    """Sent in chunks."""
    yield content


async def status_of(reader: asyncio.StreamReader) -> int:
    async with asyncio.timeout(5):
        return int((await reader.readline()).split()[1])


async def test_an_extract_that_cannot_be_taken_is_not_asked_for(desk: Desk) -> None:
    desk.store.is_busy = True
    reader, writer = await desk.begin("Expect: 100-continue", f"Content-Length: {MEBIBYTE}")
    assert await status_of(reader) == 503, "and no 100 before it"
    async with asyncio.timeout(5):
        answer = await reader.read(2_000)
    writer.close()
    assert b"retry-after: 30\r\n" in answer.lower()
    assert b'"reason":"busy"' in answer
    assert desk.unavailable("busy") == 1


async def test_an_extract_that_can_be_taken_is_asked_for(desk: Desk) -> None:
    reader, writer = await desk.begin("Expect: 100-continue", f"Content-Length: {MEBIBYTE}")
    assert await status_of(reader) == 100
    writer.write(FILE)
    await reader.readline()
    assert await status_of(reader) == 202
    writer.close()
    assert desk.store.taken == [FILE]


async def test_a_client_that_waits_for_nothing_hears_the_refusal_although_it_sends_on(desk: Desk) -> None:
    desk.store.is_busy = True
    assert (await desk.post(FILE)).json()["reason"] == "busy"
    assert (await desk.post(FILE * 3)).status_code == 503


async def test_an_extract_that_is_too_long_by_its_head_is_not_read(desk: Desk) -> None:
    reader, writer = await desk.begin("Expect: 100-continue", f"Content-Length: {3 * MEBIBYTE}")
    assert await status_of(reader) == 413
    writer.close()
    assert (await desk.post(FILE * 3)).status_code == 413


async def test_extracts_that_have_no_room_together_are_sent_away_before_they_are_read(desk: Desk) -> None:
    first, first_writer = await desk.begin(f"Content-Length: {2 * MEBIBYTE}")
    await eventually(lambda: desk.bytes_in_hand() == 2 * MEBIBYTE)
    second, second_writer = await desk.begin(f"Content-Length: {2 * MEBIBYTE}")
    assert await status_of(second) == 503
    assert (await desk.post(FILE)).status_code == 202, "a small one has room"
    first_writer.write(FILE * 2)
    assert await status_of(first) == 202
    for writer in (first_writer, second_writer):
        writer.close()
    assert (desk.bytes_in_hand(), desk.unavailable("overload")) == (0, 1)


async def test_an_extract_of_undeclared_length_takes_its_room_while_it_arrives(desk: Desk) -> None:
    _, first_writer = await desk.begin(f"Content-Length: {2 * MEBIBYTE}")
    await eventually(lambda: desk.bytes_in_hand() == 2 * MEBIBYTE)
    reader, writer = await desk.begin("Transfer-Encoding: chunked")
    writer.write(b"180000\r\n" + b"x" * 0x180000 + b"\r\n")
    assert await status_of(reader) == 503
    for each in (first_writer, writer):
        each.close()
    await eventually(lambda: desk.bytes_in_hand() == 0)


async def test_a_sender_that_stands_still_gives_its_room_back(desk: Desk) -> None:
    reader, writer = await desk.begin(f"Content-Length: {MEBIBYTE}")
    writer.write(FILE[:-1])
    await eventually(lambda: desk.bytes_in_hand() == MEBIBYTE)
    assert await status_of(reader) == 503
    async with asyncio.timeout(5):
        assert b'"reason":"too_slow"' in await reader.read(2_000)
    writer.close()
    assert desk.bytes_in_hand() == 0


async def test_a_sender_that_hangs_up_gives_its_room_back(desk: Desk) -> None:
    _, writer = await desk.begin(f"Content-Length: {MEBIBYTE}")
    await eventually(lambda: desk.bytes_in_hand() == MEBIBYTE)
    writer.close()
    await eventually(lambda: desk.bytes_in_hand() == 0)
    assert desk.store.taken == []


async def test_an_extract_that_the_disk_has_no_room_for_is_not_read(desk: Desk, small_disk: Path) -> None:
    reader, writer = await desk.begin("Expect: 100-continue", f"Content-Length: {2 * MEBIBYTE}")
    assert await status_of(reader) == 503
    writer.close()
    assert desk.unavailable("disk") == 1


async def test_a_disk_that_gets_full_is_said_and_nothing_is_left_on_it(desk: Desk, small_disk: Path) -> None:
    before = free_bytes(small_disk)
    reader, writer = await desk.begin("Transfer-Encoding: chunked")
    writer.write(b"180000\r\n" + b"x" * 0x180000 + b"\r\n0\r\n\r\n")
    assert await status_of(reader) == 503
    async with asyncio.timeout(5):
        assert b'"reason":"disk"' in await reader.read(2_000)
    writer.close()
    assert (free_bytes(small_disk), desk.bytes_in_hand(), desk.unavailable("disk")) == (before, 0, 1)
    with disk.full(small_disk):
        for content in (b"x", undeclared(b"x")):
            assert (await desk.post(content)).json()["reason"] == "disk"
    assert (await desk.post(FILE[:-8192])).status_code == 202, "there is room again"


async def test_an_extract_has_arrived_when_its_last_byte_has(desk: Desk) -> None:
    reader, writer = await desk.begin(f"Content-Length: {MEBIBYTE}")  # by a query that runs while it is sent
    await eventually(lambda: desk.bytes_in_hand() == MEBIBYTE)
    desk.now += timedelta(minutes=7)
    writer.write(FILE)
    assert await status_of(reader) == 202
    writer.close()
    assert [(one.ended_at, one.received_at) for one in desk.store.manifests] == [(desk.now, desk.now)]


async def test_a_disk_that_cannot_be_written_at_all_is_said(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nowhere")
    assert (await desk.post(FILE)).json()["reason"] == "disk"
    assert (desk.bytes_in_hand(), desk.unavailable("disk")) == (0, 1)
