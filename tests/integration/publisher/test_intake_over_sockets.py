"""What only a real server and a real connection can show: bodies that are refused, slow or never finished."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import httpx
import pytest

from services.kit.http import server
from tests.unit.publisher.intake_support import AUTHORIZED, Intake
from tests.unit.publisher.rowsets import enrollment, message, record

PATH = "/intake/peoplesoft"
GOOD = message(record("STDNT_ENRL", enrollment()))
TEN_MEBIBYTES = 10 * 1024 * 1024


@pytest.fixture
async def intake() -> Intake:
    intake = Intake()
    intake.settings = replace(intake.settings, max_body_bytes=5 * 1024 * 1024, body_timeout_seconds=1)
    return intake


@pytest.fixture
async def port(intake: Intake) -> AsyncIterator[int]:
    uvicorn = server(intake.app(), "127.0.0.1", 0)
    running = asyncio.create_task(uvicorn.serve())
    async with asyncio.timeout(10):
        while not uvicorn.started:  # noqa: ASYNC110  (a flag of uvicorn's)
            await asyncio.sleep(0.01)
    yield uvicorn.servers[0].sockets[0].getsockname()[1]
    uvicorn.should_exit = True
    await running


async def test_a_body_of_ten_mebibytes_is_answered_and_not_reset(intake: Intake, port: int) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=AUTHORIZED, timeout=10) as client:
        response = await client.post(PATH, content=b"x" * TEN_MEBIBYTES)
        assert (response.status_code, intake.quarantine.reasons) == (200, ["too_large"])
        assert (await client.post(PATH, content=GOOD)).status_code == 200
    (_, poison) = next(iter(intake.quarantine.kept.values()))
    assert poison.bytes == TEN_MEBIBYTES


async def test_a_body_that_never_ends_is_answered_503_in_time(intake: Intake, port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic known\r\nContent-Length: 1000\r\n\r\n<X>"
    writer.write(head.encode())
    async with asyncio.timeout(5):
        assert (await reader.readline()).split()[1] == b"503"
    writer.close()
    assert intake.requests("peoplesoft", "too_slow") == 1


async def test_a_sender_that_hangs_up_in_the_middle_harms_nobody(intake: Intake, port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic known\r\nContent-Length: 1000\r\n\r\n<X>".encode())
    await writer.drain()
    writer.close()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=AUTHORIZED, timeout=10) as client:
        assert (await client.post(PATH, content=GOOD)).status_code == 200
    assert len(intake.mirror.accepted) == 1


def head(length: str) -> bytes:
    """Of a delivery whose body is still to come."""
    return f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: Basic known\r\n{length}\r\n\r\n".encode()


async def status_of(reader: asyncio.StreamReader) -> int:
    async with asyncio.timeout(5):
        return int((await reader.readline()).split()[1])


@pytest.fixture
def small(intake: Intake) -> Intake:
    """Room for 1,000 bytes."""
    intake.max_bytes = 1_000
    return intake


@pytest.fixture(params=["bytes", "requests"])
def crowded(request: pytest.FixtureRequest, intake: Intake) -> Intake:
    """Room for one delivery of the size of `GOOD`."""
    if request.param == "bytes":
        intake.max_bytes = len(GOOD) + 10
    else:
        intake.max_requests = 1
    return intake


async def test_what_has_no_room_is_sent_away_before_its_body_is_read(crowded: Intake, port: int) -> None:
    length = f"Content-Length: {len(GOOD)}"
    first, first_writer = await asyncio.open_connection("127.0.0.1", port)
    first_writer.write(head(length) + GOOD[:10])
    await eventually(lambda: crowded.sample("sis_intake_requests_in_hand") == 1)
    second, second_writer = await asyncio.open_connection("127.0.0.1", port)
    second_writer.write(head(length))  # and not a byte of the body
    assert await status_of(second) == 503
    async with asyncio.timeout(5):
        assert b"retry-after: 5\r\n" in (await second.readuntil(b"\r\n\r\n")).lower()
    first_writer.write(GOOD[10:])
    assert await status_of(first) == 200
    for writer in (first_writer, second_writer):
        writer.close()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=AUTHORIZED, timeout=10) as client:
        assert (await client.post(PATH, content=GOOD)).status_code == 200, "the room is free again"
    assert crowded.sample("sis_intake_body_bytes_in_hand") == 0
    assert crowded.sample("sis_intake_unavailable_total", source="peoplesoft", reason="overload") == 1


async def test_a_body_of_undeclared_length_takes_its_room_while_it_arrives(small: Intake, port: int) -> None:
    intake = small
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head("Transfer-Encoding: chunked") + b"190\r\n" + b"x" * 0x190 + b"\r\n")
    await eventually(lambda: intake.sample("sis_intake_body_bytes_in_hand") == 0x190)
    writer.write(b"400\r\n" + b"x" * 0x400 + b"\r\n")
    assert await status_of(reader) == 503
    writer.close()
    await eventually(lambda: intake.sample("sis_intake_body_bytes_in_hand") == 0)


async def eventually(condition: Callable[[], bool]) -> None:
    """Poll until it holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  (over a socket: there is nothing to wait on)
            await asyncio.sleep(0.01)
