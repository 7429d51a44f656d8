"""Who hears of what the ledger has taken: Kafka (for lag tools, and as evidence), the drivers, and the metrics."""

from __future__ import annotations

from collections import Counter

import structlog

from schemas.topics import Topics
from services.consumer.intake.ledger import Ledger, Session
from services.consumer.intake.reading import Reading
from services.consumer.ledger import offsets
from services.consumer.ledger.announcing import Handover, tell
from services.consumer.ledger.starting import CommitMetadata
from services.consumer.ledger.storing import Batch, Stored
from services.consumer.log.events import EventLog
from services.consumer.log.records import Place
from services.consumer.metrics import Metrics
from services.kit.failpoints import failpoint

log = structlog.get_logger()


class Telling:
    """Says what is committed, never what is about to be."""

    def __init__(
        self,
        topics: Topics,
        reading: Reading,
        ledger: Ledger,
        events: EventLog,
        metrics: Metrics,
        handover: Handover,
    ) -> None:
        self._topics = topics
        self._reading = reading
        self._ledger = ledger
        self._events = events
        self._metrics = metrics
        self._handover = handover
        self._counted = 0
        self.due = False
        """Partitions were placed of which Kafka has not heard where they begin."""

    def positions(self) -> None:
        """Kafka hears where the partitions begin, and in which database: else an old commit would prove the same loss again."""
        session = self._ledger.session()
        metadata = CommitMetadata(session.identity, offsets.last_activity(session.connection)).encode()
        self._events.commit(self._reading.positions, metadata)
        self.due = False

    def stored(self, batch: Batch, stored: Stored) -> None:
        """Kafka hears of a batch, then the drivers hear of its work."""
        session = self._ledger.session()
        self._ledger.witness.saw(stored.activity)
        moved = {Place(span.place.topic, span.place.partition): span.end for span in batch.spans}
        self._reading.stored(moved)
        self._events.commit(moved, CommitMetadata(session.identity, stored.activity).encode())
        failpoint("consumer.after_commit")
        self._count(stored, batch)
        self.work(session, stored)

    def work(self, session: Session, stored: Stored) -> None:
        """The drivers hear of the seats that have work now."""
        tell(session.connection, stored.work, self._handover)

    def activity(self, session: Session) -> None:
        """The driver counts as well, and nobody commits for it. What it had counted at the last look is on disk by now."""
        if self._counted > self._ledger.witness.activity and self._reading.positions:
            self._ledger.witness.saw(self._counted)
            place, position = next(iter(self._reading.positions.items()))
            self._events.commit({place: position}, CommitMetadata(session.identity, self._counted).encode())
        self._counted = offsets.last_activity(session.connection)

    def _count(self, stored: Stored, batch: Batch) -> None:
        for (kind, what), count in Counter((arrival.key.kind, fate) for arrival, fate in stored.fates).items():
            self._metrics.events.labels(kind, what).inc(count)
        for arrival, fate in stored.fates:
            if fate == "hash_alarm":
                log.error(
                    "hash_alarm", kind=arrival.key.kind, topic=arrival.topic, partition=arrival.partition, offset=arrival.offset
                )
        for result, others in (("parked", batch.parked), ("undecodable", batch.undecodable)):
            for one in others:
                self._metrics.events.labels(self._topics.kind(one.place.topic) or "unknown", result).inc()
        for effect, count in stored.effects.items():
            self._metrics.decisions.labels(effect).inc(count)
