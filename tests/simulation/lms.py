"""A faulty Canvas: the sandbox's own model behind a transport on which requests hang, break, land late or come back spoiled.

What the server does with a request does not depend on whether its caller still lives. Every write is shown to `on_write` at the
moment when it takes effect, with what was known when it was sent.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote

import aiohttp
import httpx

from services.sandbox.canvas.app import Canvas
from services.sandbox.canvas.faults import FaultSpec
from services.sandbox.canvas.writelog import Attempt, WriteLog
from tests.simulation.fibers import Process, Scheduler

ORIGIN = "http://canvas.invalid"
SECRET = "simulated-token"
SPOILED = ("html", "redirect", "empty", "truncated", "other_user", "unchanged", "throttled", "foreign_link")
FATES = ("reset", "hang", "gateway", "error", "unreachable", "slow", "small_pages", *SPOILED)


class SeatName(NamedTuple):
    """One row of Canvas by SIS ids."""

    section: str
    user: str
    role: str


class Sent(NamedTuple):
    """One request on its way."""

    process: Process
    request: httpx.Request
    body: bytes
    at: float
    seat: SeatName | None
    """What it would change; None for reads."""
    known: Any
    """What the checker knew of the seat when it was sent."""


class _Log(WriteLog):
    def __init__(self, tell: Callable[[Attempt], None]) -> None:
        super().__init__()
        self._tell = tell

    def add(self, attempt: Attempt) -> None:
        super().add(attempt)
        self._tell(attempt)


class Lms:
    """One Canvas and the way to it."""

    def __init__(self, scheduler: Scheduler, seed: int, late_seconds: float, call_seconds: float) -> None:
        self.scheduler = scheduler
        self.canvas = Canvas(seed, lambda: scheduler.now + 1000.0)
        self.canvas.add_token(SECRET)
        self.canvas.settings.throttle.enabled = False
        self.canvas.log = _Log(self._wrote)
        self.fates: dict[str, float] = {}
        """Probability of each fate of a request; the rest is answered as it should be."""
        self.down_until = 0.0
        self.bites: Callable[[str], None] = lambda _name: None
        self.violated: Callable[[str, str], None] = lambda _rule, _detail: None
        self.on_write: Callable[[Attempt, SeatName, Sent], None] = lambda *_: None
        self.on_send: Callable[[Sent], None] = lambda _sent: None
        self.know: Callable[[SeatName], Any] = lambda _seat: None
        self.requests: Counter[str] = Counter()
        self.doubtful: set[SeatName] = set()
        """Written, and the sender never heard what became of it, until it asked."""
        self._asked: dict[tuple[str, str], float] = {}
        """When somebody last asked for a person's rows in a section."""
        self._late, self._timeout = late_seconds, call_seconds
        self._current: Sent | None = None

    def transport(self, process: Process) -> httpx.AsyncBaseTransport:
        return _Transport(self, process)

    # --- objects ---

    def add_user(self, sis_id: str) -> None:
        if sis_id not in self.canvas.world.logins_by_sis:
            user = self.canvas.world.add_user(f"Person {sis_id}")
            self.canvas.world.add_login(user, f"{sis_id}@example.invalid", sis_id)

    def add_section(self, sis_id: str, course: str) -> None:
        world = self.canvas.world
        if sis_id not in world.sections_by_sis:
            found = world.courses_by_sis.get(course) or world.add_course(course, course)
            world.add_section(found, sis_id, sis_id)

    def crosslist(self, section: str, course: str) -> bool:
        """Move a section into another course; whether it moved."""
        world = self.canvas.world
        found = world.sections_by_sis.get(section)
        target = world.courses_by_sis.get(course) or world.add_course(course, course)
        if found is None or found.course is target:
            return False
        world.move_section(found, target)
        return True

    def states(self) -> dict[SeatName, str]:
        """What Canvas holds now."""
        found = {}
        for row in self.canvas.world.enrollments.values():
            login = row.user.login()
            name = SeatName(row.section.sis_section_id or "", (login and login.sis_user_id) or "", row.role.name)
            found[name] = row.state
        return found

    # --- one request ---

    async def send(self, process: Process, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        seat = self._seat(request, body)
        sent = Sent(process, request, body, self.scheduler.now, seat, self.know(seat) if seat else None)
        self.requests[request.method] += 1
        if f"{request.url.scheme}://{request.url.host}" != ORIGIN:
            self.violated("I19", f"a request to {request.url.host}")
            raise httpx.ReadError("simulated")
        self._note(sent)
        self.on_send(sent)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        arrives = self._decide(sent, future, asyncio.get_running_loop())
        answered = False
        try:
            status, headers, content = await future
            answered = status not in (408, 499, 502, 504)
        finally:
            if not answered and arrives and sent.seat is not None and not self._asked_since(sent.seat, sent.at):
                self.doubtful.add(sent.seat)
        return httpx.Response(status, headers=headers, content=content, request=request)

    def _note(self, sent: Sent) -> None:
        """A write of unknown outcome is read back before the next one (I18)."""
        if sent.seat is not None:
            if sent.seat in self.doubtful:
                self.violated("I18", f"a change of unknown outcome was repeated without a read: {sent.seat}")
            return
        words = sent.request.url.path.split("/")
        if words[-1] == "enrollments" and words[3] == "sections":
            user = sent.request.url.params.get("user_id", "")
            self._answered(_sis(words[4]), _sis(user))
        elif len(words) > 5 and words[5] == "enrollments":
            row = self.canvas.world.enrollments.get(int(words[6]))
            if row is not None:
                self._answered(*self._name(row)[:2])

    def _answered(self, section: str, user: str) -> None:
        """A list of a person's rows in a section shows all of them."""
        self.doubtful = {seat for seat in self.doubtful if seat[:2] != (section, user)}
        self._asked[section, user] = self.scheduler.now

    def _asked_since(self, seat: SeatName, at: float) -> bool:
        """A sender that stood still may learn late that it heard nothing: another has taken its seats over and asked by then."""
        return self._asked.get(seat[:2], -1.0) > at

    def _seat(self, request: httpx.Request, body: bytes) -> SeatName | None:
        if request.method == "GET":
            return None
        words = request.url.path.split("/")
        world = self.canvas.world
        if request.method == "POST":
            form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
            role = form["enrollment[type]"]
            if "enrollment[role_id]" in form:
                role = world.roles[int(form["enrollment[role_id]"])].name
            return SeatName(_sis(words[4]), _sis(form["enrollment[user_id]"]), role)
        row = world.enrollments.get(int(words[6]))
        return self._name(row) if row is not None else None

    @staticmethod
    def _name(row: Any) -> SeatName:
        login = row.user.login()
        return SeatName(row.section.sis_section_id, login.sis_user_id, row.role.name)

    def _decide(self, sent: Sent, future: asyncio.Future[Any], loop: asyncio.AbstractEventLoop) -> bool:
        """Choose its fate. False: there was no connection, so that Canvas never gets it, which its sender knows."""
        chance = self.scheduler.random
        fate = self._fate(sent)
        if fate != "ok":
            self.bites(f"canvas {fate}")
        takes = chance.uniform(0.005, 0.08)
        apply, answer = takes, takes * 2
        if fate == "slow":
            answer = chance.uniform(takes, self._timeout * 0.95)
        if fate == "unreachable":
            error = httpx.ConnectTimeout("simulated")
            error.__cause__ = aiohttp.ClientConnectorError(None, OSError())  # type: ignore[arg-type]
            self._later(takes, lambda: _settle(loop, future, error=error))
            return False
        if fate in ("reset", "hang", "gateway"):
            how = chance.choice(("never", "now", "late")) if sent.seat is not None else "now"
            if how == "late":
                self.bites(f"canvas applied late after {fate}")
                apply = chance.uniform(takes, self._late)
            if how != "never":
                self._later(apply, lambda: _discard(self._serve(sent, None)))
            if fate == "reset":
                self._later(
                    chance.uniform(takes, self._timeout * 0.9), lambda: _settle(loop, future, error=httpx.ReadError("simulated"))
                )
            elif fate == "gateway":
                page = (chance.choice((502, 504)), [(b"content-type", b"text/html")], b"<html>gateway</html>")
                self._later(chance.uniform(takes, self._timeout * 0.9), lambda: _settle(loop, future, page))
            return True
        spec = None
        if fate == "error":
            spec = FaultSpec(kind="status", status=chance.choice((500, 503)), apply=chance.random() < 0.5)
        elif fate in SPOILED:
            spec = FaultSpec(kind=fate)

        def work() -> None:
            made = self._serve(sent, spec, small_pages=fate in ("small_pages", "foreign_link"))
            self._later(max(0.0, answer - takes), lambda: _settle(loop, future, made))

        self._later(apply, work)
        return True

    def _later(self, seconds: float, function: Callable[[], None]) -> None:
        self.scheduler.call_later(seconds, function)

    def _fate(self, sent: Sent) -> str:
        if self.scheduler.now < self.down_until:
            return "unreachable"
        if not self.fates:
            return "ok"
        dice = self.scheduler.random.random()
        for fate, probability in self.fates.items():
            dice -= probability
            if dice < 0:
                return fate
        return "ok"

    def _serve(
        self, sent: Sent, spec: FaultSpec | None, small_pages: bool = False
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """The server's work, at this very moment."""
        url = sent.request.url
        query = url.query.replace(b"per_page=100", b"per_page=1") if small_pages else url.query
        scope = {
            "type": "http",
            "method": sent.request.method,
            "path": unquote(url.path),
            "raw_path": url.raw_path.partition(b"?")[0],
            "query_string": query,
            "headers": [(name.lower(), value) for name, value in sent.request.headers.raw],
            "scheme": url.scheme,
            "client": ("127.0.0.1", 1),
        }
        messages: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": sent.body, "more_body": False}

        async def send(message: Any) -> None:
            messages.append(message)

        fault = self.canvas.faults.add(spec) if spec else None
        self._current = sent
        try:
            running = self.canvas(scope, receive, send)
            try:
                running.send(None)
            except StopIteration:
                pass
            else:
                raise AssertionError("the sandbox waited for something")
        finally:
            self._current = None
            if fault is not None:
                self.canvas.faults.remove(fault.id)
        body = b"".join(message.get("body", b"") for message in messages[1:])
        return messages[0]["status"], messages[0]["headers"], body

    def _wrote(self, attempt: Attempt) -> None:
        sent = self._current
        if sent is None or not attempt.applied:
            return
        self.on_write(attempt, SeatName(str(attempt.section), str(attempt.user), str(attempt.role)), sent)


class _Transport(httpx.AsyncBaseTransport):
    def __init__(self, lms: Lms, process: Process) -> None:
        self._lms = lms
        self._process = process

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._lms.send(self._process, request)


def _settle(loop: Any, future: asyncio.Future[Any], result: Any = None, error: BaseException | None = None) -> None:
    def settle() -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)

    if loop.process.alive:
        loop.call_soon_threadsafe(settle)


def _sis(address: str) -> str:
    return unquote(address).rpartition(":")[2]


def _discard(_value: object) -> None:
    pass
