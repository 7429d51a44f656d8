"""`Wire` over an httpx transport: for tests whose Canvas is one."""

from __future__ import annotations

from collections.abc import Mapping

import aiohttp
import httpx

from services.consumer.targets.canvas.answers import Answer, NoAnswer


class HttpxWire:
    """Every `httpx.HTTPError` of the transport is a lost connection, or none at all when aiohttp's connector caused it."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None) -> Answer | NoAnswer:
        request = httpx.Request(method, url, headers=headers, content=body)
        try:
            response = await self._transport.handle_async_request(request)
            content = await response.aread()
        except httpx.HTTPError as error:
            unreachable = isinstance(error.__cause__, aiohttp.ClientConnectorError)
            return NoAnswer("unreachable" if unreachable else "connection", sent=not unreachable)
        return Answer(response.status_code, {name.lower(): value for name, value in response.headers.items()}, content)

    async def close(self) -> None:
        await self._transport.aclose()
