"""``GET /snapshots``, ``GET /snapshots/{id}``: what became of extracts. ``POST /snapshots/{id}/approve``: an operator's word."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import Annotated, Protocol
from uuid import UUID

from fastapi import APIRouter, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field

from services.kit.http import problem
from services.kit.openapi import operation
from services.publisher.intake.answers import SnapshotList, SnapshotState
from services.publisher.intake.body import read_body
from services.publisher.intake.operating import TRY_AGAIN, operated
from services.publisher.intake.ports import Callers
from services.publisher.snapshots.service import NotHeld
from services.publisher.snapshots.table import Snapshot

_MAX_BODY_BYTES = 16 * 1024
_BODY_SECONDS = 5
_NOT_HELD = "It is not held"
_WHY_NOT = {
    "other_digest": "The extract that is held is another one",
    "busy": "Another extract of its scope is being applied",
    **dict.fromkeys(("receiving", "refused", "applying", "applied", "superseded"), _NOT_HELD),
}
_SnapshotId = Annotated[str, Path(description="Id of the extract.", examples=["8d7f0f0e-53b5-4a5a-8a0e-1f0c9f3b2a77"])]


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


class Approval(BaseModel):
    """An operator's word on an extract that is held."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

    digest: str = Field(pattern=r"^[0-9a-f]{64}$", examples=["9b0e" + "5d1c" * 15])
    """SHA-256 of the file that was looked at."""


def snapshot_desk_router(desk: SnapshotDesk, callers: Callers | None) -> APIRouter:
    """The routes; without `callers` they refuse everybody."""
    router = APIRouter(tags=["snapshots"])

    @router.get("/snapshots", **operation("snapshots.list", "List full extracts", SnapshotList, try_again=TRY_AGAIN))
    async def listed(request: Request) -> Response:
        """Fifty: those that are held or being applied, then the newest, with those that were refused."""
        return await operated(request, callers, lambda _actor: _list(desk))

    @router.get(
        "/snapshots/{snapshot_id}",
        **operation("snapshots.read", "Read a full extract", SnapshotState, missing="snapshot", try_again=TRY_AGAIN),
    )
    async def state(request: Request, snapshot_id: _SnapshotId) -> Response:
        """What became of it, and how far it is."""
        return await operated(request, callers, lambda _actor: _show(desk, snapshot_id))

    @router.post(
        "/snapshots/{snapshot_id}/approve",
        **operation(
            "snapshots.approve",
            "Approve a full extract",
            SnapshotState,
            status=HTTPStatus.ACCEPTED,
            body=Approval,
            missing="snapshot",
            conflicts=_WHY_NOT,
            try_again=TRY_AGAIN,
        ),
    )
    async def approve(request: Request, snapshot_id: _SnapshotId) -> Response:
        """Apply one that is held, if it has the content that was looked at."""
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
    digest = Approval.model_validate_json(body.data or b"").digest
    try:
        return JSONResponse(shown(await desk.approve(UUID(snapshot_id), digest, actor)), HTTPStatus.ACCEPTED.value)
    except NotHeld as refusal:
        return problem(HTTPStatus.CONFLICT, _WHY_NOT[refusal.reason], reason=refusal.reason)
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
