"""The sandbox behind a real socket: in a thread (tests) or as a process's one job (`command`)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import uvicorn

from services.sandbox.canvas.app import Receive, Scope, Send, create_app
from services.sandbox.canvas.client import CanvasControl
from services.sandbox.canvas.connection import ResettableProtocol

Application = Callable[[Scope, Receive, Send], Awaitable[None]]
"""An ASGI application."""
_STOP_WITHIN_SECONDS = 10


def listening_socket(host: str, port: int) -> socket.socket:
    """Bound at once, so that the port is known before the server runs; port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    listener.listen(1024)
    return listener


def uvicorn_server(application: Application) -> uvicorn.Server:
    """Without logs (SIS ids stand in URLs), without proxy headers; hung calls end one second after the stop."""
    config = uvicorn.Config(
        application,
        http=ResettableProtocol,
        ws="none",
        loop="uvloop",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    return uvicorn.Server(config)


class AppServer:
    """An application in a thread of this process, on a free port of 127.0.0.1, alive inside ``with``."""

    def __init__(self, application: Application, name: str) -> None:
        self._socket = listening_socket("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = uvicorn_server(application)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name=name, daemon=True)

    def start(self) -> Self:
        """Serve from now on; requests that come earlier wait in the socket's queue."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Stop the server and wait for its thread."""
        self._server.should_exit = True
        self._thread.join(_STOP_WITHIN_SECONDS)
        self._socket.close()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


class CanvasServer(AppServer):
    """A Canvas in a thread of this process.

    `url` and `token` are what a client needs; `control` seeds, sets faults and reads the log. State dies with the server.
    """

    def __init__(self, token: str = "sandbox-token", seed: int = 0) -> None:  # noqa: S107  (guards nothing but a sandbox)
        self.token = token
        self.canvas = create_app(token, seed)
        """Only to look at; a test acts through `control`, because the world belongs to the server's thread."""
        super().__init__(self.canvas, "canvas-sandbox")
        self.control = CanvasControl(self.url)

    def close(self) -> None:
        """Stop the server and wait for its thread."""
        self.control.close()
        super().close()
