"""Rule R1: a mirror that lost history takes it back from the log before it writes.

The newest marker in the log says which database wrote it and above which floor. When this database says the same, nothing was
lost that we could know of. Otherwise:

1. The database gets a provisional floor, so that a crash in here begins again.
2. Every event from the mirror's stored positions to the end of the log is read. Its source rows go through the ordinary
   transaction, newest token wins, but nothing is emitted: an old state must not be repeated above the floor.
3. The floor becomes greater than every version and marker seen and than the clock, by a minute.
4. Each entity that was read is emitted once, from the newest rows, above the floor.
5. The marker is written. Now the log and the database agree, and the intake may open.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice

import orjson
import structlog

from schemas import codec
from schemas.codec import NewerEvent, UndecodableEvent
from schemas.events import AnyEvent
from schemas.keys import EntityKey
from schemas.markers import MARKER_KEY, Marker
from schemas.topics import Topics
from services.kit import postgres
from services.kit.postgres import Connection, DatabaseIdentity
from services.publisher.changes import Change
from services.publisher.log import Record
from services.publisher.mirror import database
from services.publisher.mirror.database import MirrorIdentity
from services.publisher.mirror.history import Bounds, Found, History, Place
from services.publisher.mirror.nouns import Request
from services.publisher.mirror.store import Store

log = structlog.get_logger()
FLOOR_MARGIN_MICROSECONDS = 60 * 1_000_000
_CHUNK = 500
_NOTHING_YET = 0


class AnotherOpens(RuntimeError):
    """Another process is opening this mirror; look again in a moment."""


class Recovery:
    """The opening of a mirror, in three steps that the caller puts together: `prepare`, `to_emit` until empty, `conclude`.

    Blocking; use from one thread at a time. Holds a session lock, so that two processes do not open the same mirror at once:
    `close` it in any case.
    """

    def __init__(self, url: str, store: Store, history: History, topics: Topics) -> None:
        database.migrate(url)
        self._connection = database.connect(url)
        self._store = store
        self._history = history
        self._topics = topics
        self._ends: dict[Place, Bounds] = {}
        self.identity: MirrorIdentity
        """After `prepare`: what the database says of itself."""
        self._agreed = False
        self._last_emitted: tuple[str, str, str] = ("", "", "")

    def close(self) -> None:
        """Give the session lock back."""
        self._connection.close()

    def prepare(self) -> None:
        """Steps 1 to 3; less when nothing was lost or nothing was there. Raises `AnotherOpens`."""
        row = self._connection.execute("select pg_try_advisory_lock(hashtextextended('open mirror', 0))").fetchone()
        if not row or not row[0]:
            raise AnotherOpens("another process opens this mirror")
        found, marker = database.mirror_identity(self._connection), self._history.newest_marker()
        if found is not None and marker is not None and found == _identity_of(marker):
            self.identity, self._agreed = found, True
            return
        self._ends = self._history.bounds()
        if marker is None and self._has_never_written():
            self.identity = self._set_floor(_NOTHING_YET)
            return
        log.warning("mirror_recovering", floor=marker.floor if marker else None)
        self._recover(marker)

    def to_emit(self) -> list[EntityKey]:
        """Step 4: the next entities whose state is not in the log above the floor; empty when there are no more."""
        if self._agreed:
            return []  # the marker is the last step: nothing can be left over, and looking would read the whole table
        found = self._connection.execute(
            """select tenant, kind, key from entity
                where content_hash is null and version > 0 and (tenant, kind, key) > (%s, %s, %s)
                order by tenant, kind, key limit %s""",
            [*self._last_emitted, _CHUNK],
        ).fetchall()
        if found:
            self._last_emitted = found[-1]
        return [EntityKey(*row) for row in found]

    def marker(self) -> Record | None:
        """Step 5: the marker to be written; None when the log has it already."""
        if self._agreed:
            return None
        positions = {str(place): bound.high for place, bound in self._ends.items()}
        self._connection.execute("update mirror set log_positions = %s::jsonb", [orjson.dumps(positions).decode()])
        marker = Marker(
            system_id=self.identity.database.system_id,
            timeline=self.identity.database.timeline,
            floor=self.identity.floor,
            written_at=datetime.now(UTC),
        )
        return Record(self._topics.markers, MARKER_KEY, marker.model_dump_json().encode(), [])

    # --- steps ----------------------------------------------------------------------------------------------------------

    def _has_never_written(self) -> bool:
        """No entity here, and no topic that ever held a record (a trimmed one did)."""
        row = self._connection.execute("select exists (select from entity)").fetchone()
        return row is not None and not row[0] and all(bound.high == 0 for bound in self._ends.values())

    def _recover(self, marker: Marker | None) -> None:
        highest = max(marker.floor if marker else 0, self._stored_floor())
        positions = self._stored_positions()
        self._set_floor(max(highest + 1, self._clock()))
        count = 0
        for chunk in _chunks(self._history.events(positions, self._ends)):
            events = [event for found in chunk if (event := self._decoded(found)) is not None]
            highest = max([highest, *(event.version for event in events)])
            self._store.transact(self._connection, [as_request(events)], emit=False)
            count += len(events)
        self.identity = self._set_floor(max(highest, self._clock()) + FLOOR_MARGIN_MICROSECONDS)
        log.warning("mirror_history_read", count=count, floor=self.identity.floor)

    def _decoded(self, found: Found) -> AnyEvent | None:
        topic, partition = found.place
        kind = self._topics.kind(topic)
        assert kind is not None  # noqa: S101  (only topics of ours are read)
        try:
            return codec.decode(kind, found.value)
        except (UndecodableEvent, NewerEvent):
            log.error("mirror_event_unreadable", topic=topic, partition=partition, offset=found.offset)
            return None

    def _set_floor(self, floor: int) -> MirrorIdentity:
        identity = postgres.identity(self._connection)
        self._connection.execute(
            """insert into mirror (floor, system_id, timeline) values (%(floor)s, %(system)s, %(timeline)s)
               on conflict (only_row) do update set floor = %(floor)s, system_id = %(system)s, timeline = %(timeline)s""",
            {"floor": floor, "system": identity.system_id, "timeline": identity.timeline},
        )
        return MirrorIdentity(identity, floor)

    def _stored_floor(self) -> int:
        row = self._connection.execute("select coalesce(max(floor), 0) from mirror").fetchone()
        return int(row[0]) if row else 0

    def _stored_positions(self) -> dict[str, int]:
        row = self._connection.execute("select log_positions from mirror").fetchone()
        return dict(row[0]) if row else {}

    def _clock(self) -> int:
        return _clock(self._connection)


def _clock(connection: Connection) -> int:
    row = connection.execute("select (extract(epoch from clock_timestamp()) * 1000000)::bigint").fetchone()
    assert row is not None  # noqa: S101
    return int(row[0])


def _identity_of(marker: Marker) -> MirrorIdentity:
    return MirrorIdentity(DatabaseIdentity(marker.system_id, marker.timeline), marker.floor)


def _chunks(records: Iterator[Found]) -> Iterator[list[Found]]:
    while chunk := list(islice(records, _CHUNK)):
        yield chunk


def as_request(events: Sequence[AnyEvent]) -> Request:
    """The source rows of some events as changes, and their entities as ones to be emitted again."""
    changes = [
        Change(event.tenant, row.record, row.key, row.values, event.entity_key, row.order, row.deleted, event.version)
        for event in sorted(events, key=lambda event: event.version)
        for row in event.source_rows
    ]
    return Request(changes, "recovery", datetime.now(UTC), {event.entity_key for event in events})
