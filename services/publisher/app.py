"""The publisher's HTTP surface."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from services.kit.http import operations_router
from services.kit.openapi import API_VERSION, App, bearer
from services.publisher.bootstrap import Publisher
from services.publisher.intake.description import description_router
from services.publisher.intake.digests import digests_router
from services.publisher.intake.events import events_router
from services.publisher.intake.peoplesoft import peoplesoft_router
from services.publisher.intake.republish import republish_router
from services.publisher.intake.snapshot_desk import snapshot_desk_router
from services.publisher.intake.snapshots import snapshots_router
from services.publisher.intake.sources import sources_router

_ABOUT = """Where student information systems deliver, and operating the mirror. `docs/intake.md` and `docs/api.md` tell how it is
used.

A delivery is answered with 2xx when it is committed in the mirror and in Kafka. Repeating one is harmless."""
_OPERATOR = bearer("A secret of `OPERATIONS_CREDENTIALS_FILE`.")
_SOURCE = {"type": "http", "scheme": "basic", "description": "A name and its secret of `INTAKE_CREDENTIALS_FILE`."}


def create_app(publisher: Publisher) -> App:
    """All routes over one publisher, which lives as long as the app does."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        await publisher.start()
        try:
            yield
        finally:
            await publisher.stop()

    access = {"operator": _OPERATOR, "source": _SOURCE}
    app = App(title="Enrollstream publisher", version=API_VERSION, description=_ABOUT, access=access, lifespan=lifespan)
    parts = (publisher.sources, publisher.metrics, publisher.intake, publisher.budget, publisher.channels)
    app.include_router(peoplesoft_router(publisher.mirror, publisher.quarantine, *parts))
    app.include_router(events_router(publisher.mirror, *parts))
    extracts = (
        publisher.sources,
        publisher.metrics,
        publisher.intake.tenant,
        publisher.spool,
        publisher.budget,
        publisher.channels,
    )
    app.include_router(snapshots_router(publisher.snapshots, *extracts))
    app.include_router(snapshot_desk_router(publisher.snapshots, publisher.operators))
    app.include_router(sources_router(publisher.channels, publisher.operators))
    app.include_router(republish_router(publisher.mirror, publisher.operators))
    app.include_router(digests_router(publisher.mirror, publisher.operators))
    app.include_router(description_router(publisher.operators, app.openapi))
    app.include_router(operations_router(publisher.mirror.alive, publisher.mirror.ready, publisher.metrics.registry))
    return app
