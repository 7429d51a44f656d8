"""The intake's loop: a member of the group that polls, stores what it has, and holds everything while ledger or log are away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection

import psycopg
import structlog

from schemas.topics import ENTITY_KINDS, Topics
from services.consumer.intake.batches import BATCH, Batches
from services.consumer.intake.catching_up import CatchingUp
from services.consumer.intake.ledger import Ledger
from services.consumer.intake.line import Flooded, Line
from services.consumer.intake.placing import Placing
from services.consumer.intake.pulse import Pulse
from services.consumer.intake.reading import Reading
from services.consumer.intake.retry import Retry
from services.consumer.intake.status import Status
from services.consumer.intake.telling import Telling
from services.consumer.intake.unparking import Unparking
from services.consumer.ledger.announcing import Handover
from services.consumer.ledger.offsets import OffsetConflict
from services.consumer.ledger.policies import Policies
from services.consumer.ledger.recovery import HistoryChanged
from services.consumer.log.events import EventLog
from services.consumer.log.letters import DeadLetters
from services.consumer.log.records import LogUnavailable, Place
from services.consumer.log.watch import Change, LogWatch
from services.consumer.metrics import Metrics
from services.consumer.settings import Settings
from services.kit.kafka import KafkaSettings

log = structlog.get_logger()

_POLL_SECONDS = 0.1
_SILENT_SECONDS = 15
_LAG_SECONDS = 5


class Reader:
    """Puts the parts together and turns. Made, run and closed by one thread.

    While the ledger is away the batch is held, the partitions are paused and polling goes on, so that the membership lives.
    """

    def __init__(
        self,
        settings: Settings,
        kafka: KafkaSettings,
        policies: Policies,
        metrics: Metrics,
        handover: Handover,
        ledger: Ledger,
        pulse: Pulse,
        status: Status,
    ) -> None:
        topics = Topics(settings.topic_prefix)
        self._settings = settings
        self._metrics = metrics
        self._ledger = ledger
        self._pulse = pulse
        self._status = status
        self._retry = Retry()
        self._reading = Reading()
        self._events = EventLog(kafka, settings.group_id, [topics.entity(kind) for kind in ENTITY_KINDS], metrics)
        self._letters = DeadLetters(kafka, topics.dead_letter)
        self._watch = LogWatch(kafka)
        self._line = Line(settings, self._reading, ledger, self._retry, status, metrics)
        self._telling = Telling(topics, self._reading, ledger, self._events, metrics, handover)
        self._placing = Placing(
            self._reading,
            ledger,
            self._line,
            self._events,
            self._retry,
            pulse,
            status,
            metrics,
            on_placed=self._placed,
            on_forgotten=self._forgotten,
        )
        self._catching_up = CatchingUp(ledger, self._placing)
        self._batches = Batches(
            topics,
            policies,
            self._reading,
            ledger,
            self._line,
            self._events,
            self._letters,
            self._telling,
            self._catching_up,
            status,
            metrics,
        )
        self._unparking = Unparking(topics, policies, ledger, self._telling)
        self._joined_at = 0.0
        self._checked_at = 0.0
        self._watched_at = 0.0
        self._lag_at = 0.0

    def run(self, stopping: threading.Event) -> None:
        """Work until told to stop; raises `LogFailed`, or a defect, when only a new process can go on."""
        while not stopping.is_set() and not (self._ledger.reach() and self._placing.review()):
            self._pulse.beat()
            stopping.wait(self._retry.next_seconds())
        if not stopping.is_set():
            self._events.join(self._placing)
            self._joined_at = time.monotonic()
        while not stopping.is_set():
            self._pulse.beat()
            self._turn()

    def close(self) -> None:
        """Leave the group."""
        self._events.close(wait_seconds=3)

    def _turn(self) -> None:
        polled = self._events.poll(BATCH, _POLL_SECONDS)
        self._reading.hold(polled.records)
        self._warn_when_never_assigned()
        self._observe_lag()
        self._watch_topics()
        if polled.lost_track:
            self._placing.abandon("offset is not in the log")
        elif not self._retry.due:
            if polled.records:
                # Of a partition that was assigned meanwhile.
                self._events.pause()
        elif self._status.misplaced:
            self._placing.find()
        elif (step := self._next_step()) is not None:
            self._attempt(step)

    def _next_step(self) -> Callable[[], None] | None:
        check_at = max(self._checked_at, self._batches.stored_at) + self._settings.offset_check_seconds
        steps = (
            (self._line.stopped, self._line.look),
            (self._telling.due, self._telling.positions),
            (self._status.assigned_once and not self._unparking.done, self._unparking.page),
            (self._catching_up.due, self._catching_up.look),
            (self._batches.due, self._batches.store_held),
            (time.monotonic() >= check_at, self._check),
        )
        return next((step for due, step in steps if due), None)

    def _attempt(self, step: Callable[[], None]) -> None:
        """Do a step that needs ledger and log; when either is away, hold everything and come back."""
        try:
            step()
        except OffsetConflict as error:
            self._metrics.offset_conflicts.inc()
            self._placing.abandon(f"the ledger has not seen what comes before, in {error}")
        except HistoryChanged:
            self._ledger.close()
            self._placing.abandon("the ledger is another database now")
        except Flooded as flooded:
            self._line.stop(flooded)
            self._events.pause()
        except (psycopg.Error, LogUnavailable) as error:
            self._hold(error)
        else:
            self._go_on()

    def _hold(self, error: Exception) -> None:
        if isinstance(error, LogUnavailable):
            log.warning("log_away", reason=str(error))
        else:
            self._ledger.lose(error)
        self._events.pause()
        self._retry.later()

    def _go_on(self) -> None:
        self._status.ledger_reachable = True
        if self._line.stopped:
            return
        if self._retry.begun:
            self._events.resume(but=self._reading.blocked)
        self._retry.over()

    def _check(self) -> None:
        self._checked_at = time.monotonic()
        self._placing.check()
        self._telling.activity(self._ledger.session())

    def _placed(self) -> None:
        self._telling.due = True
        self._catching_up.begin()

    def _forgotten(self, places: Collection[Place]) -> None:
        self._letters.forget(places)
        self._watch.forget()
        self._batches.show_waiting()

    # What is looked at now and then

    def _warn_when_never_assigned(self) -> None:
        if not self._status.assigned_once and time.monotonic() > self._joined_at + _SILENT_SECONDS:
            self._joined_at = time.monotonic()
            log.warning("no_assignment_yet", reason="broker too old for group.protocol=consumer, no such topic, or ACL")

    def _observe_lag(self) -> None:
        if time.monotonic() >= self._lag_at:
            self._lag_at = time.monotonic() + _LAG_SECONDS
            for topic, behind in self._events.lag(self._reading.positions).items():
                self._metrics.lag.labels(topic).set(behind)

    def _watch_topics(self) -> None:
        """Are these still the topics that we read, and as long as what we have read of them?"""
        if self._status.misplaced or not self._reading.positions:
            return
        if self._watch.asked:
            self._notice(self._watch.found())
        elif time.monotonic() >= self._watched_at + self._settings.log_check_seconds:
            self._watched_at = time.monotonic()
            self._watch.ask(self._reading.ids, self._reading.positions)

    def _notice(self, change: Change | None) -> None:
        if change is None:
            return
        if change.what != "topic_missing":
            self._placing.abandon(change.what)
        elif change.topic not in self._status.missing_topics:
            self._status.missing_topics.add(change.topic)
            self._metrics.log_faults.labels(change.what).inc()
            log.error("log_fault", reason=change.what, topic=change.topic)
