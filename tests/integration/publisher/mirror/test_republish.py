"""``POST /republish``: current state again, under new versions, no faster than allowed, for operators only."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from services.kit.credentials import Callers
from services.publisher.intake.republish import republish_router
from services.publisher.mirror.writer import MirrorWriter
from tests.integration.publisher.mirror.bench import Bench, LogReader, change, eventually, learner

OPERATOR = {"Authorization": "Bearer sesame"}


@pytest.fixture
def operators(tmp_path: Path) -> Callers:
    """One operator."""
    file = tmp_path / "operators"
    file.write_text("ops:sesame\n")
    return Callers(file)


async def post(writer: MirrorWriter, callers: Callers | None, body: Any, headers: dict[str, str] = OPERATOR) -> httpx.Response:
    """Ask for a republish."""
    app = FastAPI()
    app.include_router(republish_router(writer, callers))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://publisher") as client:
        return await client.post("/republish", json=body, headers=headers)


async def test_the_scope_is_emitted_again_with_new_versions_and_the_same_hash(
    bench: Bench, event_log: LogReader, operators: Callers
) -> None:
    async with bench.writer() as writer:
        await writer.accept([change("1"), change("2"), change("1", section="2002")], "peoplesoft")
        response = await post(writer, operators, {"scope": {"term": "2258", "section": "1001"}})
        assert (response.status_code, response.json()) == (200, {"count": 2, "done": True})
    for person in ("1", "2"):
        old, new = event_log.of(learner(person))
        assert old.content_hash == new.content_hash
        assert old.version < new.version
        assert old.source_rows == new.source_rows
    assert len(event_log.of(learner("1", "2002"))) == 1


async def test_a_large_scope_goes_on_in_the_background_at_the_allowed_rate(
    bench: Bench, event_log: LogReader, operators: Callers
) -> None:
    async with bench.writer(republish_per_second=200) as writer:
        await writer.accept([change(str(number)) for number in range(500)], "peoplesoft")
        begun = time.monotonic()
        response = await post(writer, operators, {"scope": {"all": True}})
        assert (response.status_code, response.json()) == (202, {"count": 500, "done": False})

        async def all_again() -> bool:
            return len(event_log.events()) == 1_000

        await eventually(all_again)
        assert time.monotonic() - begun > 1.5


async def test_only_operators_may_ask(bench: Bench, event_log: LogReader, operators: Callers) -> None:
    async with bench.writer() as writer:
        await writer.accept([change("1")], "peoplesoft")
        body = {"scope": {"all": True}}
        assert (await post(writer, operators, body, {})).status_code == 401
        assert (await post(writer, operators, body, {"Authorization": "Bearer guess"})).status_code == 401
        assert (await post(writer, None, body)).status_code == 401
    assert len(event_log.events()) == 1


async def test_a_scope_that_cannot_be_meant_is_refused_without_quoting_it(bench: Bench, operators: Callers) -> None:
    async with bench.writer() as writer:
        response = await post(writer, operators, {"scope": {"section": "0090001"}})
    assert response.status_code == 422
    assert "0090001" not in response.text
