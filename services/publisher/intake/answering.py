"""What every intake route does around its own work: time it, count it, and turn what went wrong into *try again*."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TypeVar

import structlog
from starlette.responses import JSONResponse, Response

from services.kit.http import problem
from services.publisher.changes import Unavailable
from services.publisher.intake.body import BodyTooSlow
from services.publisher.metrics import Metrics

log = structlog.get_logger()
RETRY_AFTER_SECONDS = 5
AnyResponse = TypeVar("AnyResponse", bound=Response)
Outcome = str
"""A value of the label ``outcome`` of `Metrics.requests`."""


async def answer(
    metrics: Metrics,
    source: str,
    handle: Callable[[], Awaitable[tuple[Outcome, AnyResponse]]],
    try_again: Callable[[str], AnyResponse],
) -> AnyResponse:
    """The response of `handle`, or that of `try_again` to the reason why the request could not be made durable. Never raises."""
    begun = time.perf_counter()
    try:
        outcome, response = await handle()
    except Unavailable as error:
        log.info("intake_unavailable", reason=error.reason, channel=source)
        metrics.unavailable.labels(source, error.reason).inc()
        outcome, response = "unavailable", try_again(error.reason)
    except BodyTooSlow:
        outcome, response = "too_slow", try_again("too_slow")
    except Exception:
        # The outermost place: a defect of ours may delay a source, but must not make it give up or freeze its queue.
        log.exception("intake_failed", channel=source)
        outcome, response = "unavailable", try_again("defect")
    metrics.requests.labels(source, outcome).inc()
    metrics.request_seconds.labels(source).observe(time.perf_counter() - begun)
    return response


def unauthorized() -> JSONResponse:
    """For a source that reads JSON and is not known."""
    response = problem(HTTPStatus.UNAUTHORIZED, "Wrong or missing credentials")
    response.headers["WWW-Authenticate"] = 'Basic realm="enrollstream", Bearer'
    return response


def try_again(title: str, reason: str, *, after_seconds: int = RETRY_AFTER_SECONDS) -> JSONResponse:
    """For a source that reads JSON: what it sent is not durable."""
    response = problem(HTTPStatus.SERVICE_UNAVAILABLE, title, reason=reason)
    response.headers["Retry-After"] = str(after_seconds)
    return response
