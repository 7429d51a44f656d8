"""Stopping the line: where more records cannot be used than is believable, none is set aside until a person has looked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import structlog

from services.consumer.intake.flood import Flood, FloodGauge, Limit
from services.consumer.intake.ledger import Ledger, Session
from services.consumer.intake.reading import Reading
from services.consumer.intake.retry import Retry
from services.consumer.intake.status import Status
from services.consumer.ledger import stops
from services.consumer.ledger.offsets import LogPartition
from services.consumer.log.letters import Letter
from services.consumer.log.records import Place, Record
from services.consumer.metrics import Metrics
from services.consumer.settings import Settings

log = structlog.get_logger()

_LOOK_SECONDS = 1.0


class Flooded(Exception):
    """More records cannot be used than is believable."""

    def __init__(self, flood: Flood, reason: str) -> None:
        super().__init__(reason)
        self.flood = flood
        self.reason = reason


class Line:
    """Flows, or stands before one record of one partition."""

    def __init__(
        self, settings: Settings, reading: Reading, ledger: Ledger, retry: Retry, status: Status, metrics: Metrics
    ) -> None:
        self._gauge = FloodGauge(Limit(settings.dead_letter_limit, settings.dead_letter_window, settings.dead_letter_share))
        self._reading = reading
        self._ledger = ledger
        self._retry = retry
        self._status = status
        self._metrics = metrics

    @property
    def stopped(self) -> bool:
        """Whether nothing flows."""
        return self._status.stopped_by is not None

    def refuse_flood(self, records: Sequence[Record], letters: Sequence[Letter]) -> None:
        """Raises `Flooded` when setting these letters aside would be too much; the ledger then says so to everybody."""
        flood = self._gauge.flood(records, {letter.at for letter in letters})
        if flood is None:
            return
        reason = Counter(letter.reason for letter in letters if letter.record.place == flood.place).most_common(1)[0][0]
        place = self._reading.place(flood.place)
        stops.put(self._ledger.session().connection, place, flood.offset, flood.bad, flood.seen, reason)
        raise Flooded(flood, reason)

    def note(self, records: Sequence[Record], letters: Sequence[Letter]) -> None:
        """These are stored, those of the letters as dead ones."""
        self._gauge.note(records, {letter.at for letter in letters})

    def stop(self, flooded: Flooded) -> None:
        """Stand still."""
        flood = flooded.flood
        self._status.stopped_by, self._status.stopped_reason = flood, flooded.reason
        self._metrics.stopped.set(1)
        log.error(
            "intake_stopped",
            reason=flooded.reason,
            topic=flood.place.topic,
            partition=flood.place.partition,
            offset=flood.offset,
            count=flood.bad,
        )
        self._retry.later(_LOOK_SECONDS)

    def look(self) -> None:
        """A person may have said that it goes on. A new process, or whoever is assigned the partition next, tries by itself."""
        assert self._status.stopped_by is not None  # noqa: S101  (asked only while it stands)
        session = self._ledger.session()
        place = self._reading.place(self._status.stopped_by.place)
        stop = stops.of(session.connection, [place]).get(place)
        if stop is not None and stop.divert_before is None:
            self._retry.later(_LOOK_SECONDS)
            return
        self._gauge.begin_anew(self._status.stopped_by.place)
        self.allow(session, [place])
        self._start()

    def allow(self, session: Session, places: Collection[LogPartition]) -> None:
        """Begin to count anew in these partitions, and let pass what a person has let pass."""
        for place, stop in stops.of(session.connection, places).items():
            self._gauge.begin_anew(Place(place.topic, place.partition), stop.divert_before or 0)
            stops.remove(session.connection, [place])

    def forget(self, places: Collection[Place]) -> None:
        """These partitions are not ours any more."""
        self._gauge.forget(places)
        if self._status.stopped_by is not None and self._status.stopped_by.place in places:
            self._start()

    def _start(self) -> None:
        self._status.stopped_by = None
        self._metrics.stopped.set(0)
        log.info("intake_goes_on")
