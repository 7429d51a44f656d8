"""A request as it comes over ASGI, read once: whole body, undecoded path, parameters, the route it means."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from services.sandbox.canvas.errors import Refusal
from services.sandbox.canvas.parameters import Parameters, merged
from services.sandbox.canvas.routing import Match, Router
from services.sandbox.canvas.tokens import hashed

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Incoming(NamedTuple):
    """A request as it came, and the route it means."""

    method: str
    raw_path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    parameters: Parameters | None
    """None when the body cannot be read."""
    scope: Scope
    receive: Receive
    match: Match | None
    request_id: str

    @property
    def endpoint(self) -> str:
        return self.match.route.endpoint if self.match else "unknown"

    @property
    def secret(self) -> str | None:
        """The access token: ``Authorization: Bearer`` or the parameter ``access_token``."""
        scheme, _, value = self.headers.get("authorization", "").partition(" ")
        return value.strip() if scheme.lower() == "bearer" else dict(self.query).get("access_token")

    @property
    def origin(self) -> str:
        return f"{self.scope.get('scheme', 'http')}://{self.headers.get('host', 'localhost')}"

    @property
    def client(self) -> bytes:
        """Whose bucket it fills: the token's, else the address's."""
        address = self.scope.get("client") or ("",)
        return hashed(self.secret) if self.secret else str(address[0]).encode()


async def read(scope: Scope, receive: Receive, router: Router) -> Incoming:
    """Take the whole body, then find the route."""
    chunks, more = [], True
    while more:
        event = await receive()
        chunks.append(event.get("body", b""))
        more = event.get("more_body", False)
    raw_path = _origin_form((scope.get("raw_path") or scope["path"].encode()).decode("ascii"))
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    query = parse_qsl(scope.get("query_string", b"").decode(), keep_blank_values=True)
    match = router.match(scope["method"], raw_path)
    parameters = _parameters(query, headers, b"".join(chunks))
    return Incoming(scope["method"], raw_path, query, headers, parameters, scope, receive, match, str(uuid.uuid4()))


def _origin_form(target: str) -> str:
    """A client may ask for the whole URL instead of its path (RFC 9112, 3.2.2); who follows ``Link`` over urllib3's pool does."""
    if target.startswith("/"):
        return target
    return "/" + target.partition("://")[2].partition("/")[2]


def _parameters(query: list[tuple[str, str]], headers: dict[str, str], body: bytes) -> Parameters | None:
    try:
        return merged(query, headers.get("content-type", ""), body)
    except Refusal:
        return None
