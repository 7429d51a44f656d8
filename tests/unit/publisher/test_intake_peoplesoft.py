"""``POST /intake/peoplesoft``: 200 when it is durable, 503 when it is not, and nothing else but 401."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from xml.etree import ElementTree

import httpx
import pytest

from services.publisher.changes import Unavailable
from tests.unit.publisher.intake_support import LIMIT, Intake
from tests.unit.publisher.rowsets import HEADERS, enrollment, message, record

PATH = "/intake/peoplesoft"
GOOD = message(record("STDNT_ENRL", enrollment()))


async def post(intake: Intake, body: bytes | AsyncIterator[bytes], **headers: str) -> httpx.Response:
    async with intake.client() as client:
        return await client.post(PATH, content=body, headers=HEADERS | headers)


def title(response: httpx.Response) -> str:
    """The answer's title; fails when it is not the small XML that the other side parses."""
    assert response.headers["content-type"] == "text/xml; charset=utf-8"
    root = ElementTree.fromstring(response.content)  # noqa: S314  (our own answer)
    assert root.tag == "IBResponse"
    assert root.findtext("TransactionID")
    assert root.attrib["type"] == ("success" if response.status_code == 200 else "error")
    return root.findtext("DefaultTitle") or ""


async def test_a_good_message_is_accepted_when_the_mirror_has_it() -> None:
    intake = Intake()
    response = await post(intake, GOOD)
    assert (response.status_code, title(response)) == (200, "accepted")
    assert [change.record for change in intake.mirror.accepted] == ["STDNT_ENRL"]
    assert intake.mirror.sources == {"peoplesoft"}
    assert intake.requests("peoplesoft", "accepted") == 1


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"<ZZ_SYNC><MsgData></ZZ_SYNC>", "malformed_xml"),
        (b'<!DOCTYPE X [<!ENTITY x SYSTEM "file:///etc/passwd">]><X>&x;</X>', "dtd"),
        (message(record("ZZ_PARKING", {"A": "1"})), "unknown_record"),
        (message(record("STDNT_ENRL", enrollment(STDNT_ENRL_STATUS="Q"))), "unknown_code"),
        (b"<e:Envelope xmlns:e='http://schemas.xmlsoap.org/soap/envelope/'/>", "soap"),
        (b"\x1f\x8b\x08", "compressed"),
        (b"\xff\x00\xfe", "malformed_xml"),
    ],
)
async def test_poison_is_kept_and_answered_as_done_and_does_not_delay_the_next_message(body: bytes, reason: str) -> None:
    intake = Intake()
    poison = await post(intake, body)
    begun = time.perf_counter()
    good = await post(intake, GOOD)
    assert time.perf_counter() - begun < 1
    assert poison.status_code == good.status_code == 200
    assert title(poison).startswith("accepted; 1 part")
    assert intake.quarantine.reasons == [reason]
    assert intake.quarantined(reason) == 1
    assert intake.requests("peoplesoft", "quarantined") == intake.requests("peoplesoft", "accepted") == 1
    assert len(intake.mirror.accepted) == 1


async def test_the_good_rows_of_a_bad_message_go_on() -> None:
    intake = Intake()
    bad, good = (record("STDNT_ENRL", enrollment(STDNT_ENRL_STATUS=status)) for status in "QE")
    assert (await post(intake, message(bad, good))).status_code == 200
    assert len(intake.mirror.accepted) == len(intake.quarantine.kept) == 1


async def test_the_same_poison_again_is_kept_once() -> None:
    intake = Intake()
    for _ in range(3):
        assert (await post(intake, b"<X>")).status_code == 200
    assert len(intake.quarantine.kept) == 1


async def chunks(size: int, pause_after: int | None = None) -> AsyncIterator[bytes]:
    """A body without a declared length, which may stop arriving."""
    for sent in range(0, size, 50_000):
        if pause_after is not None and sent >= pause_after:
            await asyncio.sleep(60)
        yield b"x" * 50_000


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_body_over_the_limit_is_noted_and_answered_as_done(streamed: bool) -> None:
    intake, size = Intake(), 52 * LIMIT // 5
    response = await post(intake, chunks(size) if streamed else b"x" * size)
    assert (response.status_code, intake.quarantine.reasons) == (200, ["too_large"])
    (((channel, _, _), (_, poison)),) = intake.quarantine.kept.items()
    assert (channel, poison.body) == ("ib:unknown", None)
    assert poison.bytes >= size
    assert title(response).startswith("too large")
    assert intake.requests("peoplesoft", "too_large") == intake.quarantined("too_large") == 1


async def test_a_body_that_stops_arriving_is_asked_for_again() -> None:
    intake = Intake()
    response = await post(intake, chunks(100_000, pause_after=50_000))
    assert (response.status_code, intake.requests("peoplesoft", "too_slow")) == (503, 1)


async def test_a_body_that_is_too_large_already_is_not_asked_for_again_because_it_is_slow() -> None:
    response = await post(Intake(), chunks(2 * LIMIT, pause_after=LIMIT + 50_000))
    assert response.status_code == 200


async def test_a_client_that_goes_away_is_no_defect() -> None:
    intake = Intake()

    async def receive() -> dict[str, str]:
        return {"type": "http.disconnect"}

    async def send(_message: object) -> None:
        pass

    headers = [(b"authorization", b"Basic known")]
    scope = {"type": "http", "method": "POST", "path": PATH, "headers": headers, "query_string": b"", "root_path": ""}
    await intake.app()(scope, receive, send)
    assert intake.requests("peoplesoft", "too_slow") == 1


@pytest.mark.parametrize("authorization", [None, "", "Basic wrong", "Bearer known"])
async def test_wrong_credentials_are_refused_before_the_body_is_read(authorization: str | None) -> None:
    intake, read = Intake(), []

    async def body() -> AsyncIterator[bytes]:
        read.append(True)
        yield GOOD

    async with intake.client() as client:
        client.headers.pop("authorization")
        headers = {} if authorization is None else {"authorization": authorization}
        response = await client.post(PATH, content=body(), headers=headers)
    assert (response.status_code, title(response)) == (401, "wrong or missing credentials")
    assert response.headers["www-authenticate"].startswith("Basic")
    assert (intake.mirror.accepted, read) == ([], [])
    assert intake.requests("peoplesoft", "rejected_auth") == 1


@pytest.mark.parametrize(
    "error", [Unavailable("kafka"), Unavailable("deadline"), RuntimeError("a defect"), ValueError("another")]
)
async def test_whatever_goes_wrong_the_message_is_asked_for_again(error: Exception) -> None:
    intake = Intake()
    intake.mirror.fails_with = error
    response = await post(intake, GOOD)
    assert (response.status_code, title(response)) == (503, "try again later")
    assert int(response.headers["retry-after"]) > 0
    assert intake.requests("peoplesoft", "unavailable") == 1


async def test_poison_that_cannot_be_kept_is_asked_for_again() -> None:
    intake = Intake()
    intake.quarantine.is_down = True
    assert (await post(intake, b"<X>")).status_code == 503
    assert intake.quarantined("malformed_xml") == 0
    intake.quarantine.is_down = False
    assert (await post(intake, b"<X>")).status_code == 200


@pytest.mark.parametrize(("body", "headers"), [(b"", {}), (b"\n", {}), (GOOD, {"operationtype": "ping"})])
async def test_pings_are_answered_without_touching_anything(body: bytes, headers: dict[str, str]) -> None:
    intake = Intake()
    intake.mirror.fails_with = Unavailable("kafka")
    response = await post(intake, body, **headers)
    assert (response.status_code, title(response)) == (200, "pong")
    assert intake.requests("peoplesoft", "ping") == 1


async def test_a_message_without_rows_is_done() -> None:
    intake = Intake()
    intake.mirror.fails_with = Unavailable("kafka")
    assert (await post(intake, message())).status_code == 200


async def test_a_large_message_does_not_hold_up_small_ones() -> None:
    intake = Intake()
    intake.settings = replace(intake.settings, max_body_bytes=5_000_000)
    large = message(*(record("STDNT_ENRL", enrollment(EMPLID=str(number))) for number in range(10_000)))
    finished: list[str] = []
    async with intake.client() as client:

        async def send(name: str, body: bytes) -> None:
            assert (await client.post(PATH, content=body, headers=HEADERS)).status_code == 200
            finished.append(name)

        await asyncio.gather(send("large", large), send("small", GOOD))
    assert finished == ["small", "large"]


async def test_answers_quote_nothing_of_the_message() -> None:
    response = await post(Intake(), message(record("STDNT_ENRL", enrollment(EMPLID="0090001", STDNT_ENRL_STATUS="Q"))))
    assert "0090001" not in response.text


async def test_other_paths_do_not_exist() -> None:
    async with Intake().client() as client:
        assert (await client.post("/intake/other", content=GOOD)).status_code == 404
