"""``/openapi.json``: this API's own description."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Depends, Response
from fastapi.responses import JSONResponse

from services.consumer.api.desk import Desk, OperationsRoute


def description_router(desk: Desk, document: Callable[[], dict[str, Any]]) -> APIRouter:
    """The route, for known callers. It tells nothing of anybody, so that it leaves no row in the audit."""
    router = APIRouter(route_class=OperationsRoute)

    @router.get("/openapi.json", include_in_schema=False, dependencies=[Depends(desk.caller)])
    def described() -> Response:
        return JSONResponse(document())

    return router
