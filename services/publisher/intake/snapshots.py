"""``POST /intake/snapshots/{kind}``: a full extract in CSV, whole in one request, for one term of one institution.

The file is written to disk before anything of it is believed. 202 when it is stored and will be applied, 200 when that is done
already; 409 when it waits for a person; 422 when it cannot be used, with the cause; 503: send the same file again, repeating is
harmless. What can be told from the head of the request is answered before the body is read.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Annotated, BinaryIO, Protocol

from fastapi import APIRouter, Header, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from services.kit.http import problem
from services.kit.openapi import operation
from services.publisher.intake.answering import answer, try_again, unauthorized
from services.publisher.intake.answers import SnapshotState
from services.publisher.intake.budget import Budget
from services.publisher.intake.operating import described
from services.publisher.intake.ports import Callers, ChannelBook
from services.publisher.intake.snapshot_desk import shown
from services.publisher.intake.spool import Spool, Spooled
from services.publisher.metrics import Metrics
from services.publisher.mirror.order import MARGIN
from services.publisher.snapshots.table import Snapshot
from services.publisher.translate.extract import EPOCH, KINDS, ExtractRefused, Manifest

SOURCE = "snapshot"
_IN_MEMORY_BYTES = 64 * 1024
_DIGEST = re.compile(r"sha-256=:([A-Za-z0-9+/=]+):", re.IGNORECASE)
_HELD = "The extract waits for a person"
_TRY_AGAIN = "Not taken; send the same file again"
_AGAIN_AFTER_SECONDS = 30
"""Applying the extract before takes minutes: whoever comes back at once has soon tried as often as they may."""
_EXAMPLE = (
    "EMPLID,ACAD_CAREER,INSTITUTION,STRM,CLASS_NBR,STDNT_ENRL_STATUS,ENRL_STATUS_REASON,ENRL_ADD_DT,ENRL_DROP_DT\n"
    "0090001,UGRD,NORTH,2267,26191,E,ENRL,2026-11-01,\nTRAILER,1\n"
)
_CSV = {"text/csv": {"schema": {"type": "string", "description": "The whole file, with its trailer.", "examples": [_EXAMPLE]}}}
_ContentDigest = Annotated[
    str | None,
    Header(
        description="Of the file (RFC 9530); another file than this one is refused.",
        examples=["sha-256=:RBNvo1WzZ4oRRq0W9+hknpT7T8If536DEMBg9hyq/4o=:"],
    ),
]
_Kind = Annotated[str, Path(description="What its rows are.", json_schema_extra={"enum": list(KINDS)})]
Name = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]


class SnapshotStore(Protocol):
    """Takes extracts in. Every call raises `Unavailable`."""

    async def expect(self, manifest: Manifest) -> None:
        """Raises ``Unavailable("busy")`` when it could not be taken now, whatever its file holds."""
        ...

    async def take(self, manifest: Manifest, file: BinaryIO, digest: str, size: int) -> Snapshot:
        """Durable when it returns."""
        ...

    async def refuse(self, manifest: Manifest, digest: str, size: int, refusal: ExtractRefused) -> Snapshot:
        """Note that one cannot be used."""
        ...


class Claim(BaseModel):
    """What the sender says about the file, in the query of the URL."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    institution: Annotated[Name, Field(examples=["NORTH"])]
    """Whose rows these are."""
    term: Annotated[Name, Field(examples=["2267"])]
    """All rows of it, and no other."""
    started_at: AwareDatetime = Field(examples=["2027-01-11T15:04:05Z"])
    """When the query began that the file was made of."""
    ended_at: AwareDatetime | None = Field(default=None, examples=["2027-01-11T15:09:41Z"])
    """When it ended; when its last byte arrived, if absent."""


def snapshots_router(
    store: SnapshotStore,
    callers: Callers,
    metrics: Metrics,
    tenant: str,
    spool: Spool,
    budget: Budget,
    channels: ChannelBook,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> APIRouter:
    """The route, with everything that it needs."""
    router = APIRouter(tags=["intake"])
    intake = _Intake(store, callers, metrics, tenant, spool, budget, channels, clock)
    taken = operation(
        "intake.snapshots",
        "Deliver a full extract",
        SnapshotState,
        caller="source",
        body=_CSV,
        query=Claim,
        missing="kind of extract",
        conflicts={"shrunk": _HELD},
        located=True,
        try_again=_TRY_AGAIN,
    )
    del taken["responses"][408]  # a body that comes too slowly is told to come again
    taken["responses"][202] = taken["responses"][200] | {"description": "It is stored, and will be applied."}

    again = partial(try_again, _TRY_AGAIN, after_seconds=_AGAIN_AFTER_SECONDS)

    @router.post("/intake/snapshots/{kind}", **taken)
    async def snapshots(request: Request, kind: _Kind, content_digest: _ContentDigest = None) -> Response:
        """One term of one institution, in CSV. Sending it again is harmless."""
        return await answer(metrics, SOURCE, partial(intake.handle, request, kind, content_digest), again)

    return router


class _Intake:
    """Handles one extract after the other."""

    def __init__(
        self,
        store: SnapshotStore,
        callers: Callers,
        metrics: Metrics,
        tenant: str,
        spool: Spool,
        budget: Budget,
        channels: ChannelBook,
        clock: Callable[[], datetime],
    ) -> None:
        self._store = store
        self._callers = callers
        self._metrics = metrics
        self._tenant = tenant
        self._spool = spool
        self._budget = budget
        self._channels = channels
        self._clock = clock

    async def handle(self, request: Request, kind: str, content_digest: str | None) -> tuple[str, JSONResponse]:
        """Outcome and answer. Raises `Unavailable` and `BodyTooSlow`."""
        caller = self._callers.identify(request.headers.get("authorization"))
        if caller is None:
            return "rejected_auth", unauthorized()
        if kind not in KINDS:
            return "rejected_schema", problem(HTTPStatus.NOT_FOUND, f"There are extracts of {', '.join(KINDS)}")
        try:
            claim = Claim.model_validate(dict(request.query_params))
        except ValidationError as error:
            errors = [{"parameter": each["pointer"].lstrip("/"), "detail": each["detail"]} for each in described(error)]
            return "rejected_schema", problem(HTTPStatus.UNPROCESSABLE_ENTITY, "Nothing was taken", errors=errors)
        if wrong := _impossible(claim, self._clock()):
            return "rejected_schema", problem(HTTPStatus.UNPROCESSABLE_ENTITY, "Nothing was taken", errors=[wrong])
        with self._budget.share(_IN_MEMORY_BYTES):
            await self._store.expect(self._manifest(caller, kind, claim))
            async with self._spool.body(request) as arrived:
                return await self._take(self._manifest(caller, kind, claim), arrived, content_digest)

    def _manifest(self, caller: str, kind: str, claim: Claim) -> Manifest:
        """Of an extract that arrives now. Unless it says otherwise its query ran until now: it may be sent while it is made."""
        now = self._clock()
        return Manifest(
            self._tenant, caller, kind, claim.institution, claim.term, claim.started_at, claim.ended_at or now, received_at=now
        )

    async def _take(self, manifest: Manifest, arrived: Spooled | None, content_digest: str | None) -> tuple[str, JSONResponse]:
        if arrived is None:
            title = f"The body is larger than {self._spool.max_bytes} bytes"
            return "too_large", problem(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, title)
        self._metrics.last_message.labels(SOURCE).set(manifest.received_at.timestamp())
        self._channels.heard(manifest.channel, manifest.received_at)
        told = (arrived.digest.hex(), arrived.size)
        if _is_other(content_digest, arrived.digest):
            other = ExtractRefused("digest_mismatch", "the file is not the one of which Content-Digest tells")
            return _answered(await self._store.refuse(manifest, *told, other))
        return _answered(await self._store.take(manifest, arrived.file, *told))


def _impossible(claim: Claim, received_at: datetime) -> dict[str, str] | None:
    if claim.started_at < EPOCH:
        return {"parameter": "started_at", "detail": "lies before 1970; give the moment at which the query began"}
    if claim.started_at > received_at + MARGIN:
        return {"parameter": "started_at", "detail": "lies in the future; what is absent would be taken for gone"}
    if claim.ended_at is not None and not claim.started_at <= claim.ended_at <= received_at + MARGIN:
        return {"parameter": "ended_at", "detail": "lies before started_at, or in the future"}
    return None


def _is_other(content_digest: str | None, digest: bytes) -> bool:
    """RFC 9530; without the header, or one of another algorithm, nothing is known."""
    found = _DIGEST.search(content_digest or "")
    return found is not None and found[1] != base64.b64encode(digest).decode()


def _answered(snapshot: Snapshot) -> tuple[str, JSONResponse]:
    content = shown(snapshot)
    if snapshot.state == "refused":
        return "rejected_schema", problem(
            HTTPStatus.UNPROCESSABLE_ENTITY, "Nothing of the extract was used", reason=snapshot.reason, detail=snapshot.detail,
            snapshot=content,
        )  # fmt: skip
    if snapshot.state == "held":
        return "held", problem(
            HTTPStatus.CONFLICT,
            _HELD,
            reason=snapshot.reason,
            detail=snapshot.detail,
            snapshot=content,
        )
    status = HTTPStatus.OK if snapshot.state == "applied" else HTTPStatus.ACCEPTED
    return "accepted", JSONResponse(content, status.value, {"Location": f"/snapshots/{snapshot.id}"})
