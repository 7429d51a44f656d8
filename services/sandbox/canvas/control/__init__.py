"""The control side under ``/_sandbox/``. Loopback only, without a secret.

`rows` makes, changes and shows rows, `behaviour` sets how the sandbox answers, `records` tells what was done to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.routing import Route

from services.sandbox.canvas.control.behaviour import Behaviour
from services.sandbox.canvas.control.records import Records
from services.sandbox.canvas.control.requests import loopback_only, missing, unprocessable
from services.sandbox.canvas.control.rows import Rows
from services.sandbox.canvas.seeding import Missing

if TYPE_CHECKING:
    from services.sandbox.canvas.app import Canvas


def control_app(canvas: Canvas) -> Starlette:
    """The ASGI application of the control side of one Canvas."""
    routes = [route for part in (Rows(canvas), Behaviour(canvas), Records(canvas)) for route in part.routes()]
    return Starlette(
        routes=[Route(f"/_sandbox/{path}", loopback_only(endpoint), methods=[method]) for method, path, endpoint in routes],
        exception_handlers={ValidationError: unprocessable, Missing: missing},
    )
