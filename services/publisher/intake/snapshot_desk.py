"""``GET /snapshots``, ``GET /snapshots/{id}``: what became of extracts. ``POST /snapshots/{id}/approve``: an operator's word."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Protocol
from uuid import UUID

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from services.kit.http import problem
from services.publisher.intake.body import read_body
from services.publisher.intake.operating import operated
from services.publisher.intake.ports import Callers
from services.publisher.snapshots.service import NotHeld
from services.publisher.snapshots.table import Snapshot

_MAX_BODY_BYTES = 16 * 1024
_BODY_SECONDS = 5
_WHY_NOT = {
    "other_digest": "The extract that is held is another one",
    "busy": "Another extract of its scope is being applied",
}


class SnapshotDesk(Protocol):
    """Knows the extracts. Every call raises `Unavailable`."""

    async def newest(self) -> Sequence[Snapshot]:
        """The latest ones, with those that were refused."""
        ...

    async def find(self, snapshot_id: UUID) -> Snapshot | None:
        """One."""
        ...

    async def approve(self, snapshot_id: UUID, digest: str, actor: str) -> Snapshot:
        """Apply one that is held. Raises `NotHeld`, or `LookupError` when there is none."""
        ...


class _Approval(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    """SHA-256 of the file that was looked at."""


def snapshot_desk_router(desk: SnapshotDesk, callers: Callers | None) -> APIRouter:
    """The routes; without `callers` they refuse everybody."""
    router = APIRouter()

    @router.get("/snapshots")
    async def listed(request: Request) -> JSONResponse:
        return await operated(request, callers, lambda _actor: _list(desk))

    @router.get("/snapshots/{snapshot_id}")
    async def state(request: Request, snapshot_id: str) -> JSONResponse:
        return await operated(request, callers, lambda _actor: _show(desk, snapshot_id))

    @router.post("/snapshots/{snapshot_id}/approve")
    async def approve(request: Request, snapshot_id: str) -> JSONResponse:
        return await operated(request, callers, lambda actor: _approve(request, desk, snapshot_id, actor))

    return router


async def _list(desk: SnapshotDesk) -> JSONResponse:
    return JSONResponse({"snapshots": [shown(one) for one in await desk.newest()]})


async def _show(desk: SnapshotDesk, snapshot_id: str) -> JSONResponse:
    with suppress(ValueError):
        found = await desk.find(UUID(snapshot_id))
        if found is not None:
            return JSONResponse(shown(found))
    return problem(HTTPStatus.NOT_FOUND, "No such snapshot")


async def _approve(request: Request, desk: SnapshotDesk, snapshot_id: str, actor: str) -> JSONResponse:
    body = await read_body(request, _MAX_BODY_BYTES, _BODY_SECONDS)
    digest = _Approval.model_validate_json(body.data or b"").digest
    try:
        return JSONResponse(shown(await desk.approve(UUID(snapshot_id), digest, actor)), HTTPStatus.ACCEPTED.value)
    except NotHeld as refusal:
        return problem(HTTPStatus.CONFLICT, _WHY_NOT.get(refusal.reason, "It is not held"), reason=refusal.reason)
    except (LookupError, ValueError):
        return problem(HTTPStatus.NOT_FOUND, "No such snapshot")


def shown(one: Snapshot) -> dict[str, object]:
    """Times, counts and causes; no row of it."""
    told = {
        "id": str(one.id),
        "kind": one.kind,
        "institution": one.institution,
        "term": one.term,
        "channel": one.channel,
        "started_at": one.started_at.isoformat(),
        "received_at": one.received_at.isoformat(),
        "digest": one.digest,
        "bytes": one.bytes,
        "state": one.state,
        "reason": one.reason,
        "detail": one.detail,
        "rows": one.rows,
        "unusable": one.unusable,
        "absent": one.absent,
        "done_percent": 100 * one.done // one.total if one.total else None,
        "changed": one.changed,
        "approved_by": one.approved_by,
        "closed_at": one.closed_at.isoformat() if one.closed_at else None,
    }
    return {name: value for name, value in told.items() if value is not None}
