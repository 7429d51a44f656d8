"""The LMS over HTTP: one address, form fields in, JSON out, and what a test lets go wrong in between."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import orjson

from services.sandbox.canvas.app import Receive, Scope, Send
from services.sandbox.canvas.connection import TRANSPORT, reset
from services.sandbox.canvas.parameters import nested
from tests.contract.consumer.targets.lab import Mishap
from tests.contract.consumer.targets.moodle_shaped.lms import CHANGES, Complaint, MoodleShapedLms

ADDRESS = "/webservice/rest/server.php"
_NOT_DONE: frozenset[Mishap | None] = frozenset({"lost", "ignored", "page", "fails"})


class Response(NamedTuple):
    """One HTTP answer."""

    body: bytes
    status: int = 200
    content_type: str = "application/json"


PAGE = Response(b"<!DOCTYPE html><html><body><h1>We will be back soon</h1></body></html>", content_type="text/html")


class MoodleShapedApp:
    """ASGI. Whatever it has to say, it says with status 200."""

    def __init__(self, lms: MoodleShapedLms, token: str) -> None:
        self.lms = lms
        self.token = token
        self.mishaps: deque[Mishap] = deque()
        """One each for the next changes."""
        self.after_change: Callable[[], None] = lambda: None
        """Called when a change was carried out, before it is answered."""
        self.instead: Response | None = None
        """Said to every call, which then does nothing."""
        self.hanging = False
        self.seconds_per_change = 0.01
        self.overlaps = 0
        """Changes that began while another one of the same person was under way."""
        self._under_way: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Without an answer the connection is reset."""
        fields = await _fields(receive)
        response = await self._response(fields) if scope["path"] == ADDRESS else PAGE._replace(status=404)
        if response is None:
            reset(scope[TRANSPORT])
            return
        headers = [(b"content-type", response.content_type.encode())]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await send({"type": "http.response.body", "body": response.body})

    async def _response(self, fields: dict[str, Any]) -> Response | None:
        format_, token, function = (fields.pop(name, None) for name in ("moodlewsrestformat", "wstoken", "wsfunction"))
        if self.hanging:
            await asyncio.Event().wait()
        if format_ != "json":
            return Response(b'<?xml version="1.0" encoding="UTF-8" ?>', content_type="application/xml")
        if token != self.token:
            return said(Complaint("invalidtoken").body)
        if self.instead is not None:
            return self.instead
        if function in CHANGES:
            return await self._change(function, fields)
        return self._carried_out(function, fields)

    async def _change(self, function: str, fields: dict[str, Any]) -> Response | None:
        mishap = self.mishaps.popleft() if self.mishaps else None
        if mishap == "hangs":
            await asyncio.Event().wait()
        async with self._alone(_people(fields)):
            await asyncio.sleep(self.seconds_per_change)
            answer = said(None) if mishap in _NOT_DONE else self._carried_out(function, fields)
            self.after_change()
        match mishap:
            case "lost" | "done_but_lost":
                return None
            case "page" | "done_but_page":
                return PAGE
            case "fails":
                return said(Complaint("dmlwriteexception").body)
        return answer

    def _carried_out(self, function: str, fields: dict[str, Any]) -> Response:
        try:
            return said(self.lms.call(function, fields))
        except Complaint as complaint:
            return said(complaint.body)

    @contextlib.asynccontextmanager
    async def _alone(self, people: Iterable[str]) -> AsyncIterator[None]:
        """Two changes of one person at once corrupt a real one; here they are noted."""
        changed = Counter(set(people))
        self.overlaps += sum(self._under_way[person] > 0 for person in changed)
        self._under_way += changed
        try:
            yield
        finally:
            self._under_way -= changed


async def _fields(receive: Receive) -> dict[str, Any]:
    """The form's fields; ``a[0][b]=1`` is nested."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return nested(parse_qsl(body.decode(), keep_blank_values=True))


def _people(fields: dict[str, Any]) -> list[str]:
    return [row["userid"] for rows in fields.values() for row in rows.values()]


def said(value: Any) -> Response:
    """An ordinary answer."""
    return Response(orjson.dumps(value))
