"""An app with the intake routes over fakes, and a client that calls it in process."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import httpx

from services.kit.openapi import App
from services.publisher.intake.budget import Budget
from services.publisher.intake.events import events_router
from services.publisher.intake.peoplesoft import peoplesoft_router
from services.publisher.intake.ports import IntakeSettings
from services.publisher.metrics import Metrics
from tests.openapi import Promise
from tests.unit.publisher.fakes import FakeCallers, FakeChannels, FakeMirror, FakeQuarantine

AUTHORIZED = {"authorization": "Basic known"}
LIMIT = 200_000


@dataclass
class Intake:
    """Everything that a test of a route looks at."""

    mirror: FakeMirror = field(default_factory=FakeMirror)
    quarantine: FakeQuarantine = field(default_factory=FakeQuarantine)
    channels: FakeChannels = field(default_factory=FakeChannels)
    metrics: Metrics = field(default_factory=Metrics)
    settings: IntakeSettings = field(
        default_factory=lambda: IntakeSettings(
            "main", ZoneInfo("America/Chicago"), max_body_bytes=LIMIT, body_timeout_seconds=0.2
        )
    )

    max_requests: int = 100
    max_bytes: int = 100 * LIMIT

    def app(self) -> App:
        callers = FakeCallers({"Basic known": "campus"})
        parts = (callers, self.metrics, self.settings, Budget(self.max_requests, self.max_bytes, self.metrics), self.channels)
        app = App(access={})
        app.include_router(peoplesoft_router(self.mirror, self.quarantine, *parts, lambda: datetime.now(UTC)))
        app.include_router(events_router(self.mirror, *parts))
        return app

    def client(self) -> httpx.AsyncClient:
        """Every answer that it gets is held to its description."""
        app = self.app()
        promise = Promise(app.openapi())

        async def check(answer: httpx.Response) -> None:
            await answer.aread()
            promise.check(answer.request.method, answer.request.url.path, answer)

        return httpx.AsyncClient(
            transport=httpx.ASGITransport(app),
            base_url="http://publisher",
            headers=AUTHORIZED,
            event_hooks={"response": [check]},
        )

    def sample(self, name: str, **labels: str) -> float | None:
        """A metric now."""
        return self.metrics.registry.get_sample_value(name, labels)

    def requests(self, source: str, outcome: str) -> float:
        """How many deliveries were answered so."""
        return self.metrics.registry.get_sample_value("sis_intake_requests_total", {"source": source, "outcome": outcome}) or 0

    def quarantined(self, reason: str) -> float:
        """How many parts went to quarantine for this reason."""
        labels = {"source": "peoplesoft", "reason": reason}
        return self.metrics.registry.get_sample_value("sis_quarantined_total", labels) or 0
