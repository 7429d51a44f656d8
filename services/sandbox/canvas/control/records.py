"""What was done to the sandbox: the write log, violations, counts of calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from services.sandbox.canvas.control.requests import Routes
from services.sandbox.canvas.mails import is_sent
from services.sandbox.canvas.rendering import instant

if TYPE_CHECKING:
    from services.sandbox.canvas.app import Canvas

_MOST_WRITES = 10_000


class Records:
    """The endpoints that read them."""

    def __init__(self, canvas: Canvas) -> None:
        self._canvas = canvas

    def routes(self) -> Routes:
        """What they answer to."""
        return [
            ("GET", "health", self.health),
            ("GET", "writes", self.writes),
            ("GET", "violations", self.violations),
            ("GET", "mails", self.mails),
            ("GET", "calls", self.calls),
            ("DELETE", "calls", self.forget_calls),
        ]

    async def health(self, _request: Request) -> Response:
        return JSONResponse({"ok": True})

    async def writes(self, request: Request) -> Response:
        """The attempts after number ``after``, at most ``limit``."""
        after = int(request.query_params.get("after", "0"))
        limit = min(int(request.query_params.get("limit", str(_MOST_WRITES))), _MOST_WRITES)
        found = self._canvas.log.after(after, limit)
        return JSONResponse({"writes": [attempt.as_json() for attempt in found], "total": len(self._canvas.log.attempts)})

    async def violations(self, _request: Request) -> Response:
        return JSONResponse({"violations": [violation.as_json() for violation in self._canvas.violations]})

    async def mails(self, _request: Request) -> Response:
        """What people were or will be mailed; ``sent`` goes by the clock."""
        world = self._canvas.world
        found = [
            {
                "kind": mail.kind,
                "enrollment": mail.enrollment.id if mail.enrollment else None,
                "user": mail.user.id,
                "due": instant(mail.due),
                "sent": is_sent(world, mail),
            }
            for mail in world.mails
        ]
        return JSONResponse({"mails": found})

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
