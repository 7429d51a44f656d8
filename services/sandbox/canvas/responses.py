"""What goes back over the wire, and how faults spoil it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from services.sandbox.canvas.faults import FaultSpec
from services.sandbox.canvas.state import Enrollment
from services.sandbox.canvas.world import World

JSON = "application/json; charset=utf-8"
HTML = "text/html; charset=utf-8"
TEXT = "text/plain; charset=utf-8"
_MAINTENANCE = (
    b"<!DOCTYPE html><html><head><title>Down for maintenance</title></head><body><h1>We will be back soon</h1></body></html>"
)
_MOVED = b'<html><body>You are being <a href="/login">redirected</a>.</body></html>'


@dataclass(slots=True, frozen=True)
class Wire:
    """One answer, ready to send."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: dict[str, str] = field(default_factory=dict)
    bytes_per_second: float | None = None
    """Send the body this slowly."""


def of_json(status: int, body: Any, headers: dict[str, str] | None = None) -> Wire:
    """An ordinary answer."""
    return Wire(status, orjson.dumps(body), JSON, headers or {})


def of_status(spec: FaultSpec) -> Wire:
    """The answer of a ``status`` fault; without a body, the one Canvas gives for a crash."""
    if isinstance(spec.body, str):
        return Wire(spec.status, spec.body.encode(), TEXT)
    crash = {"errors": [{"message": "An error occurred.", "error_code": "internal_server_error"}], "error_report_id": 1}
    return of_json(spec.status, crash if spec.body is None else spec.body)


def spoiled(wire: Wire, spec: FaultSpec, world: World) -> Wire:  # noqa: PLR0911  (one line per kind)
    """`wire` after a fault that changes answers; `wire` itself for the kinds that do not."""
    match spec.kind:
        case "status":
            return of_status(spec)
        case "html":
            return Wire(200, _MAINTENANCE, HTML)
        case "redirect":
            return Wire(302, _MOVED, HTML, {"Location": "/login"})
        case "empty":
            return Wire(200, b"")
        case "truncated":
            return replace(wire, body=wire.body[: max(len(wire.body) // 2, 1)])
        case "other_user":
            return replace(wire, body=orjson.dumps(_about_somebody_else(orjson.loads(wire.body), world)))
        case "drip":
            return replace(wire, bytes_per_second=spec.bytes_per_second)
        case "foreign_link":
            return replace(wire, headers=_with_foreign_links(wire.headers, spec.origin))
    return wire


def _with_foreign_links(headers: dict[str, str], origin: str) -> dict[str, str]:
    """Every link moves to `origin`, path and query stay."""
    link = headers.get("Link")
    if link is None:
        return headers
    parts = []
    for part in link.split(","):
        scheme, _, rest = part.partition("://")
        parts.append(f"<{origin}/{rest.partition('/')[2]}" if scheme.startswith("<") else part)
    return headers | {"Link": ",".join(parts)}


def _about_somebody_else(body: Any, world: World) -> Any:
    """Ids of people are replaced by another person's, everything else stays."""
    if isinstance(body, list):
        return [_about_somebody_else(item, world) for item in body]
    if not isinstance(body, dict):
        return body
    identity = body["id"] if "sortable_name" in body else body.get("user_id")
    if identity is None:
        return body
    other = next((user for user in world.users.values() if user.id != int(identity) and user.login()), None)
    login = other.login() if other else None
    other_id = other.id if other else int(identity) + 1
    changed = {"id" if "sortable_name" in body else "user_id": type(identity)(other_id)}
    if "sis_user_id" in body:
        changed["sis_user_id"] = (login.sis_user_id if login else None) or f"other-{other_id}"
    if "user" in body:
        changed["user"] = _about_somebody_else(body["user"], world)
    return body | changed


def take_back(body: dict[str, Any], row: Enrollment, before: str | None, spec: FaultSpec) -> dict[str, Any]:
    """The body of a write that was not kept: ``unchanged`` shows the old state, ``pretend`` shows the success."""
    if spec.kind == "pretend":
        return body
    state = before or "creation_pending"
    return body | {"enrollment_state": str(state), "id": row.id}
