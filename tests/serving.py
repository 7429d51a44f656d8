"""A sandbox server for the time of a test. Its end is not waited for before the next test begins.

uvicorn looks ten times a second whether it should stop, and once more whether it has: a fifth of a second for each of the
hundreds of servers. Nobody meets a server of another test: each has an address of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from services.sandbox.canvas.server import AppServer

Server = TypeVar("Server", bound=AppServer)
_closers = ThreadPoolExecutor(8, thread_name_prefix="closing")
_closing: list[Future[None]] = []


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Start it, and close it in the background."""
    server.start()
    try:
        yield server
    finally:
        _closing.append(_closers.submit(server.close))


def await_closed() -> None:
    """Wait for all, and raise what one of them died of."""
    while _closing:
        _closing.pop().result(30)
