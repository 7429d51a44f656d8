"""Rule R1: a mirror that lost history takes it back from the log before it writes.

The newest marker in the log says which database wrote it and above which floor. When this database says the same, the end of the
log is compared with it all the same: a disk that was put back to an earlier day has the same identity. Only when the log knows
nothing that the database does not, nothing was lost. Otherwise:

1. The database gets a provisional floor, so that a crash in here begins again, and no other process goes on issuing versions.
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
import psycopg
import structlog

from schemas import codec
from schemas.codec import NewerEvent, UndecodableEvent
from schemas.events import AnyEvent
from schemas.keys import EntityKey
from schemas.markers import MARKER_KEY, Marker
from schemas.topics import Topics
from services.kit import postgres
from services.kit.failpoints import failpoint
from services.kit.postgres import Connection, DatabaseIdentity, text_array
from services.publisher.changes import Change
from services.publisher.log import Record
from services.publisher.mirror import database
from services.publisher.mirror.database import MirrorIdentity, Sighting
from services.publisher.mirror.history import Bounds, Found, History, Place
from services.publisher.mirror.nouns import Request
from services.publisher.mirror.store import Store, floor_held_still

log = structlog.get_logger()
FLOOR_MARGIN_MICROSECONDS = 60 * 1_000_000
_CHUNK = 500
_NOTHING_YET = 0
_REFUSED = (psycopg.DataError, psycopg.IntegrityError, psycopg.errors.ProgramLimitExceeded)
"""What the database would say again of the same rows."""


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
        # A table that was just filled has no statistics yet: by an index of its own order each page reads on where the last one
        # ended, sorted each page would read everything.
        self._connection.execute("set enable_sort = off; set enable_incremental_sort = off")
        self._store = store
        self._history = history
        self._topics = topics
        self._ends: dict[Place, Bounds] = {}
        self._identity: MirrorIdentity
        self._agreed = False
        self._last_emitted: tuple[str, str, str] = ("", "", "")

    def close(self) -> None:
        """Give the session lock back."""
        self._connection.close()

    def sighting(self) -> Sighting:
        """After `prepare`: what the database says of itself."""
        return Sighting(self._identity, database.incarnation(self._connection))

    def prepare(self) -> None:
        """Steps 1 to 3; less when nothing was lost or nothing was there. Raises `AnotherOpens`."""
        row = self._connection.execute("select pg_try_advisory_lock(hashtextextended('open mirror', 0))").fetchone()
        if not row or not row[0]:
            raise AnotherOpens("another process opens this mirror")
        found, marker = database.mirror_identity(self._connection), self._history.newest_marker()
        self._ends = self._history.bounds()
        if found is not None and marker is not None and found == _identity_of(marker) and not self._log_knows_more():
            self._identity, self._agreed = found, True
            self._keep_positions()  # they are the log's own, and the next look begins here
            return
        if marker is None and self._has_never_written():
            self._identity = self._set_floor(_NOTHING_YET)
            return
        log.warning("mirror_recovering", floor=marker.floor if marker else None)
        self._recover(marker)

    def to_emit(self) -> list[EntityKey]:
        """Step 4: the next entities whose state is not in the log above the floor; empty when there are no more.

        Those that could not be folded are tried again: this may be the release that can.
        """
        # The marker is the last step: when it agrees nothing else can be left over, and looking would read the whole table.
        left_over = "" if self._agreed else "or (content_hash is null and version > 0)"
        found = self._connection.execute(
            f"""select tenant, kind, key from entity
                 where (unfoldable is not null {left_over}) and (tenant, kind, key) > (%s, %s, %s)
                 order by tenant, kind, key limit %s""",  # noqa: S608
            [*self._last_emitted, _CHUNK],
        ).fetchall()
        if found:
            self._last_emitted = found[-1]
        return [EntityKey(*row) for row in found]

    def marker(self) -> Record | None:
        """Step 5: the marker to be written; None when the log has it already."""
        if self._agreed:
            return None
        self._keep_positions()
        marker = Marker(
            system_id=self._identity.database.system_id,
            timeline=self._identity.database.timeline,
            floor=self._identity.floor,
            written_at=datetime.now(UTC),
        )
        return Record(self._topics.markers, MARKER_KEY, marker.model_dump_json().encode(), [])

    # --- steps ----------------------------------------------------------------------------------------------------------

    def _has_never_written(self) -> bool:
        """No entity here, and no topic that ever held a record (a trimmed one did)."""
        row = self._connection.execute("select exists (select from entity)").fetchone()
        return row is not None and not row[0] and all(bound.high == 0 for bound in self._ends.values())

    def _keep_positions(self) -> None:
        positions = {str(place): bound.high for place, bound in self._ends.items()}
        self._connection.execute("update mirror set log_positions = %s::jsonb", [orjson.dumps(positions).decode()])

    def _log_knows_more(self) -> bool:
        """Whether the end of the log holds a version that this database has not issued, or another content under one of its own.

        The cost is that of the log's tail. What other processes produce meanwhile was committed before it was produced, and is
        looked up after it was read.
        """
        for events in self._events():
            known = self._versions(events)
            for event in events:
                version, content_hash = known.get(event.entity_key, (_NOTHING_YET, None))
                twin = version == event.version and content_hash not in {None, event.content_hash}
                if version < event.version or twin:
                    log.error("mirror_behind_its_log", kind=event.entity_key.kind, version=event.version)
                    return True
        return False

    def _versions(self, events: Sequence[AnyEvent]) -> dict[EntityKey, tuple[int, str | None]]:
        keys = sorted({event.entity_key for event in events})
        found = self._connection.execute(
            """select e.tenant, e.kind, e.key, e.version, e.content_hash
                 from unnest(%s::text[], %s::text[], %s::text[]) as k (tenant, kind, key)
                 join entity e using (tenant, kind, key)""",
            [text_array(key[column] for key in keys) for column in range(3)],
        )
        return {EntityKey(*row[:3]): (row[3], row[4]) for row in found}

    def _events(self) -> Iterator[list[AnyEvent]]:
        """Everything from the stored positions to the end, in chunks; what cannot be decoded is left out."""
        for chunk in _chunks(self._history.events(self._stored_positions(), self._ends)):
            yield [event for found in chunk if (event := self._decoded(found)) is not None]

    def _recover(self, marker: Marker | None) -> None:
        highest = max(marker.floor if marker else 0, self._stored_floor())
        self._set_floor(max(highest + 1, self._clock()))
        count = 0
        for events in self._events():
            highest = max([highest, *(event.version for event in events)])
            self._take_back(events)
            count += len(events)
            failpoint("publisher.recovering")
        self._identity = self._set_floor(max(highest, self._clock()) + FLOOR_MARGIN_MICROSECONDS)
        log.warning("mirror_history_read", count=count, floor=self._identity.floor)

    def _take_back(self, events: Sequence[AnyEvent]) -> None:
        """Store the rows of these events; what the database refuses for good is left out alone."""
        try:
            self._store.transact(self._connection, [as_request(events)], emit=False)
        except _REFUSED as error:
            if len(events) == 1:
                log.error("mirror_event_refused", kind=events[0].entity_key.kind, version=events[0].version, code=error.sqlstate)
                return
            for event in events:
                self._take_back([event])

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
        with floor_held_still(self._connection):
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
