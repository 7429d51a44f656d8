"""The control side under ``/_sandbox/``: seeding, settings, faults, rosters, the write log. Loopback only, without a secret."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.sandbox.canvas.dates import effective_state
from services.sandbox.canvas.faults import FaultSpec
from services.sandbox.canvas.rendering import instant
from services.sandbox.canvas.seeding import Missing, Objects, seed
from services.sandbox.canvas.state import Enrollment
from services.sandbox.canvas.tokens import PERMISSIONS, TokenState

if TYPE_CHECKING:
    from services.sandbox.canvas.app import Canvas

Model = TypeVar("Model", bound=BaseModel)
Endpoint = Callable[[Request], Awaitable[Response]]
_LOOPBACK = ("127.0.0.1", "::1", "testclient")
_MOST_WRITES = 10_000


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ThrottleChange(_Strict):
    """See `throttle.ThrottleSettings`; what is left out stays."""

    enabled: bool | None = None
    maximum: float | None = None
    high_water_mark: float | None = None
    outflow: float | None = None
    up_front_cost: float | None = None
    refusal_status: int | None = None
    cost: float | None = None
    cost_by_endpoint: dict[str, float] | None = None


class SettingsChange(_Strict):
    """See `settings.Settings`; what is left out stays."""

    latency_ms: float | None = Field(default=None, ge=0)
    jitter_ms: float | None = Field(default=None, ge=0)
    visibility_lag_seconds: float | None = Field(default=None, ge=0)
    unauthorized_status: int | None = None
    throttle: ThrottleChange | None = None


class TokenChange(_Strict):
    """A new token (with `secret`), or another state or other permissions for a known alias."""

    alias: str
    secret: str | None = None
    permissions: frozenset[str] | None = None
    state: TokenState | None = None


class ClockChange(_Strict):
    """Exactly what is given happens, in this order."""

    reset: bool = False
    now: datetime | None = None
    frozen: bool = False
    advance_seconds: float = 0


class Control:
    """The endpoints over one `Canvas`."""

    def __init__(self, canvas: Canvas) -> None:
        self._canvas = canvas

    def app(self) -> Starlette:
        """The ASGI application of the control side."""
        routes: list[tuple[str, str, Endpoint]] = [
            ("GET", "health", self.health),
            ("POST", "objects", self.objects),
            ("POST", "tokens", self.tokens),
            ("GET", "settings", self.settings),
            ("PATCH", "settings", self.change_settings),
            ("POST", "clock", self.clock),
            ("POST", "faults", self.add_fault),
            ("GET", "faults", self.faults),
            ("DELETE", "faults", self.remove_faults),
            ("DELETE", "faults/{id:int}", self.remove_faults),
            ("GET", "rosters", self.rosters),
            ("GET", "writes", self.writes),
            ("GET", "violations", self.violations),
            ("GET", "calls", self.calls),
            ("DELETE", "calls", self.forget_calls),
        ]
        return Starlette(
            routes=[Route(f"/_sandbox/{path}", _loopback_only(endpoint), methods=[method]) for method, path, endpoint in routes],
            exception_handlers={ValidationError: _unprocessable, Missing: _missing},
        )

    async def health(self, _request: Request) -> Response:
        return JSONResponse({"ok": True})

    async def objects(self, request: Request) -> Response:
        """Create or change objects in bulk, by SIS id; repeating a request changes nothing."""
        return JSONResponse(seed(self._canvas.world, await _read(request, Objects)))

    async def tokens(self, request: Request) -> Response:
        """Add a token, or change one."""
        change = await _read(request, TokenChange)
        token = self._canvas.tokens.by_alias(change.alias)
        if change.secret:
            token = self._canvas.add_token(change.secret, change.alias)
        if token is None:
            raise Missing("token", change.alias)
        if change.permissions is not None:
            token.permissions = change.permissions & PERMISSIONS
        token.state = change.state or token.state
        return JSONResponse({"alias": token.alias, "state": token.state, "permissions": sorted(token.permissions)})

    async def settings(self, _request: Request) -> Response:
        return JSONResponse(_settings_json(self._canvas))

    async def change_settings(self, request: Request) -> Response:
        """Change what is given."""
        change = (await _read(request, SettingsChange)).model_dump(exclude_none=True)
        for name, value in change.pop("throttle", {}).items():
            setattr(self._canvas.settings.throttle, name, value)
        for name, value in change.items():
            setattr(self._canvas.settings, name, value)
        return JSONResponse(_settings_json(self._canvas))

    async def clock(self, request: Request) -> Response:
        """Move the time that dates are compared with."""
        change = await _read(request, ClockChange)
        clock = self._canvas.clock
        if change.reset:
            clock.reset()
        if change.now:
            clock.set(change.now, frozen=change.frozen)
        clock.advance(change.advance_seconds)
        return JSONResponse({"now": clock.now().isoformat()})

    async def add_fault(self, request: Request) -> Response:
        fault = self._canvas.faults.add(await _read(request, FaultSpec))
        return JSONResponse({"id": fault.id}, status_code=201)

    async def faults(self, _request: Request) -> Response:
        """Every fault with how often it bit, ended ones too."""
        return JSONResponse({"faults": self._canvas.faults.as_json()})

    async def remove_faults(self, request: Request) -> Response:
        """One or all."""
        return JSONResponse({"removed": self._canvas.faults.remove(request.path_params.get("id"))})

    async def rosters(self, request: Request) -> Response:
        """All enrollments in every state, or those of one ``section`` (SIS id)."""
        section = request.query_params.get("section")
        rows = self._canvas.world.enrollments.values()
        found = [row for row in rows if section is None or row.section.sis_section_id == section]
        now = self._canvas.clock.now()
        return JSONResponse({"enrollments": [_roster_row(row, now) for row in found]})

    async def writes(self, request: Request) -> Response:
        """The attempts after number ``after``, at most ``limit``."""
        after = int(request.query_params.get("after", "0"))
        limit = min(int(request.query_params.get("limit", str(_MOST_WRITES))), _MOST_WRITES)
        found = self._canvas.log.after(after, limit)
        return JSONResponse({"writes": [attempt.as_json() for attempt in found], "total": len(self._canvas.log.attempts)})

    async def violations(self, _request: Request) -> Response:
        return JSONResponse({"violations": [violation.as_json() for violation in self._canvas.violations]})

    async def calls(self, _request: Request) -> Response:
        """Counts by endpoint and status (``hang`` and ``reset`` for calls without an answer)."""
        counted = [{"endpoint": name, "status": status, "count": count} for (name, status), count in self._canvas.calls.items()]
        total = sum(self._canvas.calls.values())
        return JSONResponse({"calls": counted, "total": total, "max_in_flight": self._canvas.max_in_flight})

    async def forget_calls(self, _request: Request) -> Response:
        """Count from zero again."""
        self._canvas.calls.clear()
        self._canvas.max_in_flight = self._canvas.in_flight
        return JSONResponse({})


def _settings_json(canvas: Canvas) -> dict[str, Any]:
    settings = canvas.settings
    throttle = {name: getattr(settings.throttle, name) for name in ThrottleChange.model_fields}
    return {name: getattr(settings, name) for name in SettingsChange.model_fields if name != "throttle"} | {"throttle": throttle}


def _roster_row(row: Enrollment, now: datetime) -> dict[str, Any]:
    login = row.user.login() or next(iter(row.user.pseudonyms), None)
    associated = row.associated_user.login() if row.associated_user else None
    return {
        "id": row.id,
        "section": row.section.sis_section_id,
        "course": row.course.sis_course_id,
        "user": login.sis_user_id if login else None,
        "associated_user": associated.sis_user_id if associated else None,
        "type": row.type,
        "role": row.role.name,
        "state": row.state,
        "effective_state": effective_state(row, now),
        "sis_import_id": row.sis_batch_id,
        "start_at": instant(row.start_at),
        "end_at": instant(row.end_at),
        "stuck_sis_fields": sorted(row.stuck_sis_fields),
    }


async def _read(request: Request, model: type[Model]) -> Model:
    return model.model_validate_json(await request.body())


def _loopback_only(endpoint: Endpoint) -> Endpoint:
    async def guarded(request: Request) -> Response:
        if request.client and request.client.host not in _LOOPBACK:
            return JSONResponse({"error": "the control side answers only to this machine"}, status_code=403)
        return await endpoint(request)

    return guarded


async def _unprocessable(_request: Request, error: Exception) -> Response:
    problems = (
        error.errors(include_input=False, include_context=False, include_url=False) if isinstance(error, ValidationError) else []
    )
    return JSONResponse({"errors": problems}, status_code=422)


async def _missing(_request: Request, error: Exception) -> Response:
    return JSONResponse({"errors": [str(error)]}, status_code=422)
