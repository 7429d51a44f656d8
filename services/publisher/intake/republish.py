"""``POST /republish``: the mirror emits current state again, for a ledger that missed something.

200 when all of it is published, 202 when the rest goes on in the background, in whichever publisher is alive;
``GET /republish/{id}`` tells how far it has come.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Annotated, Protocol
from uuid import UUID

import structlog
from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict

from services.kit.http import problem
from services.kit.openapi import operation
from services.publisher.intake.answers import RepublishList, RepublishState
from services.publisher.intake.body import read_body
from services.publisher.intake.operating import TRY_AGAIN, operated
from services.publisher.intake.ports import Callers
from services.publisher.mirror.republish import Republish, Scope

log = structlog.get_logger()
_MAX_BODY_BYTES = 16 * 1024
_BODY_SECONDS = 5
_RepublishId = Annotated[str, Path(description="Id of the republish.", examples=["8d7f0f0e-53b5-4a5a-8a0e-1f0c9f3b2a77"])]


class Republisher(Protocol):
    """Emits current state again. Every call raises `Unavailable`."""

    async def republish(self, scope: Scope) -> Republish:
        """Durable when it returns, and done when it is small."""
        ...

    async def find_republish(self, republish_id: UUID) -> Republish | None:
        """How far one has come."""
        ...

    async def republishes(self) -> Sequence[Republish]:
        """The latest ones."""
        ...


class RepublishRequest(BaseModel):
    """What to emit again."""

    model_config = ConfigDict(extra="forbid")

    scope: Scope


def republish_router(republisher: Republisher, callers: Callers | None) -> APIRouter:
    """The routes; without `callers` they refuse everybody."""
    router = APIRouter(tags=["republish"])
    asked = operation(
        "republish.ask",
        "Emit current state again",
        RepublishState,
        body=RepublishRequest,
        located=True,
        try_again=TRY_AGAIN,
    )
    asked["responses"][202] = asked["responses"][200] | {"description": "The rest goes on in the background."}

    @router.post("/republish", **asked)
    async def republish(request: Request) -> Response:
        """Every entity in the scope gets a new version with the content it has. Done when it is small; otherwise it goes on."""
        return await operated(request, callers, lambda _actor: _ask(request, republisher))

    @router.get("/republish", **operation("republish.list", "List republishes", RepublishList, try_again=TRY_AGAIN))
    async def republishes(request: Request) -> Response:
        """The newest fifty."""
        return await operated(request, callers, lambda _actor: _list(republisher))

    @router.get(
        "/republish/{republish_id}",
        **operation("republish.read", "Read a republish", RepublishState, missing="republish", try_again=TRY_AGAIN),
    )
    async def state(request: Request, republish_id: _RepublishId) -> Response:
        """How far it has come."""
        return await operated(request, callers, lambda _actor: _show(republisher, republish_id))

    return router


async def _ask(request: Request, republisher: Republisher) -> JSONResponse:
    body = await read_body(request, _MAX_BODY_BYTES, _BODY_SECONDS)
    if body.data is None:
        return problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is larger than {_MAX_BODY_BYTES} bytes")
    asked = await republisher.republish(RepublishRequest.model_validate_json(body.data).scope)
    log.info("republish_asked", count=asked.count, outcome="done" if asked.done else "going_on")
    status = HTTPStatus.OK if asked.done else HTTPStatus.ACCEPTED
    return JSONResponse(_shown(asked), status.value, {"Location": f"/republish/{asked.id}"})


async def _show(republisher: Republisher, republish_id: str) -> JSONResponse:
    with suppress(ValueError):
        found = await republisher.find_republish(UUID(republish_id))
        if found is not None:
            return JSONResponse(_shown(found))
    return problem(HTTPStatus.NOT_FOUND, "No such republish")


async def _list(republisher: Republisher) -> JSONResponse:
    return JSONResponse([_shown(each) for each in await republisher.republishes()])


def _shown(one: Republish) -> dict[str, object]:
    return {
        "id": str(one.id),
        "scope": one.scope.model_dump(exclude_none=True, exclude_defaults=True),
        "count": one.count,
        "emitted": one.emitted,
        "done": one.done,
        "asked_at": one.asked_at.isoformat(),
        "ended_at": one.ended_at.isoformat() if one.ended_at else None,
    }
