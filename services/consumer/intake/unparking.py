"""Records that an older reader did not understand, and this one may: read again, once for each process and record."""

from __future__ import annotations

import structlog

from schemas.codec import NewerEvent, UndecodableEvent
from schemas.topics import Topics
from services.consumer.intake.batches import REFUSED
from services.consumer.intake.ledger import Ledger, Session
from services.consumer.intake.reading import decoded
from services.consumer.intake.telling import Telling
from services.consumer.ledger import parked, storing
from services.consumer.ledger.parked import Parked
from services.consumer.ledger.policies import Policies
from services.consumer.ledger.storing import Batch
from services.consumer.log.records import Place, Record

log = structlog.get_logger()

_PAGE = 100


class Unparking:
    """One pass over what is parked."""

    def __init__(self, topics: Topics, policies: Policies, ledger: Ledger, telling: Telling) -> None:
        self._topics = topics
        self._policies = policies
        self._ledger = ledger
        self._telling = telling
        self._after: parked.Mark | None = None
        self.done = False

    def page(self) -> None:
        """Look at the next page."""
        session = self._ledger.session()
        rows = parked.waiting(session.connection, self._after, _PAGE)
        for row in rows:
            self._release(session, row)
            self._after = parked.Mark(row.place.topic_id, row.place.partition, row.offset)
        self.done = len(rows) < _PAGE

    def _release(self, session: Session, row: Parked) -> None:
        record = Record(Place(row.place.topic, row.place.partition), row.offset, row.key, row.value)
        try:
            arrival = decoded(record, self._topics)
            stored = storing.release(session.connection, Batch([arrival], [row]), self._policies, session.identity)
        except NewerEvent:
            return
        except (UndecodableEvent, *REFUSED) as error:
            log.error(
                "parked_record_refused", topic=row.place.topic, partition=row.place.partition, offset=row.offset, exc_info=error
            )
        else:
            self._telling.work(session, stored)
