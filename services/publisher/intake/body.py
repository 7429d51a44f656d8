"""Reading a request body within bounds, to its end."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request
from starlette.requests import ClientDisconnect

_DRAIN_FACTOR = 16
"""How many times the limit is read and thrown away. A client that is answered before it has sent everything may see a reset
connection instead of the answer, and take poison for an outage."""


class BodyTooSlow(ValueError):
    """The body did not arrive in time, or the client went away."""


@dataclass(frozen=True, slots=True)
class Body:
    """What arrived."""

    data: bytes | None
    """None when it was over the limit."""
    bytes: int
    digest: str
    """SHA-256, hexadecimal, of everything that was read."""


def declared_bytes(request: Request, limit_bytes: int) -> int:
    """How much of the body will be held, as far as its header says."""
    declared = request.headers.get("content-length", "")
    return min(int(declared), limit_bytes) if declared.isdigit() else 0


async def read_body(
    request: Request, limit_bytes: int, timeout_seconds: float, hold: Callable[[int], None] = lambda _size: None
) -> Body:
    """The body; raises `BodyTooSlow`. One that is over the limit is never held in memory, and counts as such however slow.

    `hold` is told how much is about to be held, and may raise.
    """
    chunks: list[bytes] = []
    size, digest = 0, hashlib.sha256()
    try:
        async with asyncio.timeout(timeout_seconds):
            async for chunk in request.stream():
                size += len(chunk)
                digest.update(chunk)
                if size <= limit_bytes:
                    hold(size)
                    chunks.append(chunk)
                elif size > limit_bytes * _DRAIN_FACTOR:
                    break
                else:
                    chunks.clear()
    except (TimeoutError, ClientDisconnect) as error:
        if size <= limit_bytes:
            raise BodyTooSlow(f"not complete after {timeout_seconds} s") from error
    return Body(b"".join(chunks) if size <= limit_bytes else None, size, digest.hexdigest())
