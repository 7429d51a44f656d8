"""HTTP to one Canvas: a fixed origin, a token from a file, bounded bodies, one deadline per operation."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping, Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from services.consumer.targets.canvas.answers import Answer, NoAnswer, NotFound, Payload, classify, usage_of
from services.consumer.targets.port import NO_USAGE, Failure, NoPermission, WrongShape
from services.kit.credentials import CredentialFileError, SecretFile

_MAX_BODY_BYTES = 4 * 1024 * 1024
_API = "/api/v1/"
Parameters = Sequence[tuple[str, str]]


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

    def __init__(self, url: str, token: SecretFile, transport: httpx.AsyncBaseTransport | None = None) -> None:
        """`transport` replaces the network in tests."""
        self._origin = httpx.URL(url)
        self._token = token
        self._http = httpx.AsyncClient(
            base_url=self._origin,
            transport=transport or AiohttpTransport(client=_session),
            follow_redirects=False,
            trust_env=False,
            timeout=None,  # noqa: S113  (each request runs under the operation's deadline)
            cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
            headers={"accept": "application/json", "user-agent": "enrollstream"},
        )

    async def get(self, path: str, operation: Operation, params: Parameters = ()) -> Payload | NotFound | Failure:
        """Read ``/api/v1/<path>``; the answer must be complete by the operation's deadline."""
        return await self._request("GET", _API + path, operation, params=params, changes=False)

    async def get_page(self, address: str, operation: Operation) -> Payload | NotFound | Failure:
        """Read a page that an answer linked to; refused when it points anywhere but to our origin's API."""
        url = httpx.URL(address)
        same_origin = (url.scheme, url.host, url.port) == (self._origin.scheme, self._origin.host, self._origin.port)
        if not same_origin or not url.path.startswith(_API):
            return WrongShape("foreign_link")
        return await self._request("GET", url.raw_path.decode("ascii"), operation, changes=False)

    async def change(
        self, method: str, path: str, operation: Operation, *, params: Parameters = (), form: Mapping[str, str] | None = None
    ) -> Payload | NotFound | Failure:
        """Send one changing request, once: never retried here unless Canvas said that it did nothing."""
        return await self._request(method, _API + path, operation, params=params, form=form, changes=True)

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

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
        try:
            token = self._token.read()
            request = self._http.build_request(method, path, params=list(params) or None, data=form)
            result = await self._attempt(request, token, operation, changes=changes)
            if isinstance(result, NoPermission) and result.whole_token and self._token.read() != token:
                # The token was rotated between our reading the file and Canvas looking at it; a 401 has no effect.
                result = await self._attempt(request, self._token.read(), operation, changes=changes)
        except CredentialFileError:
            return NoPermission(whole_token=True)
        return result

    async def _attempt(
        self, request: httpx.Request, token: str, operation: Operation, *, changes: bool
    ) -> Payload | NotFound | Failure:
        request.headers["authorization"] = f"Bearer {token}"
        answer = await self._answer(request, operation)
        operation.usage += usage_of(answer)
        return classify(answer, changes=changes)

    async def _answer(self, request: httpx.Request, operation: Operation) -> Answer | NoAnswer:
        if operation.over:
            # The process was stopped since the operation began: whoever took over may have read the seat already.
            return NoAnswer("late", sent=False)
        try:
            async with asyncio.timeout_at(operation.deadline):
                response = await self._http.send(request, stream=True)
                try:
                    body = await _bounded_body(response)
                finally:
                    await response.aclose()
        except TimeoutError:
            return NoAnswer("timeout", sent=True)
        except httpx.HTTPError as error:
            # httpx-aiohttp maps every lost connection to ConnectTimeout, also one lost after sending; the cause tells.
            if isinstance(error.__cause__, aiohttp.ClientConnectorError):
                return NoAnswer("unreachable", sent=False)
            return NoAnswer("connection", sent=True)
        headers = {name.lower(): value for name, value in response.headers.items()}
        return Answer(response.status_code, headers, body)


async def _bounded_body(response: httpx.Response) -> bytes:
    """The body; empty (which confirms nothing) when it is larger than any answer we ask for."""
    chunks, size = [], 0
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > _MAX_BODY_BYTES:
            return b""
        chunks.append(chunk)
    return b"".join(chunks)


def _session() -> aiohttp.ClientSession:
    """A session without the two habits that hurt here: cookies, and sending a DELETE or PUT again by itself when a kept-alive
    connection breaks (aiohttp repeats idempotent methods; a change of unknown outcome must be read back instead)."""
    connector = aiohttp.TCPConnector(limit=0, ssl=ssl.create_default_context(), keepalive_timeout=30)
    session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
    session._retry_connection = False
    return session
