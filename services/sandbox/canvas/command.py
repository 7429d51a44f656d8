"""Runs the Canvas sandbox until SIGTERM or Ctrl-C. It reads no environment variable. State is in memory and starts empty."""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
from pathlib import Path

from services.kit.credentials import SecretFile
from services.sandbox import children
from services.sandbox.canvas.app import Canvas, create_app
from services.sandbox.canvas.server import listening_socket, uvicorn_server


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what the command reads."""
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8082, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--token-file", type=Path, required=True, help="one line: the access token that gets every permission")
    parser.add_argument("--latency-ms", type=float, default=0, help="every call takes at least so long (default: %(default)s)")
    parser.add_argument("--jitter-ms", type=float, default=0, help="and up to so much longer (default: %(default)s)")
    parser.add_argument("--no-throttle", action="store_true", help="refuse nothing; the throttle's headers stay")
    parser.add_argument(
        "--refusal-status", type=int, choices=(403, 429), default=403, help="of throttled calls (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the chance in jitter and faults (default: %(default)s)")
    children.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Serve until stopped."""
    canvas = create_app(SecretFile(arguments.token_file).read(), arguments.seed)
    canvas.settings.latency_ms, canvas.settings.jitter_ms = arguments.latency_ms, arguments.jitter_ms
    canvas.settings.throttle.enabled = not arguments.no_throttle
    canvas.settings.throttle.refusal_status = arguments.refusal_status
    listener = listening_socket(arguments.host, arguments.port)
    if not arguments.outlive_parent:
        children.end_with_parent()
    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    children.announce(arguments.ready_file, url=f"http://{host}:{listener.getsockname()[1]}")
    return _serve(canvas, listener)


def _serve(canvas: Canvas, listener: socket.socket) -> int:
    """uvicorn ends on SIGTERM and SIGINT, then raises the signal once more for whoever else listens: nobody does here."""
    with contextlib.suppress(KeyboardInterrupt):
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.default_int_handler)
        uvicorn_server(canvas).run([listener])
    return 0
