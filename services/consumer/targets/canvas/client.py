"""Calls to one Canvas: a fixed origin, a token from a file, one deadline per operation."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from urllib.parse import SplitResult, urlencode, urlsplit

from services.consumer.targets.canvas.answers import Answer, NoAnswer, NotFound, Payload, classify, usage_of
from services.consumer.targets.canvas.wire import AiohttpWire, Wire
from services.consumer.targets.port import NO_USAGE, Failure, NoPermission, WrongShape
from services.kit.credentials import CredentialFileError, SecretFile

_API = "/api/v1/"
Parameters = Sequence[tuple[str, str]]
_TOKEN_SECONDS = 1.0
"""A token is looked up in its file so often, not for each of thousands of calls; and at once when Canvas does not take it."""


class Operation:
    """The frame of one target operation: everything in it shares a deadline, and its cost is counted together."""

    def __init__(self, seconds: float) -> None:
        self.deadline = asyncio.get_running_loop().time() + seconds
        self.usage = NO_USAGE
        self._ends_at = time.monotonic() + seconds

    @property
    def over(self) -> bool:
        """Whether the deadline has passed, by a clock that also went on while the process was stopped: the loop's may be as old
        as its current turn."""
        return time.monotonic() > self._ends_at


class CanvasClient:
    """Sends requests to one origin and nowhere else; follows no redirect and keeps no cookie."""

    def __init__(self, url: str, token: SecretFile, wire: Wire | None = None) -> None:
        """`wire` replaces the network in tests."""
        self._base = url.rstrip("/")
        self._origin = _origin(urlsplit(url))
        self._token = token
        self._wire = wire or AiohttpWire()

    async def get(self, path: str, operation: Operation, params: Parameters = ()) -> Payload | NotFound | Failure:
        """Read ``/api/v1/<path>``; the answer must be complete by the operation's deadline."""
        return await self._request("GET", _API + path, operation, params=params, changes=False)

    async def get_page(self, address: str, operation: Operation) -> Payload | NotFound | Failure:
        """Read a page that an answer linked to; refused when it points anywhere but to our origin's API."""
        try:
            parts = urlsplit(address)
            same_origin = _origin(parts) == self._origin
        except ValueError:
            return WrongShape("foreign_link")
        plain = address.isascii() and address.isprintable() and " " not in address
        if not same_origin or not plain or not parts.path.startswith(_API):
            return WrongShape("foreign_link")
        # Put behind our own origin: whatever the address hides, the token goes nowhere else.
        return await self._request("GET", f"{parts.path}?{parts.query}", operation, changes=False)

    async def change(
        self, method: str, path: str, operation: Operation, *, params: Parameters = (), form: Mapping[str, str] | None = None
    ) -> Payload | NotFound | Failure:
        """Send one changing request, once: never retried here unless Canvas said that it did nothing."""
        return await self._request(method, _API + path, operation, params=params, form=form, changes=True)

    async def close(self) -> None:
        """Close all connections."""
        await self._wire.close()

    async def _request(
        self,
        method: str,
        path: str,
        operation: Operation,
        *,
        changes: bool,
        params: Parameters = (),
        form: Mapping[str, str] | None = None,
    ) -> Payload | NotFound | Failure:
        url = f"{self._base}{path}?{urlencode(params)}" if params else self._base + path
        body = None if form is None else urlencode(form).encode()
        try:
            token = self._token.read(at_most_old=_TOKEN_SECONDS)
            result = await self._attempt(method, url, body, token, operation, changes=changes)
            if isinstance(result, NoPermission) and result.whole_token and self._token.read() != token:
                # The token was rotated between our reading the file and Canvas looking at it; a 401 has no effect.
                result = await self._attempt(method, url, body, self._token.read(), operation, changes=changes)
        except CredentialFileError:
            return NoPermission(whole_token=True)
        return result

    async def _attempt(
        self, method: str, url: str, body: bytes | None, token: str, operation: Operation, *, changes: bool
    ) -> Payload | NotFound | Failure:
        headers = {"authorization": f"Bearer {token}"}
        if body is not None:
            headers["content-type"] = "application/x-www-form-urlencoded"
        answer = await self._answer(method, url, headers, body, operation)
        operation.usage += usage_of(answer)
        return classify(answer, changes=changes)

    async def _answer(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes | None, operation: Operation
    ) -> Answer | NoAnswer:
        if operation.over:
            # The process was stopped since the operation began: whoever took over may have read the seat already.
            return NoAnswer("late", sent=False)
        try:
            async with asyncio.timeout_at(operation.deadline):
                return await self._wire.send(method, url, headers, body)
        except TimeoutError:
            return NoAnswer("timeout", sent=True)


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    """Scheme, host and port; raises `ValueError` for a port that is none."""
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)
