"""``/replays``: ask for a range of the log to be read again, and see what became of every offset."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Any, Self
from uuid import UUID

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas.topics import Topics
from services.consumer.api.desk import Answer, Desk, OperationsRoute, Refusal, body, invalid, json_answer, not_found
from services.consumer.ledger import replay_report, replays
from services.consumer.ledger.replay_report import Line
from services.consumer.ledger.replays import Order, Replay
from services.consumer.replay_log import Log, LogUnavailable
from services.kit.http import problem
from services.kit.postgres import Connection

_NEWEST = 50
_PAGE = 100
_LONGEST_PAGE = 1000
_LARGEST = 2**63 - 1


class ReplayRequest(BaseModel):
    """Offsets `from` to `to` of one partition, both included. `to` may lie past the end of the log: it is cut there."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    topic: str
    partition: int = Field(ge=0, lt=2**31)
    first: int = Field(alias="from", ge=0, le=_LARGEST)
    last: int = Field(alias="to", ge=0, le=_LARGEST)
    dry_run: bool = False
    """Give every verdict and change nothing."""
    verify: bool = False
    """Also read settled seats back from the LMS."""

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.first > self.last:
            raise ValueError("from must not be above to")
        return self


def replay_router(desk: Desk, log: Log, topics: Topics, max_records: int, wake: Callable[[], None]) -> APIRouter:
    """The routes. `wake` tells this process's runner that a replay was stored; it may be called from any thread."""
    router = APIRouter(route_class=OperationsRoute, tags=["replays"])
    caller = Depends(desk.caller)

    @router.post("/replays", status_code=HTTPStatus.ACCEPTED, openapi_extra=_request_body())
    async def create(request: Request, actor: str = caller) -> Response:
        try:
            order = await _order(request, log, topics, max_records)
        except Refusal as refusal:
            return await desk.refuse(actor, "replay.create", refusal)
        response = await desk.perform(actor, "replay.create", partial(_create, order=order, actor=actor))
        wake()
        return response

    @router.get("/replays")
    async def newest(actor: str = caller) -> Response:
        return await desk.perform(actor, "replay.list", _newest)

    @router.get("/replays/{replay}")
    async def report(request: Request, replay: str, actor: str = caller) -> Response:
        try:
            after = _number(request, "after", default=-1, least=-1, most=_LARGEST - 1)
            limit = _number(request, "limit", default=_PAGE, least=1, most=_LONGEST_PAGE)
        except Refusal as refusal:
            return await desk.refuse(actor, "replay.read", refusal)
        return await desk.perform(actor, "replay.read", partial(_report, name=replay, after=after, limit=limit))

    return router


async def _order(request: Request, log: Log, topics: Topics, max_records: int) -> Order:
    """What the caller asks for, checked against the log; raises `Refusal`."""
    asked = await body(request, ReplayRequest)
    if topics.kind(asked.topic) is None:
        raise _wrong("/topic", "not a topic that carries events", "unknown_topic")
    if asked.last - asked.first >= max_records:
        raise _wrong("/to", f"the range is longer than {max_records} offsets; ask for parts of it", "range_too_large")
    try:
        bounds = await run_in_threadpool(log.bounds, asked.topic, asked.partition)
    except LogUnavailable as error:
        raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "Kafka does not answer; nothing was done", "log_unavailable") from error
    if bounds is None:
        raise _wrong("/partition", "the topic has no such partition", "unknown_partition")
    if asked.first >= bounds.high:
        raise _wrong("/from", f"the partition ends before offset {bounds.high}", "after_the_end")
    last = min(asked.last, bounds.high - 1)
    return Order(asked.topic, bounds.topic_id, asked.partition, asked.first, last, asked.dry_run, asked.verify)


def _create(connection: Connection, order: Order, actor: str) -> Answer:
    asked = {
        "topic": order.topic,
        "partition": order.partition,
        "from": order.first,
        "to": order.last,
        "dry_run": order.dry_run,
        "verify": order.verify,
    }
    replay = replays.create(connection, order, actor)
    if replay is None:
        busy = problem(HTTPStatus.CONFLICT, "Another replay of this partition is running; wait for its end")
        return Answer(busy, asked | {"reason": "already_running"}, "refused")
    stored = replays.find(connection, replay)
    assert stored is not None  # noqa: S101  (inserted above)
    headers = {"Location": f"/replays/{replay}"}
    accepted = JSONResponse(_summary(stored), status_code=HTTPStatus.ACCEPTED, headers=headers)
    return Answer(accepted, asked | {"replay": str(replay)})


def _newest(connection: Connection) -> Answer:
    return json_answer({"replays": [_summary(replay) for replay in replays.newest(connection, _NEWEST)]}, {})


def _report(connection: Connection, name: str, after: int, limit: int) -> Answer:
    replay = replays.find(connection, UUID(name)) if _is_id(name) else None
    if replay is None:
        return not_found("replay", {})
    lines = replay_report.lines(connection, replay.replay, after, limit)
    content = _summary(replay) | {
        "verdicts": replay_report.counts(connection, replay.replay),
        "records": [_record(line) for line in lines],
        "next_after": lines[-1].offset if len(lines) == limit else None,
    }
    return json_answer(content, {"replay": str(replay.replay), "after": after, "limit": limit})


def _summary(replay: Replay) -> dict[str, Any]:
    return {
        "replay": str(replay.replay),
        "topic": replay.topic,
        "partition": replay.partition,
        "from": replay.first,
        "to": replay.last,
        "dry_run": replay.dry_run,
        "verify": replay.verify,
        "state": replay.state,
        "reason": replay.reason,
        "done": replay.next - replay.first,
        "total": replay.last - replay.first + 1,
        "actor": replay.actor,
        "created_at": replay.created_at.isoformat(),
        "finished_at": replay.finished_at.isoformat() if replay.finished_at else None,
    }


def _record(line: Line) -> dict[str, Any]:
    """One offset without the entity's key, which names a person."""
    superseded = {"version": line.superseded_by, "offset": line.superseded_at_offset} if line.superseded_by else None
    return {
        "offset": line.offset,
        "verdict": line.verdict,
        "reason": line.reason,
        "kind": line.kind,
        "version": line.version,
        "superseded_by": superseded,
    }


def _number(request: Request, name: str, default: int, least: int, most: int) -> int:
    """A whole number of the query, within its bounds; raises `Refusal`."""
    text = request.query_params.get(name, str(default))
    number = int(text) if text.removeprefix("-").isdecimal() and len(text) < 20 else None
    if number is None or not least <= number <= most:
        raise invalid([{"parameter": name, "detail": f"a whole number from {least} to {most}"}])
    return number


def _is_id(name: str) -> bool:
    try:
        UUID(name)
    except ValueError:
        return False
    return True


def _wrong(pointer: str, detail: str, reason: str) -> Refusal:
    return invalid([{"pointer": pointer, "detail": detail}], reason)


def _request_body() -> dict[str, Any]:
    """The body is read by hand, after the caller is known; the description is still generated."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": ReplayRequest.model_json_schema()}}}}
