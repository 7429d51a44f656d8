"""``POST /republish``: the mirror emits current state again, for a ledger that missed something.

200 when all of it is published, 202 when the rest goes on in the background (a publisher that ends forgets it: ask again).
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Protocol

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, ValidationError

from services.kit.http import problem
from services.publisher.changes import Unavailable
from services.publisher.intake.body import BodyTooSlow, read_body
from services.publisher.intake.ports import Callers
from services.publisher.mirror.republish import Scope

log = structlog.get_logger()
_MAX_BODY_BYTES = 16 * 1024
_BODY_SECONDS = 5
_RETRY_AFTER_SECONDS = "5"


class Republisher(Protocol):
    """Emits current state again."""

    async def republish(self, scope: Scope) -> tuple[int, bool]:
        """How many events, and whether all of them are out; raises `Unavailable`."""
        ...


class _Command(BaseModel):
    model_config = ConfigDict(extra="forbid")

    scope: Scope


def republish_router(republisher: Republisher, callers: Callers | None) -> APIRouter:
    """The route; without `callers` it refuses everybody."""
    router = APIRouter()

    @router.post("/republish", response_class=JSONResponse)
    async def republish(request: Request) -> Response:
        actor = callers.identify(request.headers.get("authorization")) if callers else None
        if actor is None:
            response = problem(HTTPStatus.UNAUTHORIZED, "Wrong or missing credentials")
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        return await _republish(request, republisher)

    return router


async def _republish(request: Request, republisher: Republisher) -> JSONResponse:
    try:
        body = await read_body(request, _MAX_BODY_BYTES, _BODY_SECONDS)
        if body.data is None:
            return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is larger than {_MAX_BODY_BYTES} bytes")
        command = _Command.model_validate_json(body.data)
        count, done = await republisher.republish(command.scope)
    except BodyTooSlow:
        return problem(HTTPStatus.REQUEST_TIMEOUT, "The body did not arrive in time")
    except ValidationError as error:
        # Field names and rules only: the values may be ids of people.
        problems = error.errors(include_input=False, include_url=False, include_context=False)
        errors = [{"pointer": "/" + "/".join(map(str, item["loc"])), "detail": item["msg"]} for item in problems]
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "Nothing was republished", errors=errors)
    except Unavailable as error:
        response = problem(HTTPStatus.SERVICE_UNAVAILABLE, "Not republished; ask again", reason=error.reason)
        response.headers["Retry-After"] = _RETRY_AFTER_SECONDS
        return response
    log.info("republish_asked", count=count, outcome="done" if done else "going_on")
    status = HTTPStatus.OK if done else HTTPStatus.ACCEPTED
    return JSONResponse({"count": count, "done": done}, status_code=status.value)
