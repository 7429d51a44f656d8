"""What every route for operators does around its own work: who asks, and what went wrong as a problem document."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from http import HTTPStatus

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import ValidationError

from services.kit.http import problem
from services.publisher.changes import Unavailable
from services.publisher.intake.answering import RETRY_AFTER_SECONDS
from services.publisher.intake.body import BodyTooSlow
from services.publisher.intake.ports import Callers

Actor = str
TRY_AGAIN = "Not known to be done; ask again"


async def operated(request: Request, callers: Callers | None, handle: Callable[[Actor], Awaitable[JSONResponse]]) -> JSONResponse:
    """What `handle` says to an operator, or why not; without `callers` everybody is refused."""
    actor = callers.identify(request.headers.get("authorization")) if callers else None
    if actor is None:
        response = problem(HTTPStatus.UNAUTHORIZED, "Wrong or missing credentials")
        response.headers["WWW-Authenticate"] = "Bearer"
        return response
    try:
        return await handle(actor)
    except BodyTooSlow:
        return problem(HTTPStatus.REQUEST_TIMEOUT, "The body did not arrive in time")
    except ValidationError as error:
        return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "Nothing was done", errors=described(error))
    except Unavailable as error:
        response = problem(HTTPStatus.SERVICE_UNAVAILABLE, TRY_AGAIN, reason=error.reason)
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
        return response


def described(error: ValidationError) -> list[dict[str, str]]:
    """Field names and rules only: the values may be ids of people."""
    problems = error.errors(include_input=False, include_url=False, include_context=False)
    return [{"pointer": "/" + "/".join(map(str, item["loc"])), "detail": item["msg"]} for item in problems]
