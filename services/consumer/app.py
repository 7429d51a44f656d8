"""The consumer's HTTP surface."""

from __future__ import annotations

from fastapi import FastAPI

from services.consumer.api.holds import hold_router
from services.consumer.api.intake import intake_router
from services.consumer.api.objects import object_router
from services.consumer.api.overrides import override_router
from services.consumer.api.policies import policy_router
from services.consumer.api.replays import Reach, replay_router
from services.consumer.api.rosters import roster_router
from services.consumer.api.seats import seat_router
from services.consumer.api.traces import trace_router
from services.consumer.api.undos import undo_router
from services.consumer.api.writing import writing_router
from services.consumer.bootstrap import Consumer
from services.kit.http import operations_router


def create_app(consumer: Consumer) -> FastAPI:
    """All routes over one consumer, which runs beside it: health is answered before the ledger is, and until the very end."""
    settings = consumer.settings
    # No generated API pages: they would be open to anybody who reaches the port.
    app = FastAPI(title="Enrollstream consumer", docs_url=None, redoc_url=None, openapi_url=None)
    reach = Reach(settings.topics, settings.tenant, settings.target, settings.max_replay_records)
    app.include_router(replay_router(consumer.desk, consumer.log, reach, consumer.replays.wake))
    app.include_router(trace_router(consumer.desk, settings.tenant))
    app.include_router(seat_router(consumer.desk, settings.target, settings.release_timers))
    app.include_router(hold_router(consumer.desk, settings.tenant, consumer.policies))
    app.include_router(writing_router(consumer.desk, settings.target))
    app.include_router(roster_router(consumer.desk, consumer.policies))
    app.include_router(object_router(consumer.desk, consumer.policies, consumer.objects.kinds))
    app.include_router(override_router(consumer.desk, settings.tenant, consumer.policies))
    app.include_router(undo_router(consumer.desk, settings.tenant, consumer.policies))
    app.include_router(policy_router(consumer.desk, settings.tenant, settings.target))
    app.include_router(intake_router(consumer.desk, consumer.log))
    app.include_router(
        operations_router(consumer.alive, consumer.ready, consumer.metrics.registry, consumer.intake.status.reasons)
    )
    return app
