"""What both services' HTTP surfaces have in common: health, metrics, problem details, bounded bodies, running uvicorn."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import uvicorn
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from pydantic import ConfigDict, Field

from services.kit.openapi import Described

Check = Callable[[], dict[str, bool]]
"""Named conditions; all must hold."""


class BodyTooLarge(ValueError):
    """The request body is over the limit; the rest of it was not read."""


class BodyTooSlow(ValueError):
    """The body did not arrive in time."""


async def read_body(request: Request, limit_bytes: int, timeout_seconds: float) -> bytes:
    """The whole body, within bounds; raises `BodyTooLarge` (a declared length unread) or `BodyTooSlow`."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit_bytes:
        raise BodyTooLarge(f"more than {limit_bytes} bytes")
    chunks, size = [], 0
    try:
        async with asyncio.timeout(timeout_seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limit_bytes:
                    raise BodyTooLarge(f"more than {limit_bytes} bytes")
                chunks.append(chunk)
    except TimeoutError as error:
        raise BodyTooSlow(f"not complete after {timeout_seconds} s") from error
    return b"".join(chunks)


def problem(status: HTTPStatus, title: str, **members: object) -> JSONResponse:
    """An RFC 9457 problem; `members` must not quote the caller's data."""
    content = {"type": "about:blank", "title": title, "status": status.value, **members}
    return JSONResponse(content, status_code=status.value, media_type="application/problem+json")


class Conditions(Described):
    """Named conditions."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": {"type": "boolean"}, "examples": [{"migrations": True}]})

    reasons: dict[str, str] | None = Field(default=None, examples=[{"intake": "stopped at enrollstream.enrollment.v1/2"}])
    """In words, what keeps one of them from being true."""


_CHECKED: dict[int | str, dict[str, Any]] = {
    200: {"model": Conditions, "description": "All of them are true."},
    503: {"model": Conditions, "description": "One of them is not true."},
}
_METRICS = {"text/plain": {"schema": {"type": "string", "examples": ["# HELP sis_seats All seats of a target.\n"]}}}


def operations_router(
    alive: Check, ready: Check, registry: CollectorRegistry, reasons: Callable[[], dict[str, str]] = dict
) -> APIRouter:
    """``/healthz`` (is this process working), ``/readyz`` (may it get traffic) and ``/metrics``.

    `reasons` says in words what keeps the process from being ready, or from doing all it should; never with ids of people.
    """
    router = APIRouter(tags=["process"])

    @router.get("/healthz", operation_id="process.health", summary="Is it working?", responses=_CHECKED)
    def healthz() -> JSONResponse:
        """Otherwise only a new process helps. Nothing outside is asked."""
        return _checked(alive())

    @router.get("/readyz", operation_id="process.readiness", summary="May it get traffic?", responses=_CHECKED)
    def readyz() -> JSONResponse:
        """With the reasons, in words, of what is not as it should be."""
        return _checked(ready(), reasons())

    @router.get(
        "/metrics",
        operation_id="process.metrics",
        summary="Read the metrics",
        response_class=Response,
        responses={200: {"description": "In Prometheus's text format.", "content": _METRICS}},
    )
    def metrics() -> Response:
        """All metrics of this process; no label is an id of a person."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return router


def _checked(conditions: dict[str, bool], reasons: dict[str, str] | None = None) -> JSONResponse:
    status = HTTPStatus.OK if all(conditions.values()) else HTTPStatus.SERVICE_UNAVAILABLE
    return JSONResponse({**conditions, "reasons": reasons} if reasons else conditions, status_code=status.value)


def server(app: FastAPI, host: str, port: int, finish_within_seconds: int | None = None) -> uvicorn.Server:
    """A uvicorn server without its own logging (URLs may not be logged) whose lifespan is the app's.

    What is under way at the end and takes longer than `finish_within_seconds` is cut off.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        loop="uvloop",
        lifespan="on",
        timeout_graceful_shutdown=finish_within_seconds,
    )
    return uvicorn.Server(config)
