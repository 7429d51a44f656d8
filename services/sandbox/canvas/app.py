"""The sandbox as one ASGI application: control side, throttle, faults, authentication, routes, log."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from services.sandbox.canvas import errors, rendering, responses
from services.sandbox.canvas.addressing import find_section, find_user, parse
from services.sandbox.canvas.call import Call
from services.sandbox.canvas.clock import Clock
from services.sandbox.canvas.connection import TRANSPORT, reset
from services.sandbox.canvas.control import control_app
from services.sandbox.canvas.effects import Effect
from services.sandbox.canvas.errors import Refusal
from services.sandbox.canvas.faults import Faults, FaultSpec, Picked, Subject
from services.sandbox.canvas.incoming import Incoming, Receive, Scope, read
from services.sandbox.canvas.latest_calls import LatestCall, LatestCalls
from services.sandbox.canvas.page import page_app
from services.sandbox.canvas.paging import Links
from services.sandbox.canvas.parameters import boolean, text, tree
from services.sandbox.canvas.responses import Wire
from services.sandbox.canvas.routes import ROUTES
from services.sandbox.canvas.routing import Router
from services.sandbox.canvas.settings import Settings
from services.sandbox.canvas.state import Enrollment
from services.sandbox.canvas.throttle import Throttle
from services.sandbox.canvas.tokens import Token, Tokens
from services.sandbox.canvas.violations import Violation, check
from services.sandbox.canvas.world import World
from services.sandbox.canvas.writelog import Attempt, WriteLog

__all__ = ["Canvas", "Receive", "Scope", "Send", "create_app"]

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_WRITES = frozenset(f"enrollments.{verb}" for verb in ("create", "delete", "reactivate", "accept", "reject"))
_WITHOUT_ANSWER = frozenset({"hang", "reset"})


class Unanswered(Exception):
    """The connection hangs or is reset; there is nothing to send."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Canvas:
    """One Canvas. Everything runs on one event loop; a route changes the world without awaiting anything."""

    def __init__(self, seed: int = 0, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.clock = Clock()
        self.settings = Settings()
        self.world = World(self.clock, self.settings.assumptions)
        self.tokens = Tokens()
        self.throttle = Throttle(self.settings.throttle, monotonic)
        self._chance = random.Random(seed)  # noqa: S311  (faults must repeat, not be secret)
        self.faults = Faults(monotonic, self._chance)
        self.log = WriteLog()
        self.violations: list[Violation] = []
        self.calls: Counter[tuple[str, str]] = Counter()
        self.latest_calls = LatestCalls()
        self.in_flight = self.max_in_flight = 0
        self._router = Router(ROUTES)
        self._control = control_app(self)
        self._page = page_app(self)

    def add_token(self, secret: str, alias: str = "enrollstream", permissions: frozenset[str] | None = None) -> Token:
        """Let a client in, as a user of its own."""
        user = self.world.add_user(f"{alias} service")
        self.world.add_login(user, f"{alias}@service.invalid")
        token = Token(alias, user) if permissions is None else Token(alias, user, permissions)
        self.tokens.add(secret, token)
        return token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/_sandbox/"):
            await self._control(scope, receive, send)
        elif scope["path"] == "/" or scope["path"].startswith("/page/"):
            await self._page(scope, receive, send)
        else:
            await self._serve(await read(scope, receive, self._router), send)

    async def _serve(self, incoming: Incoming, send: Send) -> None:
        """1. reserve in the bucket, 2. work, 3. give back and charge, 4. answer: the order of the middleware upstream."""
        begun = time.monotonic()
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        attempt = self._attempt(incoming)
        reservation = self.throttle.enter(incoming.client, attempt.token)
        try:
            if reservation.refused:
                wire = self._throttled()
            else:
                picked = self._picked(incoming, attempt)
                if picked.spec and picked.spec.kind == "throttled":
                    reservation.refused = True
                wire = await self._work(incoming, picked, attempt)
        except Unanswered as unanswered:
            self._count(incoming, unanswered.kind, begun, attempt)
            await self._leave_unanswered(incoming, unanswered.kind)
            return
        finally:
            self.in_flight -= 1
            charged = self.throttle.leave(reservation, incoming.endpoint)
        self._count(incoming, str(wire.status), begun, attempt)
        attempt.status = wire.status
        attempt.answered = not _gone(incoming.scope)
        await _send(wire, charged | {"X-Request-Context-Id": incoming.request_id}, send)

    def _count(self, incoming: Incoming, outcome: str, begun: float, attempt: Attempt) -> None:
        self.calls[incoming.endpoint, outcome] += 1
        seconds = time.monotonic() - begun
        self.latest_calls.add(LatestCall(time.time(), incoming.method, incoming.endpoint, outcome, seconds, attempt.section))

    def _throttled(self) -> Wire:
        status, body = self.throttle.refusal()
        return Wire(status, body.encode(), responses.TEXT)

    def _picked(self, incoming: Incoming, attempt: Attempt) -> Picked:
        if not self.faults.any:
            return Picked()
        picked = self.faults.pick(Subject(incoming.method, incoming.endpoint, attempt.user, attempt.section))
        attempt.fault = picked.spec.kind if picked.spec else None
        return picked

    async def _work(self, incoming: Incoming, picked: Picked, attempt: Attempt) -> Wire:
        """Half the latency, then the change (unless a fault prevents it), then the other half."""
        latency = (self.settings.latency_ms + self._chance.random() * self.settings.jitter_ms) / 1000
        await _pause(latency / 2 + picked.delay_seconds)
        spec = picked.spec
        wire = self._applied(incoming, spec, attempt)
        await _pause(latency / 2)
        if spec and spec.kind in _WITHOUT_ANSWER:
            raise Unanswered(spec.kind)
        return responses.spoiled(wire, spec, self.world) if spec else wire

    def _applied(self, incoming: Incoming, spec: FaultSpec | None, attempt: Attempt) -> Wire:
        """Run the route unless the fault forbids it, and write the attempt into the log at this very moment."""
        effect = None
        if spec is None or spec.applies or spec.kind in ("unchanged", "pretend"):
            wire, effect = self._routed(incoming, spec)
        else:
            wire = self._throttled() if spec.kind == "throttled" else responses.of_status(spec)
        if incoming.endpoint in _WRITES:
            self._record(attempt, effect)
        return wire

    def _routed(self, incoming: Incoming, spec: FaultSpec | None) -> tuple[Wire, Effect | None]:
        try:
            token = self.tokens.authenticate(incoming.secret)
            if incoming.match is None:
                raise errors.not_found()
            if token.endpoints is not None and incoming.endpoint not in token.endpoints:
                raise errors.insufficient_scopes()
            if incoming.parameters is None:
                raise errors.bad_request()
            call = Call(
                self.world,
                self.settings,
                token,
                incoming.match.path,
                incoming.parameters,
                Links(incoming.origin + incoming.raw_path, incoming.query),
                incoming.origin,
            )
            answer = incoming.match.route.handler(call)
        except Refusal as refusal:
            return responses.of_json(refusal.status, refusal.body, refusal.headers), None
        body, effect = answer.body, call.effect
        if effect and spec and spec.kind in ("unchanged", "pretend"):
            effect.undo()
            body, effect = responses.take_back(body, effect.row, effect.before, spec), None
        if "json+canvas-string-ids" in incoming.headers.get("accept", ""):
            body = rendering.with_string_ids(body)
        return responses.of_json(answer.status, body, dict(answer.headers)), effect

    def _record(self, attempt: Attempt, effect: Effect | None) -> None:
        if effect:
            attempt.name(effect.row)
            attempt.applied, attempt.before, attempt.after = True, effect.before, effect.row.state
            attempt.followers = [row.id for row in effect.rows[1:]]
            self.world.journal.record(effect.rows)
        self.log.add(attempt)
        self.violations.extend(check(attempt, effect.row if effect else None))

    def _attempt(self, incoming: Incoming) -> Attempt:
        """What the call is about, as far as it can be told before it runs."""
        token = self.tokens.known(incoming.secret)
        attempt = Attempt(incoming.endpoint, incoming.method, token.alias if token else "unknown", incoming.request_id)
        if incoming.match is None:
            return attempt
        if incoming.endpoint not in _WRITES and not self.faults.any:
            return attempt  # only faults want to know whom a read is about
        parameters = incoming.parameters or {}
        wanted = tree(parameters, "enrollment")
        attempt.task = text(parameters, "task")
        attempt.asked_state = text(wanted, "enrollment_state")
        attempt.notify = boolean(wanted.get("notify"))
        path = incoming.match.path
        row = self._row(path.get("id"))
        if row:
            attempt.name(row)
        else:
            attempt.user = self._user_named(path.get("user") or text(wanted, "user_id") or text(parameters, "user_id"), token)
            attempt.section = self._section_named(path.get("section") or text(wanted, "course_section_id"))
        return attempt

    def _row(self, identity: str | None) -> Enrollment | None:
        return self.world.enrollments.get(int(identity)) if identity and identity.isascii() and identity.isdigit() else None

    def _user_named(self, named: str | None, token: Token | None) -> str | None:
        if named is None:
            return None
        user = find_user(self.world, named, token.user) if token else None
        login = user.login() if user else None
        address = parse(named)
        return (login.sis_user_id if login else None) or (address.value if address else named)

    def _section_named(self, named: str | None) -> str | None:
        if named is None:
            return None
        section = find_section(self.world, named)
        address = parse(named)
        return (section.sis_section_id if section else None) or (address.value if address else named)

    async def _leave_unanswered(self, incoming: Incoming, kind: str) -> None:
        """Reset the connection, or hold it until the client gives up."""
        transport = incoming.scope.get(TRANSPORT)
        if kind == "reset":
            if transport is None:
                raise ConnectionResetError("no transport to reset: this fault needs the server, not an in-process call")
            reset(transport)
        while (await incoming.receive())["type"] != "http.disconnect":
            pass


def _gone(scope: Scope) -> bool:
    transport = scope.get(TRANSPORT)
    return transport is not None and transport.is_closing()


async def _pause(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)


async def _send(wire: Wire, headers: dict[str, str], send: Send) -> None:
    combined = {"Content-Type": wire.content_type, "Content-Length": str(len(wire.body)), **wire.headers, **headers}
    encoded = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in combined.items()]
    await send({"type": "http.response.start", "status": wire.status, "headers": encoded})
    if wire.bytes_per_second:
        for byte in wire.body:
            await send({"type": "http.response.body", "body": bytes([byte]), "more_body": True})
            await asyncio.sleep(1 / wire.bytes_per_second)
        await send({"type": "http.response.body", "body": b""})
    else:
        await send({"type": "http.response.body", "body": wire.body})


def create_app(token: str | None = None, seed: int = 0) -> Canvas:
    """A new, empty Canvas; `token` gets every permission."""
    canvas = Canvas(seed)
    if token:
        canvas.add_token(token)
    return canvas
