"""``/openapi.json``: the publisher's own description."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from services.publisher.intake.operating import operated
from services.publisher.intake.ports import Callers


def description_router(callers: Callers | None, document: Callable[[], dict[str, Any]]) -> APIRouter:
    """The route, for known operators."""
    router = APIRouter()

    @router.get("/openapi.json", include_in_schema=False)
    async def described(request: Request) -> Response:
        async def told(_actor: str) -> JSONResponse:
            return JSONResponse(document())

        return await operated(request, callers, told)

    return router
