"""``GET /sources``: which channels delivered when, and which are silent though they should not be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from services.kit.openapi import operation
from services.publisher.channels import Channel
from services.publisher.intake import answers
from services.publisher.intake.operating import TRY_AGAIN, operated
from services.publisher.intake.ports import Callers


class ChannelList(Protocol):
    """Knows the channels."""

    async def listed(self) -> Sequence[Channel]:
        """All of them; raises `Unavailable`."""
        ...


def sources_router(channels: ChannelList, callers: Callers | None) -> APIRouter:
    """The route; without `callers` it refuses everybody."""
    router = APIRouter(tags=["sources"])

    @router.get("/sources", **operation("sources.list", "List channels", answers.ChannelList, try_again=TRY_AGAIN))
    async def sources(request: Request) -> Response:
        """When each channel delivered last, and which are silent though they should not be."""
        return await operated(request, callers, lambda _actor: _list(channels))

    return router


async def _list(channels: ChannelList) -> JSONResponse:
    return JSONResponse({"channels": [_shown(one) for one in await channels.listed()]})


def _shown(one: Channel) -> dict[str, object]:
    told: dict[str, object | None] = {
        "channel": one.name,
        "last_message_at": one.last_at.isoformat() if one.last_at else None,
        "deliveries": one.deliveries,
        "expected_every_seconds": one.cadence.every.total_seconds() if one.cadence else None,
        "silent_for_seconds": round(one.silent_for.total_seconds()) if one.silent_for is not None else None,
        "silent": one.is_silent if one.cadence else None,
    }
    return {name: value for name, value in told.items() if value is not None}
