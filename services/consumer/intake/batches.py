"""What is in hand, stored: a batch in one transaction, each record that cannot be used set aside without hurting the others."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

import psycopg
import structlog

from schemas.topics import Topics
from services.consumer.intake.catching_up import CatchingUp
from services.consumer.intake.ledger import Ledger
from services.consumer.intake.line import Flooded, Line
from services.consumer.intake.reading import Reading, before, set_aside, sort_out, without_repetition
from services.consumer.intake.status import Status
from services.consumer.intake.telling import Telling
from services.consumer.ledger import storing
from services.consumer.ledger.offsets import OffsetConflict
from services.consumer.ledger.policies import Policies
from services.consumer.ledger.recovery import HistoryChanged
from services.consumer.ledger.storing import Batch, Stored
from services.consumer.log.events import EventLog
from services.consumer.log.letters import DeadLetters, Letter
from services.consumer.log.records import Coordinates, LogFailed, LogUnavailable, Place, Record
from services.consumer.metrics import Metrics
from services.kit.failpoints import failpoint
from services.kit.postgres import Plans

log = structlog.get_logger()

BATCH = 500
"""Records in one transaction."""
REFUSED = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded)
"""The database refuses the data itself: trying again cannot help."""
_LETTER_WAIT_SECONDS = 0.5
_LETTER_RETRY_SECONDS = 1.0


class Batches:
    """Stores what `Reading` has in hand. Belongs to the intake's thread."""

    def __init__(
        self,
        topics: Topics,
        policies: Policies,
        reading: Reading,
        ledger: Ledger,
        line: Line,
        events: EventLog,
        letters: DeadLetters,
        telling: Telling,
        catching_up: CatchingUp,
        status: Status,
        metrics: Metrics,
    ) -> None:
        self._topics = topics
        self._policies = policies
        self._reading = reading
        self._ledger = ledger
        self._line = line
        self._events = events
        self._letters = letters
        self._telling = telling
        self._catching_up = catching_up
        self._status = status
        self._metrics = metrics
        self._plans = Plans()
        self._letters_at = 0.0
        self._letter_wait = _LETTER_WAIT_SECONDS
        self.stored_at = 0.0
        """When the ledger last took a batch: it was where we believed it to be (monotonic seconds)."""

    @property
    def due(self) -> bool:
        """Whether there is anything to store, or a letter to ask for again."""
        return bool(self._reading.next(1)) or (bool(self._reading.blocked) and time.monotonic() >= self._letters_at)

    def store_held(self) -> None:
        """Store all that is in hand. Raises `Flooded`, and what says that ledger or log are away or are others."""
        waited: set[Place] = set()
        if time.monotonic() >= self._letters_at:
            waited, self._reading.blocked = self._reading.blocked, set()
        # Who has waited before has had its moment; the others must not wait for it again and again.
        self._letter_wait = 0.0 if waited else _LETTER_WAIT_SECONDS
        while records := self._reading.next(BATCH):
            # What the lost history had told the LMS may have come from any version: each is decided, and its seats are known.
            self._store(without_repetition(records) if self._catching_up.needed else records)
        if waited - self._reading.blocked:
            self._events.resume(but=self._reading.blocked)
        self.show_waiting()

    def show_waiting(self) -> None:
        """How many partitions stand still for a dead letter, for those who look at this process."""
        self._status.letters_wait = bool(self._reading.blocked)
        self._metrics.letters_waiting.set(len(self._reading.blocked))

    def _store(self, records: Sequence[Record]) -> None:
        """Store the records. One that cannot be used goes to the dead letters, and the others do not suffer for it."""
        records = [record for record in records if record.place not in self._reading.blocked]
        if not records:
            return
        try:
            batch, letters = sort_out(records, self._reading, self._topics)
            if missing := self._without_letter(records, letters):
                self._store(before(records, missing))
                self._block({place for place, _ in missing})
                return
            stored = self._transaction(batch)
        except Exception as error:
            if not _is_the_records_fault(error):
                raise
            if len(records) > 1:
                middle = len(records) // 2
                self._store(records[:middle])
                self._store(records[middle:])
            else:
                self._set_aside(records[0], error)
        else:
            self._after_commit(records, batch, letters, stored)

    def _set_aside(self, record: Record, error: Exception) -> None:
        """A record that can be decoded, but neither decided nor stored."""
        refused = isinstance(error, psycopg.Error)
        reason, message = (
            ("refused_by_ledger", "the database does not take this content")
            if refused
            else ("defect", f"the reader failed: {type(error).__name__}")
        )
        log.error("record_refused", reason=reason, topic=record.place.topic, offset=record.offset, exc_info=error)
        batch, letters = set_aside(record, self._reading, reason, message)
        if self._without_letter([record], letters):
            self._block({record.place})
        else:
            self._after_commit([record], batch, letters, self._transaction(batch))

    def _without_letter(self, records: Sequence[Record], letters: Sequence[Letter]) -> set[Coordinates]:
        """The records whose letter Kafka has not acknowledged, after a moment. Raises `Flooded`."""
        if not letters:
            return set()
        self._line.refuse_flood(records, letters)
        return {letter.at for letter in letters} - self._letters.written(letters, self._letter_wait)

    def _block(self, places: Collection[Place]) -> None:
        """The next record of these must not be passed before its letter is written; other partitions go on."""
        log.warning("dead_letters_wait", count=len(places), reason=self._letters.refusal or "no answer yet")
        self._letters_at = time.monotonic() + _LETTER_RETRY_SECONDS
        self._reading.blocked |= set(places)
        self._events.pause(places)

    def _transaction(self, batch: Batch) -> Stored:
        failpoint("consumer.after_poll")
        session = self._ledger.session()
        self._plans.keep_fresh(session.connection, len(batch.arrivals))
        with self._metrics.intake_seconds.time():
            return storing.store(session.connection, batch, self._policies, session.identity)

    def _after_commit(self, records: Sequence[Record], batch: Batch, letters: Sequence[Letter], stored: Stored) -> None:
        """A crash before one of these steps repeats what came before it, which changes nothing.

        1. What nobody can use is in the dead-letter topic, acknowledged.
        2. Everything else, and the offset, are in the ledger.
        3. Kafka hears of it.
        4. The drivers hear of it.
        """
        failpoint("consumer.after_ledger_commit")
        self.stored_at = time.monotonic()
        self._telling.stored(batch, stored)
        self._line.note(records, letters)
        self._letters.stored(letters)


def _is_the_records_fault(error: Exception) -> bool:
    """The database refuses the content, or our own code fails on it; not: ledger, log or the flood limit speak of the moment."""
    if isinstance(error, psycopg.Error):
        return isinstance(error, REFUSED)
    return not isinstance(error, OffsetConflict | HistoryChanged | LogUnavailable | LogFailed | Flooded)
