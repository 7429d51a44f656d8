"""``POST /intake/events``: canonical JSON, for sources that can say what happened in our own words.

200 when every event is durable, with a receipt; 400, 413 or 422 with what is wrong and where (nothing of the request was taken);
401; 503 with Retry-After when it could not be made durable: send the same request again, repeating is harmless.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, RootModel

from services.kit.http import problem
from services.kit.openapi import operation, refusal
from services.publisher.intake.answering import answer, try_again, unauthorized
from services.publisher.intake.answers import Taken
from services.publisher.intake.body import Body, declared_bytes, read_body
from services.publisher.intake.budget import Budget
from services.publisher.intake.ports import Callers, ChannelBook, IntakeSettings, Mirror
from services.publisher.metrics import Metrics
from services.publisher.translate.canonical import MAX_EVENTS, CanonicalContext, Item, Problems, translate

SOURCE = "events"
_NOTHING_TAKEN = "Nothing of the request was taken"
_TRY_AGAIN = "Not taken; send the same request again"
_STATUS = {
    "malformed": HTTPStatus.BAD_REQUEST,
    "too_many": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "invalid": HTTPStatus.UNPROCESSABLE_ENTITY,
}


class EventsBatch(BaseModel):
    """Several events."""

    events: list[Item] = Field(min_length=1, max_length=MAX_EVENTS)


class EventsRequest(RootModel[Item | list[Item] | EventsBatch]):
    """One event, an array of them, or a batch. The route reads it by itself, to tell of every item what is wrong with it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "kind": "enrollment",
                    "institution": "NORTH",
                    "term": "2267",
                    "section": "26191",
                    "person": "0090001",
                    "status": "dropped",
                    "role": "student",
                    "effective_date": "2026-12-01",
                    "occurred_at": "2026-12-01T09:02:11-06:00",
                    "sequence": 41,
                },
                {"events": [{"kind": "person", "person": "0090001", "display_name": "Ada Amberg"}]},
            ]
        }
    )


def events_router(
    accept: Mirror,
    callers: Callers,
    metrics: Metrics,
    settings: IntakeSettings,
    budget: Budget,
    channels: ChannelBook,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> APIRouter:
    """The route, with everything that it needs."""
    router = APIRouter(tags=["intake"])
    described = operation("intake.events", "Deliver events", Taken, caller="source", body=EventsRequest, try_again=_TRY_AGAIN)
    # A body that comes too slowly is told to come again: the source repeats by itself.
    del described["responses"][408]
    described["responses"][400] = refusal(HTTPStatus.BAD_REQUEST, _NOTHING_TAKEN)
    intake = _Intake(accept, callers, metrics, settings, budget, channels, clock)

    @router.post("/intake/events", **described)
    async def events(request: Request) -> Response:
        """Canonical JSON. A request is taken whole or not at all; sending it again is harmless."""
        return await intake.answer(request)

    return router


class _Intake:
    """Handles one request after the other; any number at a time."""

    def __init__(
        self,
        mirror: Mirror,
        callers: Callers,
        metrics: Metrics,
        settings: IntakeSettings,
        budget: Budget,
        channels: ChannelBook,
        clock: Callable[[], datetime],
    ) -> None:
        self._mirror = mirror
        self._callers = callers
        self._metrics = metrics
        self._settings = settings
        self._budget = budget
        self._channels = channels
        self._clock = clock

    async def answer(self, request: Request) -> JSONResponse:
        """Never raises."""
        return await answer(self._metrics, SOURCE, partial(self._handle, request), partial(try_again, _TRY_AGAIN))

    async def _handle(self, request: Request) -> tuple[str, JSONResponse]:
        caller = self._callers.identify(request.headers.get("authorization"))
        if caller is None:
            return "rejected_auth", unauthorized()
        limit = self._settings.max_body_bytes
        with self._budget.share(declared_bytes(request, limit)) as share:
            body = await read_body(request, limit, self._settings.body_timeout_seconds, share.hold)
            return await self._take(caller, body)

    async def _take(self, caller: str, body: Body) -> tuple[str, JSONResponse]:
        if body.data is None:
            limit = self._settings.max_body_bytes
            return "too_large", problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is larger than {limit} bytes")
        received_at = self._clock()
        context = CanonicalContext(self._settings.tenant, f"events:{caller}", received_at, self._settings.personal)
        found = translate(body.data, context)
        if isinstance(found, Problems):
            return _refused(found)
        self._metrics.last_message.labels(SOURCE).set(received_at.timestamp())
        self._channels.heard(f"events:{caller}", received_at)
        receipt = await self._mirror.accept(found.changes, SOURCE)
        content = {
            "receipt": str(uuid.uuid4()),
            "changed": receipt.changed,
            "unchanged": receipt.unchanged,
            "ambiguous": receipt.ambiguous,
            "events": receipt.events,
        }
        return "accepted", JSONResponse(content)


def _refused(problems: Problems) -> tuple[str, JSONResponse]:
    errors = [{"pointer": item.pointer, "detail": item.detail} for item in problems.items]
    outcome = "too_large" if problems.kind == "too_many" else "rejected_schema"
    return outcome, problem(_STATUS[problems.kind], _NOTHING_TAKEN, errors=errors)
