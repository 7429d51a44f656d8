"""``POST /digests``: have a round of digests emitted now, for whoever does not want to wait for the next one."""

from __future__ import annotations

from http import HTTPStatus
from typing import Protocol
from uuid import UUID

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from services.kit.openapi import operation
from services.publisher.intake.answers import DigestsAsked
from services.publisher.intake.operating import TRY_AGAIN, operated
from services.publisher.intake.ports import Callers


class DigestSource(Protocol):
    """Emits rounds of digests."""

    async def ask_for_digests(self, reason: str, request: UUID | None = None) -> UUID:
        """Durable when it returns; raises `Unavailable`."""


def digests_router(source: DigestSource, callers: Callers | None) -> APIRouter:
    """The route; without `callers` it refuses everybody."""
    router = APIRouter(tags=["digests"])
    asked = operation(
        "digests.ask", "Compare mirror and ledger now", DigestsAsked, status=HTTPStatus.ACCEPTED, try_again=TRY_AGAIN
    )

    @router.post("/digests", **asked)
    async def digests(request: Request) -> Response:
        """A round of digests begins within a second; the consumers compare it as soon as their intake has read that far."""
        return await operated(request, callers, lambda _actor: _ask(source))

    return router


async def _ask(source: DigestSource) -> JSONResponse:
    wanted = await source.ask_for_digests("operator")
    return JSONResponse({"request": str(wanted)}, status_code=HTTPStatus.ACCEPTED.value)
