"""The consumer's HTTP surface."""

from __future__ import annotations

from services.consumer.api.description import description_router
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
from services.consumer.bootstrap import Consumer
from services.kit.http import operations_router
from services.kit.openapi import API_VERSION, App, bearer

_ABOUT = """Operating the consumer: why a person has a seat or not, opening seats again, what the guard withholds, comparisons
with the LMS, overrides and their inverse, policies. `docs/api.md` tells how it is used.

Every call of a known caller leaves one row in the table `audit`, in the transaction of its effect; a call that cannot be audited
is not carried out. Ids of people travel in bodies only. Lists come in pages: `next_after` of one is `after` of the next."""
_OPERATOR = bearer("A secret of `OPERATIONS_CREDENTIALS_FILE`; its name there is the *actor* of the audit.")


def create_app(consumer: Consumer) -> App:
    """All routes over one consumer, which runs beside it: health is answered before the ledger is, and until the very end."""
    settings = consumer.settings
    app = App(title="Enrollstream consumer", version=API_VERSION, description=_ABOUT, access={"operator": _OPERATOR})
    reach = Reach(settings.topics, settings.tenant, settings.target, settings.max_replay_records)
    app.include_router(replay_router(consumer.desk, consumer.log, reach, consumer.replays.wake))
    app.include_router(trace_router(consumer.desk, settings.tenant))
    app.include_router(seat_router(consumer.desk, settings.target, settings.release_timers))
    app.include_router(hold_router(consumer.desk, consumer.policies))
    app.include_router(removal_router(consumer.desk, settings.tenant, settings.target))
    app.include_router(writing_router(consumer.desk, settings.target))
    app.include_router(roster_router(consumer.desk, consumer.policies))
    app.include_router(object_router(consumer.desk, consumer.policies, consumer.objects.kinds))
    app.include_router(override_router(consumer.desk, settings.tenant, consumer.policies))
    app.include_router(undo_router(consumer.desk, settings.tenant, consumer.policies))
    app.include_router(policy_router(consumer.desk, settings.tenant, settings.target))
    app.include_router(intake_router(consumer.desk, consumer.log))
    app.include_router(description_router(consumer.desk, app.openapi))
    app.include_router(
        operations_router(consumer.alive, consumer.ready, consumer.metrics.registry, consumer.intake.status.reasons)
    )
    return app
