"""A uvicorn protocol that lets the application reset its connection, as a broken network or a dying proxy would."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

TRANSPORT = "sandbox.transport"
"""Where the transport stands in the ASGI scope."""
_LINGER_ZERO = struct.pack("ii", 1, 0)


class ResettableProtocol(H11Protocol):
    """HTTP/1.1 whose scope carries the transport of the connection."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in the base class
        super().connection_made(transport)
        application = self.app

        async def with_transport(scope: Any, receive: Any, send: Any) -> None:
            scope[TRANSPORT] = transport
            await application(scope, receive, send)

        self.app = with_transport


def reset(transport: asyncio.Transport) -> None:
    """Close with RST instead of FIN: lingering for zero seconds makes the kernel drop what is unsent and reset."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    transport.abort()
