"""``POST /digests``: have a round of digests emitted now, for whoever does not want to wait for the next one."""

from __future__ import annotations

from http import HTTPStatus
from typing import Protocol
from uuid import UUID

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from services.kit.http import problem
from services.publisher.changes import Unavailable
from services.publisher.intake.ports import Callers

_RETRY_AFTER_SECONDS = "5"


class DigestSource(Protocol):
    """Emits rounds of digests."""

    async def ask_for_digests(self, reason: str, request: UUID | None = None) -> UUID:
        """Durable when it returns; raises `Unavailable`."""


def digests_router(source: DigestSource, callers: Callers | None) -> APIRouter:
    """The route; without `callers` it refuses everybody."""
    router = APIRouter()

    @router.post("/digests", response_class=JSONResponse)
    async def digests(request: Request) -> Response:
        actor = callers.identify(request.headers.get("authorization")) if callers else None
        if actor is None:
            response = problem(HTTPStatus.UNAUTHORIZED, "Wrong or missing credentials")
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        try:
            wanted = await source.ask_for_digests("operator")
        except Unavailable as error:
            response = problem(HTTPStatus.SERVICE_UNAVAILABLE, "No digests; ask again", reason=error.reason)
            response.headers["Retry-After"] = _RETRY_AFTER_SECONDS
            return response
        return JSONResponse({"request": str(wanted)}, status_code=HTTPStatus.ACCEPTED.value)

    return router
