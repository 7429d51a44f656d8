"""Names the concrete classes of the publisher and puts them together; the only place that does."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from zoneinfo import ZoneInfo

from services.kit.credentials import Callers
from services.kit.kafka import KafkaSettings
from services.publisher.cadence_file import read_cadences
from services.publisher.channels import Channels
from services.publisher.dialect_file import read_dialect
from services.publisher.intake.budget import Budget, Room
from services.publisher.intake.ports import IntakeSettings
from services.publisher.intake.spool import Spool
from services.publisher.metrics import Metrics
from services.publisher.mirror.fold import fold, meaning
from services.publisher.mirror.writer import MirrorWriter
from services.publisher.quarantine import Quarantine
from services.publisher.returns import Returns
from services.publisher.returns_log import ReturnsLog
from services.publisher.settings import Settings
from services.publisher.snapshots.service import Snapshots
from services.publisher.translate.extract import Site


@dataclass(frozen=True, slots=True)
class Publisher:
    """The parts of one publisher process: a value with `start` and `stop`."""

    mirror: MirrorWriter
    returns: Returns
    quarantine: Quarantine
    snapshots: Snapshots
    channels: Channels
    sources: Callers
    operators: Callers | None
    intake: IntakeSettings
    spool: Spool
    budget: Budget
    metrics: Metrics

    async def start(self) -> None:
        """Waits for nothing outside: the process is alive at once and ready when the mirror is open."""
        await self.mirror.start()
        await self.quarantine.start()
        await self.returns.start()
        await self.snapshots.start()
        await self.channels.start()

    async def stop(self) -> None:
        """Finish what was taken."""
        await self.snapshots.stop()
        await self.channels.stop()
        await self.returns.stop()
        await self.mirror.stop()
        await self.quarantine.stop()


def publisher(settings: Settings, kafka: KafkaSettings) -> Publisher:
    """Build it; nothing is contacted yet."""
    metrics = Metrics()
    operators = settings.operations_credentials_file
    database_url = settings.database_url.get_secret_value()
    zone, dialect = ZoneInfo(settings.site_timezone), read_dialect(settings.peoplesoft_dialect_file)
    mirror = MirrorWriter(settings, kafka, fold, metrics, meaning=meaning)
    quarantine = Quarantine(
        database_url,
        settings.tenant,
        key_file=settings.quarantine_key_file,
        answer_within_seconds=settings.answer_within_seconds,
    )
    return Publisher(
        mirror=mirror,
        returns=Returns(
            mirror,
            partial(ReturnsLog, kafka, settings.topics, settings.returns_group_id),
            metrics,
            settings.republish_per_second,
        ),
        quarantine=quarantine,
        snapshots=Snapshots(
            mirror,
            quarantine,
            metrics,
            database_url,
            settings.tenant,
            Site(zone, dialect),
            settings.snapshot_max_absent_percent,
        ),
        channels=Channels(
            mirror.opened, database_url, settings.tenant, read_cadences(settings.source_cadence_file), zone, metrics
        ),
        sources=Callers(settings.intake_credentials_file),
        operators=Callers(operators) if operators else None,
        intake=IntakeSettings(
            personal=settings.personal,
            tenant=settings.tenant,
            site_timezone=zone,
            max_body_bytes=settings.max_body_bytes,
            body_timeout_seconds=settings.body_timeout_seconds,
            dialect=dialect,
        ),
        spool=Spool(
            Room(settings.max_snapshots_bytes, metrics.extract_bytes_in_hand),
            settings.max_snapshot_bytes,
            settings.snapshot_timeout_seconds,
        ),
        budget=Budget(settings.max_requests, settings.max_bodies_bytes, metrics),
        metrics=metrics,
    )
