"""A Canvas that costs as little as possible, so that a benchmark measures the caller: one process, a hand-written HTTP/1.1.

It knows enrollments only, makes users and sections up as they are named, and answers after a latency that can be set while it
runs. It keeps a log of every changing call with the moment of its answer (``CLOCK_MONOTONIC``, shared by all processes of the
machine). The throttle is the sandbox's. Everything else about Canvas is in `services.sandbox.canvas`.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import time
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qsl, unquote

import orjson
import uvloop

from services.sandbox.canvas.throttle import Reservation, Throttle, ThrottleSettings

_REASONS = {200: "OK", 403: "Forbidden", 404: "Not Found", 500: "Internal Server Error"}


@dataclass(slots=True)
class Settings:
    """What a benchmark sets with ``POST /_bench/settings``."""

    latency_seconds: float = 0.0
    failing: frozenset[str] = frozenset()
    """Users whose changes end in a 500, always."""
    throttled: bool = False
    cost: float = 0.15
    """Charged for each call, in the throttle's unit."""


@dataclass(slots=True)
class Canvas:
    """All state. A row is [id, section, user, type, state]."""

    settings: Settings = field(default_factory=Settings)
    rows: dict[tuple[str, str, str], list[Any]] = field(default_factory=dict)
    by_id: dict[str, list[Any]] = field(default_factory=dict)
    log: list[tuple[str, str, float, float, int]] = field(default_factory=list)
    """(method, user, received, answered, status) of every changing call."""
    calls: int = 0
    refused: int = 0
    throttle: Throttle = field(
        default_factory=lambda: Throttle(ThrottleSettings(high_water_mark=600, refusal_status=403), time.monotonic)
    )

    def answer(self, method: str, path: str, query: str, body: bytes) -> tuple[int, Any, str]:
        """Status, document and the user that a change was about (empty for a read)."""
        parts = path.removeprefix("/api/v1/").split("/")
        if parts[0] == "sections" and method == "GET":
            asked = dict(parse_qsl(query))
            key = (_sis_id(parts[1]), _sis_id(asked.get("user_id", "")), asked.get("type[]", ""))
            row = self.rows.get(key)
            return 200, [] if row is None else [_document(row)], ""
        if parts[0] == "sections" and method == "POST":
            form = dict(parse_qsl(body.decode()))
            user = _sis_id(form["enrollment[user_id]"])
            return self._change((_sis_id(parts[1]), user, form["enrollment[type]"]), form["enrollment[enrollment_state]"])
        row = self.by_id.get(parts[3]) if len(parts) > 3 else None
        if row is None:
            return 404, {"errors": [{"message": "The specified resource does not exist."}]}, ""
        wanted = (
            "active"
            if method == "PUT"
            else {"delete": "deleted", "inactivate": "inactive"}.get(dict(parse_qsl(query)).get("task", ""), "completed")
        )
        return self._change((row[1], row[2], row[3]), wanted)

    def _change(self, key: tuple[str, str, str], state: str) -> tuple[int, Any, str]:
        user = key[1]
        if user in self.settings.failing:
            return 500, {"errors": [{"message": "An error occurred."}]}, user
        row = self.rows.get(key)
        if row is None:
            row = self.rows[key] = [str(len(self.rows) + 1), *key, state]
            self.by_id[row[0]] = row
        row[4] = state
        return 200, _document(row), user

    def control(self, method: str, path: str, body: bytes) -> Any:
        """The benchmark's own side."""
        if path == "/_bench/settings" and method == "POST":
            wanted = orjson.loads(body)
            self.settings = Settings(**wanted | {"failing": frozenset(wanted.get("failing", ()))})
            self.throttle.settings.cost = self.settings.cost
            return {}
        if path == "/_bench/log":
            taken, self.log = self.log, []
            return taken
        if path == "/_bench/seed":
            self._seed(**orjson.loads(body))
        left = self.throttle.bucket(b"token").remaining
        return {"calls": self.calls, "refused": self.refused, "now": time.monotonic(), "left": left}

    def _seed(self, section: str, count: int) -> None:
        """Active students, with the ids that `bench.seeding` gives them."""
        for number in range(count):
            user = f"{number:08d}"
            row = ["1" + user, section, user, "StudentEnrollment", "active"]
            self.rows[section, user, row[3]] = self.by_id[row[0]] = row


def _sis_id(text: str) -> str:
    text = unquote(text)
    if text.startswith("hex:"):
        return bytes.fromhex(text.partition(":")[2].partition(":")[2]).decode()
    return text.partition(":")[2]


def _document(row: list[Any]) -> dict[str, Any]:
    identifier, section, user, kind, state = row
    return {
        "id": int(identifier),
        "course_id": 1,
        "course_section_id": 1,
        "user_id": 1,
        "type": kind,
        "role": kind,
        "enrollment_state": state,
        "sis_user_id": user,
        "sis_section_id": section,
        "sis_import_id": None,
    }


class Connection(asyncio.Protocol):
    """One kept-alive connection; one request at a time on it, as every client here does."""

    def __init__(self, canvas: Canvas) -> None:
        self._canvas = canvas
        self._received = b""
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, rest = self._received.partition(b"\r\n\r\n")
        if not blank:
            return
        length = 0
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if len(rest) < length:
            return
        self._received = rest[length:]
        method, address, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
        path, _, query = address.partition("?")
        if path.startswith("/_bench/"):
            self._send(200, orjson.dumps(self._canvas.control(method, path, rest[:length])), "application/json", {})
        else:
            self._call(method, path, query, rest[:length])

    def _call(self, method: str, path: str, query: str, body: bytes) -> None:
        canvas, received = self._canvas, time.monotonic()
        canvas.calls += 1
        reservation = canvas.throttle.enter(b"token") if canvas.settings.throttled else None
        if reservation is not None and reservation.refused:
            canvas.refused += 1
            status, text = canvas.throttle.refusal()
            self._send(status, text.encode(), "text/plain", canvas.throttle.leave(reservation, ""))
            return
        if canvas.settings.latency_seconds:
            self._loop.call_later(canvas.settings.latency_seconds, self._finish, method, path, query, body, received, reservation)
        else:
            self._finish(method, path, query, body, received, reservation)

    def _finish(self, method: str, path: str, query: str, body: bytes, received: float, reservation: Reservation | None) -> None:
        canvas = self._canvas
        status, document, user = canvas.answer(method, path, query, body)
        headers = canvas.throttle.leave(reservation, "") if reservation is not None else {}
        self._send(status, orjson.dumps(document), "application/json", headers)
        if user:
            canvas.log.append((method, user, received, time.monotonic(), status))

    def _send(self, status: int, body: bytes, kind: str, headers: dict[str, str]) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: {kind}\r\n{lines}content-length: {len(body)}\r\n\r\n"
        self._transport.write(head.encode() + body)


async def serve(port: int) -> None:
    """Until SIGTERM."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopped.set)
    canvas = Canvas()
    server = await loop.create_server(lambda: Connection(canvas), "127.0.0.1", port)
    await stopped.wait()
    server.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))
