"""``/intake``: where reading stands still until a person has looked, letting it go on, and what waits for an upgrade."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Self

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field, model_validator

from services.consumer.api.answers import intake as answers
from services.consumer.api.bodies import LARGEST, Body
from services.consumer.api.desk import Answer, Desk, OperationsRoute, Refusal, body, invalid, json_answer, not_found
from services.consumer.ledger import parked, stops
from services.consumer.ledger.parked import Waiting
from services.consumer.ledger.stops import Stop
from services.consumer.replay.log import Log, LogUnavailable
from services.kit.http import problem
from services.kit.openapi import operation
from services.kit.postgres import Connection

_MOST_PARKED = 1000


class ResumeRequest(Body):
    """Where the line shall go on: everywhere, in one topic or in one partition of it."""

    topic: Annotated[str, Field(min_length=1, max_length=249)] | None = Field(
        default=None, examples=["enrollstream.enrollment.v1"]
    )
    partition: int | None = Field(default=None, ge=0, lt=2**31, examples=[2])
    before: int | None = Field(default=None, ge=1, le=LARGEST, examples=[1300])
    """Records below this offset may go to the dead letters, however many; when absent, all that the partition holds now."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.partition is not None and self.topic is None:
            raise ValueError("a partition needs its topic")
        if self.before is not None and self.partition is None:
            raise ValueError("an offset needs its partition")
        return self

    def means(self, stop: Stop) -> bool:
        """Whether this stop is asked for."""
        return self.topic in (None, stop.place.topic) and self.partition in (None, stop.place.partition)


def intake_router(desk: Desk, log: Log) -> APIRouter:
    """The routes."""
    router = APIRouter(route_class=OperationsRoute, tags=["intake"])
    caller = Depends(desk.caller)

    @router.get("/intake/stops", **operation("intake.stops", "List where the line stopped", answers.IntakeStops))
    async def every(actor: str = caller) -> Response:
        """Every partition at which the line stopped."""
        return await desk.look(actor, "intake.stops", _every)

    @router.post(
        "/intake/resume",
        **operation(
            "intake.resume",
            "Let the line go on",
            answers.IntakeStops,
            body=ResumeRequest,
            missing="stop: the line flows there",
        ),
    )
    async def resume(request: Request, actor: str = caller) -> Response:
        """Let the line go on, over the records that cannot be used: they become dead letters."""
        try:
            asked = await body(request, ResumeRequest)
        except Refusal as refusal:
            return await desk.refuse(actor, "intake.resume", refusal)
        return await desk.perform(actor, "intake.resume", partial(_resume, asked=asked, log=log))

    @router.get("/intake/parked", **operation("intake.parked", "List parked records", answers.ParkedRecords))
    async def waiting(actor: str = caller) -> Response:
        """Records with a word that only a newer release knows."""
        return await desk.perform(actor, "intake.parked", _parked)

    return router


def _every(connection: Connection) -> Answer:
    found = stops.every(connection)
    return json_answer({"stops": [_stop(stop) for stop in found]}, {"count": len(found)})


def _resume(connection: Connection, asked: ResumeRequest, log: Log) -> Answer:
    detail = asked.model_dump(exclude_none=True)
    here = [stop for stop in stops.every(connection) if asked.means(stop)]
    if not here:
        return not_found("stop: the line flows there", detail)
    resumed = []
    for stop in here:
        try:
            before = asked.before or _end(log, stop)
        except LogUnavailable:
            away = problem(HTTPStatus.SERVICE_UNAVAILABLE, "Kafka does not answer; nothing was done")
            return Answer(away, detail | {"reason": "log_unavailable"}, "refused")
        if before <= stop.offset:
            error = {"pointer": "/before", "detail": f"must be above {stop.offset}, the record before which the line stopped"}
            return Answer(invalid([error]).response, detail | {"reason": "below_the_stop"}, "refused")
        resumed.append(stop._replace(divert_before=before))
    for stop in resumed:
        assert stop.divert_before is not None  # noqa: S101  (set above)
        stops.divert(connection, stop.place, stop.divert_before)
    return json_answer({"stops": [_stop(stop) for stop in resumed]}, detail | {"stops": len(resumed)})


def _end(log: Log, stop: Stop) -> int:
    """One past the newest record of the partition, or past the stop where the topic is gone; raises `LogUnavailable`."""
    bounds = log.bounds(stop.place.topic, stop.place.partition)
    return max(stop.offset + 1, bounds.high if bounds is not None else 0)


def _parked(connection: Connection) -> Answer:
    count, oldest_seconds = parked.backlog(connection)
    records = parked.listed(connection, _MOST_PARKED)
    content = {"records": count, "oldest_seconds": oldest_seconds, "oldest": [_waiting(one) for one in records]}
    return json_answer(content, {"records": count})


def _stop(stop: Stop) -> dict[str, Any]:
    return {
        "topic": stop.place.topic,
        "partition": stop.place.partition,
        "offset": stop.offset,
        "reason": stop.reason,
        "not_usable": stop.bad,
        "of_the_last": stop.seen,
        "since": stop.at,
        "divert_before": stop.divert_before,
    }


def _waiting(one: Waiting) -> dict[str, Any]:
    return {"topic": one.topic, "partition": one.partition, "offset": one.offset, "field": one.reason, "since": one.at}
