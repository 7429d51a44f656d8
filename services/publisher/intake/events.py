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

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from services.kit.http import problem
from services.publisher.intake.answering import RETRY_AFTER_SECONDS, answer
from services.publisher.intake.body import Body, declared_bytes, read_body
from services.publisher.intake.budget import Budget
from services.publisher.intake.ports import Callers, ChannelBook, IntakeSettings, Mirror
from services.publisher.metrics import Metrics
from services.publisher.translate.canonical import CanonicalContext, Problems, translate

SOURCE = "events"
_STATUS = {
    "malformed": HTTPStatus.BAD_REQUEST,
    "too_many": HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    "invalid": HTTPStatus.UNPROCESSABLE_ENTITY,
}


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
    router = APIRouter()
    intake = _Intake(accept, callers, metrics, settings, budget, channels, clock)

    @router.post("/intake/events")
    async def events(request: Request) -> JSONResponse:
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
        return await answer(self._metrics, SOURCE, partial(self._handle, request), _try_again)

    async def _handle(self, request: Request) -> tuple[str, JSONResponse]:
        caller = self._callers.identify(request.headers.get("authorization"))
        if caller is None:
            return "rejected_auth", _unauthorized()
        limit = self._settings.max_body_bytes
        with self._budget.share(declared_bytes(request, limit)) as share:
            body = await read_body(request, limit, self._settings.body_timeout_seconds, share.hold)
            return await self._take(caller, body)

    async def _take(self, caller: str, body: Body) -> tuple[str, JSONResponse]:
        if body.data is None:
            limit = self._settings.max_body_bytes
            return "too_large", problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is larger than {limit} bytes")
        received_at = self._clock()
        context = CanonicalContext(self._settings.tenant, f"events:{caller}", received_at, self._settings.person_logins)
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
    return outcome, problem(_STATUS[problems.kind], "Nothing of the request was taken", errors=errors)


def _unauthorized() -> JSONResponse:
    response = problem(HTTPStatus.UNAUTHORIZED, "Wrong or missing credentials")
    response.headers["WWW-Authenticate"] = 'Basic realm="enrollstream", Bearer'
    return response


def _try_again() -> JSONResponse:
    response = problem(HTTPStatus.SERVICE_UNAVAILABLE, "Not taken; send the same request again")
    response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response
