"""What the tests of the operations API share: the routes over a real ledger, called in-process."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from schemas.topics import Topics
from services.consumer.api.desk import Desk
from services.consumer.api.holds import hold_router
from services.consumer.api.intake import intake_router
from services.consumer.api.objects import object_router
from services.consumer.api.overrides import override_router
from services.consumer.api.policies import policy_router
from services.consumer.api.removals import removal_router
from services.consumer.api.replays import Reach, replay_router
from services.consumer.api.rosters import roster_router
from services.consumer.api.seats import seat_router
from services.consumer.api.traces import trace_router
from services.consumer.api.undos import undo_router
from services.consumer.api.writing import writing_router
from services.consumer.ledger.policies import Policies
from services.consumer.metrics import Metrics
from services.consumer.replay.log import Bounds, Log, LogUnavailable, Reader
from services.kit.credentials import Callers
from services.kit.openapi import App
from tests.integration.consumer.ledger_support import START, TENANT, TIMERS, Ledger
from tests.openapi import Promise

MAX_RECORDS = 1000
OPS = "ops-secret"


class FixedLog:
    """A log whose enrollment topic has one partition with the offsets 10 to 49; every other topic is empty of partitions."""

    def __init__(self, topics: Topics) -> None:
        self._topic = topics.entity("enrollment")
        self.away = False

    def bounds(self, topic: str, partition: int) -> Bounds | None:
        if self.away:
            raise LogUnavailable("_TIMED_OUT")
        return Bounds("topic-id", 10, 50) if (topic, partition) == (self._topic, 0) else None

    def between(self, topic: str, since: datetime, until: datetime) -> Mapping[int, Bounds]:
        """Its records are of one minute, START's."""
        held = self.bounds(topic, 0)
        return {0: held} if held and since < START + timedelta(minutes=1) and until > START else {}

    def read(self, topic: str, partition: int, first: int, last: int) -> Reader:
        raise NotImplementedError("the routes only ask for bounds")


class Api:
    """The operations API of a consumer, with the callers `ops` and `desk`; without a `log` over a fixed one.

    Every answer is held to the API's own description.
    """

    def __init__(self, ledger: Ledger, folder: Path, topics: Topics | None = None, log: Log | None = None) -> None:
        self.credentials = folder / "operations"
        self.credentials.write_text(f"ops:{OPS}\ndesk:desk-secret\n")
        self.ledger = ledger
        self.topics = topics or Topics("test")
        self.log = FixedLog(self.topics)
        self.metrics = Metrics()
        self.wakes = 0
        desk = Desk(Callers(self.credentials), ledger.url, self.metrics)
        self.desk = desk
        app = App(access={})
        app.include_router(replay_router(desk, log or self.log, Reach(self.topics, TENANT, "canvas", MAX_RECORDS), self._wake))
        app.include_router(trace_router(desk, TENANT))
        app.include_router(seat_router(desk, "canvas", TIMERS))
        app.include_router(hold_router(desk, ledger.policies))
        app.include_router(removal_router(desk, TENANT, "canvas"))
        app.include_router(writing_router(desk, "canvas"))
        app.include_router(roster_router(desk, Policies("canvas")))
        app.include_router(object_router(desk, Policies("canvas"), {"course", "section", "person"}))
        app.include_router(override_router(desk, TENANT, ledger.policies))
        app.include_router(undo_router(desk, TENANT, ledger.policies))
        app.include_router(policy_router(desk, TENANT, "canvas"))
        app.include_router(intake_router(desk, log or self.log))
        self.app = app
        self.promise = Promise(app.openapi())

    def _wake(self) -> None:
        self.wakes += 1

    async def call(self, method: str, path: str, secret: str | None = OPS, **request: Any) -> httpx.Response:
        """One call with a bearer token; None sends none."""
        headers = {"Authorization": f"Bearer {secret}"} if secret else {}
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://consumer", headers=headers) as client:
            answer = await client.request(method, path, **request)
        self.promise.check(method, path, answer)
        return answer

    def audit(self) -> list[tuple[Any, ...]]:
        """(actor, action, outcome, detail), oldest first."""
        return self.ledger.rows("select actor, action, outcome, detail from audit where actor <> 'start' order by at")

    def count(self, action: str, result: str) -> float:
        name = "sis_operator_actions_total"
        return self.metrics.registry.get_sample_value(name, {"action": action, "result": result}) or 0
