"""Reading a request of the control side and refusing what makes no sense."""

from __future__ import annotations

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


async def read(request: Request, model: type[Model]) -> Model:
    """The body as `model`."""
    return model.model_validate_json(await request.body())


def loopback_only(endpoint: Endpoint) -> Endpoint:
    """The control side has no secret, so it answers only to this machine."""

    async def guarded(request: Request) -> Response:
        if request.client and request.client.host not in _LOOPBACK:
            return JSONResponse({"error": "the control side answers only to this machine"}, status_code=403)
        return await endpoint(request)

    return guarded


async def unprocessable(_request: Request, error: Exception) -> Response:
    """422 for a body that is not what it should be."""
    problems = (
        error.errors(include_input=False, include_context=False, include_url=False) if isinstance(error, ValidationError) else []
    )
    return JSONResponse({"errors": problems}, status_code=422)


async def missing(_request: Request, error: Exception) -> Response:
    """422 for a reference to something that is not there."""
    return JSONResponse({"errors": [str(error)]}, status_code=422)
