"""Requests and answers over the network, by aiohttp itself: httpx over it costs three times as much processor time a call."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Protocol

import aiohttp
from yarl import URL

from services.consumer.targets.canvas.answers import Answer, NoAnswer

_MAX_BODY_BYTES = 4 * 1024 * 1024
_HEADERS = {"accept": "application/json", "user-agent": "enrollstream"}


class Wire(Protocol):
    """Carries one request; tests put their own in its place."""

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer | NoAnswer:
        """Send it once, to exactly this (encoded) address. Never repeats, follows no redirect; may be cancelled."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...


class AiohttpWire:
    """`Wire` with kept-alive connections, without a limit of its own: how many calls are in flight is decided elsewhere."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer | NoAnswer:
        """See `Wire`. The body is empty, which confirms nothing, when it is larger than any answer we ask for."""
        if self._session is None:
            self._session = _session()
        try:
            async with self._session.request(
                method, URL(url, encoded=True), headers=headers, data=body, allow_redirects=False
            ) as response:
                content = await _bounded_body(response)
        except aiohttp.ClientConnectorDNSError:
            return NoAnswer("no_address", sent=False)
        except aiohttp.ClientConnectorCertificateError:
            return NoAnswer("certificate", sent=False)
        except aiohttp.ClientConnectorError:
            return NoAnswer("unreachable", sent=False)
        except (aiohttp.ClientError, OSError):
            return NoAnswer("connection", sent=True)
        return Answer(response.status, response.headers, content)

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()


async def _bounded_body(response: aiohttp.ClientResponse) -> bytes:
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        size += len(chunk)
        if size > _MAX_BODY_BYTES:
            return b""
        chunks.append(chunk)
    return b"".join(chunks)


def _session() -> aiohttp.ClientSession:
    """A session without the two habits that hurt here: cookies, and sending a DELETE or PUT again by itself when a kept-alive
    connection breaks (aiohttp repeats idempotent methods; a change of unknown outcome must be read back instead)."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=ssl.create_default_context(), keepalive_timeout=30),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers=_HEADERS,
        timeout=aiohttp.ClientTimeout(total=None),  # each request runs under its operation's deadline
        trust_env=False,
    )
    session._retry_connection = False
    return session
