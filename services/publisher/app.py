"""The publisher's HTTP surface."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from services.kit.http import operations_router
from services.publisher.bootstrap import Publisher
from services.publisher.intake.digests import digests_router
from services.publisher.intake.events import events_router
from services.publisher.intake.peoplesoft import peoplesoft_router
from services.publisher.intake.republish import republish_router
from services.publisher.intake.snapshot_desk import snapshot_desk_router
from services.publisher.intake.snapshots import snapshots_router
from services.publisher.intake.sources import sources_router


def create_app(publisher: Publisher) -> FastAPI:
    """All routes over one publisher, which lives as long as the app does."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await publisher.start()
        try:
            yield
        finally:
            await publisher.stop()

    # No generated API pages: they would be open to anybody who reaches the port.
    app = FastAPI(title="Enrollstream publisher", lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    parts = (publisher.sources, publisher.metrics, publisher.intake, publisher.budget, publisher.channels)
    app.include_router(peoplesoft_router(publisher.mirror, publisher.quarantine, *parts))
    app.include_router(events_router(publisher.mirror, *parts))
    extracts = (publisher.sources, publisher.metrics, publisher.extracts, publisher.budget, publisher.channels)
    app.include_router(snapshots_router(publisher.snapshots, *extracts))
    app.include_router(snapshot_desk_router(publisher.snapshots, publisher.operators))
    app.include_router(sources_router(publisher.channels, publisher.operators))
    app.include_router(republish_router(publisher.mirror, publisher.operators))
    app.include_router(digests_router(publisher.mirror, publisher.operators))
    app.include_router(operations_router(publisher.mirror.alive, publisher.mirror.ready, publisher.metrics.registry))
    return app
