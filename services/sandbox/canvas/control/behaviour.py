"""How the sandbox behaves from now on: settings, tokens, the clock, faults."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from services.sandbox.canvas.control.requests import Routes, read
from services.sandbox.canvas.faults import FaultSpec
from services.sandbox.canvas.seeding import Missing, Strict
from services.sandbox.canvas.tokens import PERMISSIONS, TokenState

if TYPE_CHECKING:
    from services.sandbox.canvas.app import Canvas


class ThrottleChange(Strict):
    """See `throttle.ThrottleSettings`; what is left out stays."""

    enabled: bool | None = None
    maximum: float | None = None
    high_water_mark: float | None = None
    outflow: float | None = None
    up_front_cost: float | None = None
    refusal_status: int | None = None
    cost: float | None = None
    cost_by_endpoint: dict[str, float] | None = None
    approved: list[str] | None = None
    blocked: list[str] | None = None


class AssumptionsChange(Strict):
    """See `settings.Assumptions`; what is left out stays."""

    revival_keeps_completed_at: bool | None = None
    invitation_at_start: Literal["always", "hidden", "never"] | None = None
    sticky_when_made: bool | None = None
    blueprint_takes_observers: bool | None = None


class SettingsChange(Strict):
    """See `settings.Settings`; what is left out stays."""

    latency_ms: float | None = Field(default=None, ge=0)
    jitter_ms: float | None = Field(default=None, ge=0)
    visibility_lag_seconds: float | None = Field(default=None, ge=0)
    unauthorized_status: int | None = None
    throttle: ThrottleChange | None = None
    assumptions: AssumptionsChange | None = None


class TokenChange(Strict):
    """A new token (with `secret`), or another state or other permissions for a known alias."""

    alias: str
    secret: str | None = None
    permissions: frozenset[str] | None = None
    endpoints: frozenset[str] | None = None
    state: TokenState | None = None


class ClockChange(Strict):
    """Exactly what is given happens, in this order."""

    reset: bool = False
    now: datetime | None = None
    frozen: bool = False
    advance_seconds: float = 0


class Behaviour:
    """The endpoints that change it."""

    def __init__(self, canvas: Canvas) -> None:
        self._canvas = canvas

    def routes(self) -> Routes:
        """What they answer to."""
        return [
            ("POST", "tokens", self.tokens),
            ("GET", "settings", self.settings),
            ("PATCH", "settings", self.change_settings),
            ("POST", "clock", self.clock),
            ("POST", "faults", self.add_fault),
            ("GET", "faults", self.faults),
            ("DELETE", "faults", self.remove_faults),
            ("DELETE", "faults/{id:int}", self.remove_faults),
        ]

    async def tokens(self, request: Request) -> Response:
        """Add a token, or change one."""
        change = await read(request, TokenChange)
        token = self._canvas.tokens.by_alias(change.alias)
        if change.secret:
            token = self._canvas.add_token(change.secret, change.alias)
        if token is None:
            raise Missing("token", change.alias)
        if change.permissions is not None:
            token.permissions = change.permissions & PERMISSIONS
        token.endpoints = change.endpoints if "endpoints" in change.model_fields_set else token.endpoints
        token.state = change.state or token.state
        return JSONResponse({"alias": token.alias, "state": token.state, "permissions": sorted(token.permissions)})

    async def settings(self, _request: Request) -> Response:
        return JSONResponse(_settings_json(self._canvas))

    async def change_settings(self, request: Request) -> Response:
        """Change what is given."""
        change = (await read(request, SettingsChange)).model_dump(exclude_none=True)
        settings = self._canvas.settings
        for part in ("throttle", "assumptions"):
            for name, value in change.pop(part, {}).items():
                setattr(getattr(settings, part), name, value)
        for name, value in change.items():
            setattr(settings, name, value)
        return JSONResponse(_settings_json(self._canvas))

    async def clock(self, request: Request) -> Response:
        """Move the time that dates are compared with."""
        change = await read(request, ClockChange)
        clock = self._canvas.clock
        if change.reset:
            clock.reset()
        if change.now:
            clock.set(change.now, frozen=change.frozen)
        clock.advance(change.advance_seconds)
        return JSONResponse({"now": clock.now().isoformat()})

    async def add_fault(self, request: Request) -> Response:
        fault = self._canvas.faults.add(await read(request, FaultSpec))
        return JSONResponse({"id": fault.id}, status_code=201)

    async def faults(self, _request: Request) -> Response:
        """Every fault with how often it bit, ended ones too."""
        return JSONResponse({"faults": self._canvas.faults.as_json()})

    async def remove_faults(self, request: Request) -> Response:
        """One or all."""
        return JSONResponse({"removed": self._canvas.faults.remove(request.path_params.get("id"))})


def _settings_json(canvas: Canvas) -> dict[str, Any]:
    settings = canvas.settings
    parts = {
        "throttle": {name: getattr(settings.throttle, name) for name in ThrottleChange.model_fields},
        "assumptions": {name: getattr(settings.assumptions, name) for name in AssumptionsChange.model_fields},
    }
    return {name: getattr(settings, name) for name in SettingsChange.model_fields if name not in parts} | parts
