"""Names the concrete classes of the consumer and puts them together; the only place that does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime

import psycopg
import structlog

from services.consumer.api.desk import Desk
from services.consumer.digests import DigestReader
from services.consumer.drive.driver import Driver
from services.consumer.drive.settings import suspect_seconds
from services.consumer.housekeeping import Housekeeping
from services.consumer.intake.service import Intake
from services.consumer.ledger import database, history, policies, writing
from services.consumer.ledger.policies import Policies
from services.consumer.log.ranges import RangeLog
from services.consumer.metrics import Metrics
from services.consumer.policy import model
from services.consumer.replay.runner import Pace, ReplayRunner
from services.consumer.settings import Settings
from services.consumer.targets.canvas.client import CanvasClient
from services.consumer.targets.canvas.objects import CanvasObjects
from services.consumer.targets.canvas.target import CanvasTarget
from services.kit.credentials import Callers, SecretFile
from services.kit.kafka import KafkaSettings

log = structlog.get_logger()

_ALIVE_SECONDS = 30
_RETRY_SECONDS = 1.0
_HISTORY_SECONDS = 0.1


class _Worker:
    """A part that works in a thread of its own, and what it died of. A daemon: a process that has to end is not held up."""

    def __init__(self, name: str, work: Callable[[], None], stop: Callable[[], None]) -> None:
        self.stop = stop
        self.error: BaseException | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self.error = error
            log.error("part_failed", operation=self._thread.name, exc_info=error)

    def start(self) -> None:
        self._thread.start()

    @property
    def running(self) -> bool:
        return self._thread.is_alive()

    def join(self, seconds: float) -> bool:
        """Whether it has ended."""
        if self._thread.ident is not None:
            self._thread.join(max(0.0, seconds))
        return not self.running


@dataclass
class Consumer:
    """The parts of one consumer process: a value with `run` and `stop`."""

    settings: Settings
    policy_text: str
    policies: Policies
    metrics: Metrics
    desk: Desk
    log: RangeLog
    target: CanvasTarget
    objects: CanvasObjects
    driver: Driver
    intake: Intake
    replays: ReplayRunner
    housekeeping: Housekeeping
    digests: DigestReader
    on_end: Callable[[], None] = lambda: None
    """Called when the end begins, asked for or not."""
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _prepared: bool = False
    _drives: bool = False

    def alive(self) -> dict[str, bool]:
        """What has to hold, or else only a new process helps. A ledger or an LMS that is away is none of it."""
        drives = time.monotonic() - self.driver.turned_at < _ALIVE_SECONDS
        return {"intake": not self._prepared or self.intake.pulse.alive(), "driver": not self._drives or drives}

    def ready(self) -> dict[str, bool]:
        """What has to hold before this process counts as ready."""
        return {"migrations": self._prepared, **self.intake.status.ready(), "not_stopping": not self._stopping.is_set()}

    def stop(self) -> None:
        """Ask `run` to end. From the event loop."""
        self._stopping.set()

    async def run(self) -> bool:
        """Work until `stop`, or until a part fails; false when one did.

        Ends within the time that is set, even if a part (Kafka's client, for example) does not: what is open then is found by the
        next process, as after a kill.
        """
        if not await self._prepare():
            await self.target.close()
            return True
        workers = [
            _Worker("intake", self.intake.run, self.intake.stop),
            _Worker("replays", self.replays.run, self.replays.stop),
            _Worker("housekeeping", self.housekeeping.run, self.housekeeping.stop),
            _Worker("digests", self.digests.run, self.digests.stop),
        ]
        for worker in workers:
            worker.start()
        driving = asyncio.create_task(self._drive())
        await self._until_stopped_or_failed(workers, driving)
        return await self._end(workers, driving)

    async def _prepare(self) -> bool:
        """Bring the ledger up to date, waiting for it as long as it takes; false when told to stop meanwhile.

        Raises `postgres.MigrationError` when the ledger does not fit this program.
        """
        while not self._stopping.is_set():
            try:
                await asyncio.to_thread(self._prepare_ledger)
            except psycopg.OperationalError as error:
                log.warning("ledger_away", exc_info=error)
                await _wait(self._stopping, _RETRY_SECONDS)
            else:
                self._prepared = True
                return not self._stopping.is_set()
        return False

    def _prepare_ledger(self) -> None:
        url = self.settings.database_url.get_secret_value()
        database.migrate(url)
        with database.connect(url) as connection:
            version = policies.ensure(connection, self.settings.tenant, self.policy_text)
            row = connection.execute(
                "select digest from policy where tenant = %s and version = %s", [self.settings.tenant, version]
            ).fetchone()
            log.info("policy_active", policy_version=version)
            if self.settings.start_in_shadow and writing.begin_in_shadow(connection, self.settings.target):
                log.warning("writes_nothing", target=self.settings.target, reason="in shadow until a term is switched live")
            if self.settings.policy_file is not None and row is not None and row[0] != policies.digest(self.policy_text):
                log.warning("policy_file_not_applied", policy_version=version, reason="apply it with: policy apply FILE")
            history.create_partitions(connection, datetime.now(UTC).date())

    async def _drive(self) -> None:
        """Not before Kafka was asked whether it remembers more than the ledger: what that wants may be old."""
        while not self.intake.status.history_known:
            if self._stopping.is_set():
                return
            await _wait(self._stopping, _HISTORY_SECONDS)
        self._drives = True
        await self.driver.run()

    async def _until_stopped_or_failed(self, workers: Collection[_Worker], driving: asyncio.Task[None]) -> None:
        while not self._stopping.is_set() and not driving.done() and all(worker.running for worker in workers):
            await _wait(self._stopping, 0.5)

    async def _end(self, workers: Collection[_Worker], driving: asyncio.Task[None]) -> bool:
        """Everything is told to stop at once, because each has something to finish; together they have `stop_seconds`."""
        self.on_end()
        end = time.monotonic() + self.settings.stop_seconds - 1
        failed = not self._stopping.is_set()
        self._stopping.set()
        for worker in workers:
            worker.stop()
        self.driver.stop()
        done, _ = await asyncio.wait([driving], timeout=max(0.0, end - time.monotonic()))
        if done and driving.exception() is not None:
            failed = True
            log.error("part_failed", operation="driver", exc_info=driving.exception())
        ended = [await asyncio.to_thread(worker.join, end - time.monotonic()) for worker in workers]
        await self.target.close()
        failed |= any(worker.error for worker in workers)
        in_time = bool(done) and all(ended)
        log.info("stopped", outcome="failed" if failed else "done" if in_time else "late")
        return not failed


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return


def consumer(settings: Settings, kafka: KafkaSettings) -> Consumer:
    """Build it; nothing is contacted yet. Raises `model.PolicyError` or `OSError` for a policy file that cannot be used."""
    policy_text = settings.policy_file.read_text(encoding="utf-8") if settings.policy_file else model.default_text()
    model.parse(policy_text)
    metrics = Metrics()
    url = settings.database_url.get_secret_value()
    rules = Policies(settings.target, settings.swap_settle_seconds)
    client = CanvasClient(settings.canvas_url, SecretFile(settings.canvas_token_file))
    target = CanvasTarget(client, settings.canvas_account, settings.call_timeout_seconds)
    objects = CanvasObjects(client, settings.canvas_account, settings.call_timeout_seconds)
    driver = Driver(settings, url, settings.target, target, rules, metrics, objects=objects)
    source = RangeLog(kafka, f"{settings.group_id}-replay")
    pace = Pace(suspect=suspect_seconds(settings), seats_per_second=settings.replay_seats_per_second)
    operators = settings.operations_credentials_file
    return Consumer(
        settings=settings,
        policy_text=policy_text,
        policies=rules,
        metrics=metrics,
        desk=Desk(Callers(operators) if operators else None, url, metrics),
        log=source,
        target=target,
        objects=objects,
        driver=driver,
        intake=Intake(settings, kafka, rules, metrics, driver.wake),
        replays=ReplayRunner(url, source, settings.topics, rules, metrics, driver.wake, pace),
        housekeeping=Housekeeping(url, rules, metrics, driver.wake, settings.release_timers, settings.history_months),
        digests=DigestReader(settings, kafka, metrics),
    )
