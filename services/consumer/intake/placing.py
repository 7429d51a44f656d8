"""Where reading begins: at the ledger's offsets, never at Kafka's, and nowhere while neither can be asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence

import psycopg
import structlog

from services.consumer.intake.ledger import Ledger
from services.consumer.intake.line import Line
from services.consumer.intake.pulse import Pulse
from services.consumer.intake.reading import Reading
from services.consumer.intake.retry import LONGEST_SECONDS, Retry
from services.consumer.intake.status import Status
from services.consumer.ledger import offsets, recovery, starting
from services.consumer.ledger.offsets import LogPartition, OffsetConflict
from services.consumer.ledger.recovery import HistoryChanged
from services.consumer.ledger.starting import CommitMetadata, InKafka, Loss
from services.consumer.log.events import EventLog
from services.consumer.log.records import LogUnavailable, Place
from services.consumer.metrics import Metrics

log = structlog.get_logger()


class Placing:
    """A `Membership`: is told about assignments from within `EventLog.poll`. Belongs to the intake's thread."""

    def __init__(
        self,
        reading: Reading,
        ledger: Ledger,
        line: Line,
        events: EventLog,
        retry: Retry,
        pulse: Pulse,
        status: Status,
        metrics: Metrics,
        on_placed: Callable[[], None],
        on_forgotten: Callable[[Collection[Place]], None],
    ) -> None:
        """`on_placed`: Kafka has to hear where partitions begin. `on_forgotten`: these are not ours any more."""
        self._reading = reading
        self._ledger = ledger
        self._line = line
        self._events = events
        self._retry = retry
        self._pulse = pulse
        self._status = status
        self._metrics = metrics
        self._on_placed = on_placed
        self._on_forgotten = on_forgotten
        self._accounted: dict[LogPartition, Loss] = {}
        self._failed = 0
        self._rejoined_at = 0.0
        self._outdated = False
        """The client has read a topic that was made anew since."""

    def review(self) -> bool:
        """Ask Kafka what it remembers of this ledger, in all partitions and before anybody is told to act. False: not now."""
        try:
            found = self._in_kafka(self._events.places())
            session = self._ledger.session()
            with self._pulse.long_step():
                self._accounted = starting.review(session.connection, found, session.identity, self._ledger.suspect_seconds)
        except LogUnavailable as error:
            log.warning("log_away", reason=str(error))
            return False
        except (psycopg.Error, HistoryChanged) as error:
            self._ledger.lose(error)
            return False
        self._status.history_known = True
        return True

    # Called from within a poll

    def assigned(self, places: Sequence[Place]) -> Mapping[Place, int] | None:
        """Begin at the ledger's offsets; None, and nothing is read, while they cannot be known."""
        try:
            starts = self._starts(places) if places else {}
        except (psycopg.Error, HistoryChanged, LogUnavailable) as error:
            log.warning("assignment_not_placed", count=len(places), exc_info=error)
            self._ledger.close()
            self._status.misplaced = True
            self._failed += 1
            self._retry.not_before(time.monotonic() + min(2 ** (self._failed - 1), LONGEST_SECONDS))
            return None
        if self._status.misplaced:
            return None
        self._failed = 0
        self._status.assigned_once = True
        self._reading.positions |= starts
        if self._reading.positions:
            self._on_placed()
        self._metrics.assigned.set(len(self._reading.positions))
        log.info("partitions_assigned", count=len(places))
        return starts

    def revoked(self, places: Sequence[Place]) -> None:
        """What was read of them and not stored is read by whoever has them now."""
        self._let_go(places)
        log.info("partitions_revoked", count=len(places))

    # Called between polls

    def abandon(self, reason: str) -> None:
        """Drop what was read and have every partition placed anew. At most once a second: it disturbs the whole group."""
        log.warning("intake_rejoins", reason=reason)
        self._let_go(list(self._reading.positions))
        self._status.misplaced = True
        self._events.pause()
        self._retry.not_before(self._rejoined_at + 1)

    def find(self) -> None:
        """Rejoin. The ledger is asked first: an assignment that cannot be placed would only be paused again."""
        if not self._ledger.reach():
            self._retry.later()
            return
        self._rejoined_at = time.monotonic()
        self._retry.over()
        self._let_go(list(self._reading.positions))
        self._status.misplaced = False
        if self._outdated:
            self._outdated = False
            self._events.renew()
        else:
            self._events.rejoin()

    def check(self) -> None:
        """Is the ledger still where we left it? An idle member that lost it must not wait for the next record to notice.

        Raises `OffsetConflict` or `HistoryChanged`.
        """
        session = self._ledger.session()
        recovery.check_session(session.connection, session.identity)
        expected = {self._reading.place(place): position for place, position in self._reading.positions.items()}
        found = offsets.stored(session.connection, list(expected))
        wrong = [place for place, position in expected.items() if found.get(place) != position]
        if wrong:
            raise OffsetConflict(wrong)

    def ends(self) -> dict[LogPartition, int]:
        """Where all partitions end now, not only ours; raises `LogUnavailable`."""
        return {place: one.high for place, one in self._in_kafka(self._events.places()).items()}

    def _let_go(self, places: Collection[Place]) -> None:
        self._reading.forget(places)
        self._line.forget(places)
        self._on_forgotten(places)
        self._metrics.assigned.set(len(self._reading.positions))

    def _starts(self, places: Sequence[Place]) -> dict[Place, int]:
        """Kafka is asked first, then the ledger: another member's progress in between must not look like a loss of ours."""
        found = self._in_kafka(places)
        if self._outdated:
            raise LogUnavailable("a topic was made anew, which this client cannot read")
        if len(found) < len(places):
            raise LogUnavailable("topic ids unknown")
        session = self._ledger.session()
        with self._pulse.long_step():
            placed = starting.begin(session.connection, found, session.identity, self._ledger.suspect_seconds, self._accounted)
        for place in found:
            self._accounted.pop(place, None)
        self._status.missing_topics -= {place.topic for place in places}
        self._say(placed)
        self._line.allow(session, list(found))
        return {Place(place.topic, place.partition): offset for place, offset in placed.starts.items()}

    def _in_kafka(self, places: Sequence[Place]) -> dict[LogPartition, InKafka]:
        """What Kafka knows of those whose topic has an id; raises `LogUnavailable`."""
        ids = self._events.topic_ids()
        self._outdated |= any(self._reading.ids.get(topic, identity) != identity for topic, identity in ids.items())
        self._reading.ids |= ids
        return {
            self._reading.place(place): InKafka(known.committed, CommitMetadata.decode(known.metadata), known.low, known.high)
            for place, known in self._events.known([place for place in places if place.topic in ids]).items()
        }

    def _say(self, placed: starting.Placed) -> None:
        for place, loss in placed.losses.items():
            self._metrics.log_faults.labels(loss).inc()
            log.error("log_fault", reason=loss, topic=place.topic, partition=place.partition, offset=placed.starts[place])
        for place in placed.added:
            log.warning("partition_added", topic=place.topic, partition=place.partition, offset=placed.starts[place])
