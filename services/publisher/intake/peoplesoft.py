"""``POST /intake/peoplesoft``: where Integration Broker delivers.

Integration Broker takes 2xx as done and 503 as *try again*; any other answer stops the queue behind the message until a person
acts (PeopleTools, "Understanding HTTP Status Codes"). So there are two answers: 200 when the message is durable, poison
in quarantine included, and 503 when it is not. The one exception is 401, where a person has to act. Bodies are always small
well-formed XML, because handlers on the other side parse them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial

import structlog
from fastapi import APIRouter, Request, Response

from services.publisher.changes import Reject
from services.publisher.intake.answering import RETRY_AFTER_SECONDS, answer
from services.publisher.intake.body import Body, declared_bytes, read_body
from services.publisher.intake.budget import Budget
from services.publisher.intake.peoplesoft_answers import DESCRIPTION, success, try_again, unauthorized
from services.publisher.intake.ports import Callers, ChannelBook, IntakeSettings, Mirror, Poison, QuarantineStore
from services.publisher.metrics import Metrics
from services.publisher.translate.peoplesoft import Message, PeopleSoftContext, translate

log = structlog.get_logger()

SOURCE = "peoplesoft"
_TRY_AGAIN = partial(try_again, RETRY_AFTER_SECONDS)
_LARGE_BODY = 100 * 1024
"""Above this a message is parsed in a thread: the loop goes on answering while it takes its tenths of a second."""


def peoplesoft_router(
    accept: Mirror,
    quarantine: QuarantineStore,
    callers: Callers,
    metrics: Metrics,
    settings: IntakeSettings,
    budget: Budget,
    channels: ChannelBook,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> APIRouter:
    """The route, with everything that it needs."""
    router = APIRouter(tags=["intake"])
    intake = _Intake(accept, quarantine, callers, metrics, settings, budget, channels, clock)
    # Starlette's route answers: FastAPI's resolves and validates what there is not, which costs as much as the parsing of a row.
    router.add_route("/intake/peoplesoft", intake.answer, methods=["POST"])

    @router.post("/intake/peoplesoft", response_class=Response, **DESCRIPTION)
    async def peoplesoft(request: Request) -> Response:
        """Rowset messages as Integration Broker posts them, and pings. What cannot be used is a 200 too, and in quarantine."""
        return await intake.answer(request)  # for the description: the route above comes first

    return router


class _Intake:
    """Handles one delivery after the other; any number at a time."""

    def __init__(
        self,
        mirror: Mirror,
        quarantine: QuarantineStore,
        callers: Callers,
        metrics: Metrics,
        settings: IntakeSettings,
        budget: Budget,
        channels: ChannelBook,
        clock: Callable[[], datetime],
    ) -> None:
        self._mirror = mirror
        self._quarantine = quarantine
        self._callers = callers
        self._metrics = metrics
        self._settings = settings
        self._budget = budget
        self._channels = channels
        self._clock = clock
        self._large = asyncio.Semaphore(1)

    async def answer(self, request: Request) -> Response:
        """Never raises, and never answers anything but 200, 401 and 503."""
        return await answer(self._metrics, SOURCE, partial(self._handle, request), _TRY_AGAIN)

    async def _handle(self, request: Request) -> tuple[str, Response]:
        # 1. Who calls, before anything of the body is read.
        if self._callers.identify(request.headers.get("authorization")) is None:
            return "rejected_auth", unauthorized()
        # 2. What they say, if there is room for it.
        limit = self._settings.max_body_bytes
        with self._budget.share(declared_bytes(request, limit)) as share:
            body = await read_body(request, limit, self._settings.body_timeout_seconds, share.hold)
            return await self._take(body, dict(request.headers))

    async def _take(self, body: Body, headers: dict[str, str]) -> tuple[str, Response]:
        received_at = self._clock()
        if body.data is None:
            return await self._too_large(body)
        message = await self._translate(body.data, headers, received_at)
        if message.ping:
            return "ping", success("pong")
        self._metrics.last_message.labels(SOURCE).set(received_at.timestamp())
        self._channels.heard(message.channel, received_at)
        # 3. The good rows first: what is wrong with the others must not delay them.
        if message.changes:
            await self._mirror.accept(message.changes, SOURCE)
        if not message.rejects:
            return "accepted", success("accepted")
        await self._keep(message.channel, message.rejects, Poison(body.data, body.bytes, body.digest))
        return "quarantined", success(f"accepted; {len(message.rejects)} parts are in quarantine")

    async def _translate(self, body: bytes, headers: dict[str, str], received_at: datetime) -> Message:
        context = PeopleSoftContext(
            self._settings.tenant, received_at, self._settings.site_timezone, dialect=self._settings.dialect
        )
        if len(body) <= _LARGE_BODY:
            return translate(body, headers, context)
        async with self._large:  # one at a time: a parsed message takes several times its size in memory
            return await asyncio.to_thread(translate, body, headers, context)

    async def _too_large(self, body: Body) -> tuple[str, Response]:
        reject = Reject("too_large", f"more than {self._settings.max_body_bytes} bytes")
        await self._keep("ib:unknown", [reject], Poison(None, body.bytes, body.digest))
        return "too_large", success("too large; noted in quarantine, nothing was taken")

    async def _keep(self, channel: str, rejects: list[Reject], poison: Poison) -> None:
        await self._quarantine.put(channel, rejects, poison)
        for reject in rejects:
            self._metrics.quarantined.labels(SOURCE, reject.reason).inc()
        self._metrics.rows.labels(SOURCE, "quarantined").inc(sum(reject.columns is not None for reject in rejects))
        log.warning("intake_quarantined", channel=channel, reason=rejects[0].reason, count=len(rejects), bytes=poison.bytes)
