"""Request bodies that are too long for memory: on disk, each of them and all together within bounds.

A file has no name, so that nothing of it is left when its request is answered, or its process is dead.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import BinaryIO

from fastapi import Request
from starlette.requests import ClientDisconnect

from services.publisher.changes import Unavailable
from services.publisher.intake.body import BodyTooSlow
from services.publisher.intake.budget import Room, Share


@dataclass(frozen=True, slots=True)
class Spooled:
    """A body on disk."""

    file: BinaryIO
    """At its beginning."""
    digest: bytes
    """SHA-256."""
    size: int


class Spool:
    """Shared by all requests of a process; used from its event loop only."""

    def __init__(self, room: Room, max_bytes: int, timeout_seconds: float) -> None:
        self._room = room
        self._timeout_seconds = timeout_seconds
        self.max_bytes = max_bytes
        """Of one body."""

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[Spooled | None]:
        """The body until the block ends; None when it is too long. Raises `BodyTooSlow` and `Unavailable`.

        What declares its length is refused before anything of it is read, and not asked for (``Expect: 100-continue``).
        """
        length = request.headers.get("content-length", "")
        declared = int(length) if length.isdigit() else 0
        if declared > self.max_bytes:
            yield None
            return
        with self._room.share(declared) as share, _file(declared) as file:
            yield await self._write(request, file, share)

    async def _write(self, request: Request, file: BinaryIO, share: Share) -> Spooled | None:
        digest, size = hashlib.sha256(), 0
        try:
            async with asyncio.timeout(self._timeout_seconds):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > self.max_bytes:
                        return None
                    share.hold(size)
                    digest.update(chunk)
                    file.write(chunk)
            file.seek(0)
        except (TimeoutError, ClientDisconnect) as error:
            raise BodyTooSlow(f"not complete after {self._timeout_seconds} s") from error
        except OSError as error:
            raise Unavailable("disk") from error
        return Spooled(file, digest.digest(), size)


@contextmanager
def _file(size: int) -> Iterator[BinaryIO]:
    """One that has room for so many bytes now; raises ``Unavailable("disk")``."""
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115  (closing it may fail, and then nothing is lost)
    except OSError as error:
        raise Unavailable("disk") from error
    try:
        disk = os.fstatvfs(file.fileno())
        if disk.f_bavail * disk.f_frsize < size:
            raise Unavailable("disk")
        yield file
    finally:
        with suppress(OSError):  # what is still to be written has no room, and nobody who would read it
            file.close()
