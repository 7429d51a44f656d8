"""Reading a request of the control side and refusing what makes no sense."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

Model = TypeVar("Model", bound=BaseModel)
Endpoint = Callable[[Request], Awaitable[Response]]
Routes = list[tuple[str, str, Endpoint]]
"""Method, path below ``/_sandbox/``, handler."""
_LOOPBACK = ("127.0.0.1", "::1", "testclient")
_OUR_NAMES = re.compile(r"127\.0\.0\.1|::1|localhost|[a-z.]+\.(?:test|invalid)|testserver")
"""Names that cannot be had in the DNS; under any other a stranger's page may have been sent to this machine."""


async def read(request: Request, model: type[Model]) -> Model:
    """The body as `model`."""
    return model.model_validate_json(await request.body())


def loopback_only(endpoint: Endpoint) -> Endpoint:
    """The control side has no secret, so it answers only to this machine, and to no page of somebody else's in its browser."""

    async def guarded(request: Request) -> Response:
        if (request.client and request.client.host not in _LOOPBACK) or _from_a_page_elsewhere(request):
            return JSONResponse({"error": "the control side answers only to this machine"}, status_code=403)
        return await endpoint(request)

    return guarded


def _from_a_page_elsewhere(request: Request) -> bool:
    """A browser says from where a page posts; what has a stranger's name is a stranger's page."""
    if not _OUR_NAMES.fullmatch(request.url.hostname or ""):
        return True
    origin = request.headers.get("origin")
    return origin is not None and origin != f"{request.url.scheme}://{request.url.netloc}"


async def unprocessable(_request: Request, error: Exception) -> Response:
    """422 for a body that is not what it should be."""
    problems = (
        error.errors(include_input=False, include_context=False, include_url=False) if isinstance(error, ValidationError) else []
    )
    return JSONResponse({"errors": problems}, status_code=422)


async def missing(_request: Request, error: Exception) -> Response:
    """422 for a reference to something that is not there."""
    return JSONResponse({"errors": [str(error)]}, status_code=422)
