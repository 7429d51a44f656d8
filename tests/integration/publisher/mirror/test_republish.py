"""``POST /republish``: current state again, under new versions, no faster than allowed, for operators only."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from services.kit.credentials import Callers
from services.kit.openapi import App
from services.publisher.intake.republish import republish_router
from services.publisher.mirror.writer import MirrorWriter
from tests.integration.publisher.mirror.bench import Bench, LogReader, change, eventually, learner
from tests.openapi import Promise

OPERATOR = {"Authorization": "Bearer sesame"}


@pytest.fixture
def operators(tmp_path: Path) -> Callers:
    """One operator."""
    file = tmp_path / "operators"
    file.write_text("ops:sesame\n")
    return Callers(file)


async def post(writer: MirrorWriter, callers: Callers | None, body: Any, headers: dict[str, str] = OPERATOR) -> httpx.Response:
    """Ask for a republish."""
    return await call(writer, callers, "POST", "/republish", headers, json=body)


async def call(
    writer: MirrorWriter, callers: Callers | None, method: str, path: str, headers: dict[str, str] = OPERATOR, **more: Any
) -> httpx.Response:
    """Call a route; the answer is held to its description."""
    app = App(access={})
    app.include_router(republish_router(writer, callers))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://publisher") as client:
        answer = await client.request(method, path, headers=headers, **more)
    Promise(app.openapi()).check(method, path, answer)
    return answer


def gist(response: httpx.Response) -> tuple[int, int, int, bool]:
    """Status, and how far it has come."""
    told = response.json()
    return response.status_code, told["count"], told["emitted"], told["done"]


async def test_the_scope_is_emitted_again_with_new_versions_and_the_same_hash(
    bench: Bench, event_log: LogReader, operators: Callers
) -> None:
    async with bench.writer() as writer:
        await writer.accept([change("1"), change("2"), change("1", section="2002")], "peoplesoft")
        response = await post(writer, operators, {"scope": {"term": "2258", "section": "1001"}})
        assert gist(response) == (200, 2, 2, True)
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
        assert (response.status_code, response.json()["count"], response.json()["done"]) == (202, 500, False)
        assert (await post(writer, operators, {"scope": {"person": "7"}})).json()["done"], "a small one does not wait behind it"

        async def all_again() -> bool:
            return len(event_log.events()) == 1_001

        await eventually(all_again)
        assert time.monotonic() - begun > 1.5
        await eventually(lambda: _is_done(writer, operators, response.headers["location"]))
        [_, listed] = (await call(writer, operators, "GET", "/republish")).json()
        assert (listed["scope"], listed["emitted"]) == ({"tenant": "main", "all": True}, 500)


async def test_a_republish_goes_on_where_it_was_when_its_process_ends(
    bench: Bench, event_log: LogReader, operators: Callers
) -> None:
    async with bench.writer(republish_per_second=100) as writer:
        await writer.accept([change(str(number)) for number in range(250)], "peoplesoft")
        before = len(event_log.events())
        place = (await post(writer, operators, {"scope": {"all": True}})).headers["location"]
    with psycopg.connect(bench.database_url) as connection:
        row = connection.execute("select done, ended_at from mirror.republish").fetchone()
    assert row is not None
    assert row[0] < 250
    async with bench.writer() as writer:
        await eventually(lambda: _is_done(writer, operators, place))
    again = {(event.entity_key, event.version) for event in event_log.events()}
    assert {key for key, _ in again} == {learner(str(number)) for number in range(250)}
    assert before + 250 <= len(again) <= before + 350, "at most the page that was under way is emitted twice"


async def test_a_republish_that_is_killed_is_taken_over(bench: Bench, event_log: LogReader, operators: Callers) -> None:
    async with bench.writer(republish_per_second=10) as writer:
        await writer.accept([change(str(number)) for number in range(150)], "peoplesoft")
        await post(writer, operators, {"scope": {"all": True}})
        with psycopg.connect(bench.database_url) as connection:  # as a process that is silent leaves it
            connection.execute("update mirror.republish set worker = gen_random_uuid(), worker_until = clock_timestamp()")
        async with bench.writer() as other:
            [one] = await other.republishes()
            await eventually(lambda: _is_done(other, operators, f"/republish/{one.id}"))
    assert len({(event.entity_key, event.version) for event in event_log.events()}) >= 2 * 150


async def test_one_that_nobody_asked_for_is_not_found(bench: Bench, operators: Callers) -> None:
    async with bench.writer() as writer:
        for unknown in ("0b8e7a56-1f5c-4f0e-9d53-0d1f1a2b3c4d", "not an id"):
            assert (await call(writer, operators, "GET", f"/republish/{unknown}")).status_code == 404
        assert (await call(writer, operators, "GET", "/republish", {})).status_code == 401


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


async def _is_done(writer: MirrorWriter, operators: Callers, place: str) -> bool:
    done: bool = (await call(writer, operators, "GET", place)).json()["done"]
    return done
