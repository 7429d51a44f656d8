"""Where intake continues, per topic id and partition. The ledger's offset always wins; it moves by compare-and-set.

The offset moves in the transaction that stores the batch, so a batch counts exactly once whatever dies in between; and only when
the stored offset is not behind the batch, so that no reader can move it over records that this ledger has not seen.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

from services.kit.postgres import Connection, text_array


class LogPartition(NamedTuple):
    """One partition of one incarnation of a topic: a topic that was deleted and created anew has another id."""

    topic_id: str
    topic: str
    partition: int


class Span(NamedTuple):
    """What a batch read of one partition: from `first`, where reading stood before it, up to but not including `end`."""

    place: LogPartition
    first: int
    end: int


class OffsetConflict(RuntimeError):
    """The stored offset is behind the batch, or missing: the ledger has not seen what comes before. Abandon the batch, rejoin."""

    def __init__(self, places: Collection[LogPartition]) -> None:
        super().__init__(f"{len(places)} partitions")
        self.places = places


def stored(connection: Connection, places: Collection[LogPartition]) -> dict[LogPartition, int]:
    """The next offset of each of these partitions that has one."""
    rows = connection.execute(
        """select topic_id, "partition", next from intake_offset
            join unnest(%s::text[], %s::int[]) as place(topic_id, "partition") using (topic_id, "partition")""",
        [text_array(place.topic_id for place in places), text_array(str(place.partition) for place in places)],
    ).fetchall()
    found = {(topic_id, partition): offset for topic_id, partition, offset in rows}
    return {place: found[place.topic_id, place.partition] for place in places if (place.topic_id, place.partition) in found}


def incarnations(connection: Connection, topics: Collection[str]) -> dict[str, set[str]]:
    """The ids under which the ledger has read each of these topics."""
    rows = connection.execute(
        "select topic, topic_id from intake_offset where topic = any(%s::text[]) group by topic, topic_id", [text_array(topics)]
    ).fetchall()
    found: dict[str, set[str]] = {topic: set() for topic in topics}
    for topic, topic_id in rows:
        found[topic].add(topic_id)
    return found


def forget_others(connection: Connection, ids: Mapping[str, str]) -> None:
    """Remove the offsets of earlier incarnations: of each topic only the one with this id exists any more."""
    connection.execute(
        """delete from intake_offset using unnest(%s::text[], %s::text[]) as now (topic, topic_id)
            where intake_offset.topic = now.topic and intake_offset.topic_id <> now.topic_id""",
        [text_array(ids), text_array(ids.values())],
    )


def begin(connection: Connection, starts: Mapping[LogPartition, int]) -> None:
    """Record where partitions without a stored offset begin: always the log's start. A row that exists stays as it is."""
    connection.execute(
        """insert into intake_offset (topic_id, topic, "partition", next)
           select * from unnest(%s::text[], %s::text[], %s::int[], %s::bigint[])
           on conflict (topic_id, "partition") do nothing""",
        _columns(starts),
    )


def restart(connection: Connection, starts: Mapping[LogPartition, int]) -> None:
    """Set stored offsets to the log's start when the log no longer holds what they point to: part of entering recovery mode."""
    connection.execute(
        """insert into intake_offset (topic_id, topic, "partition", next)
           select * from unnest(%s::text[], %s::text[], %s::int[], %s::bigint[])
           on conflict (topic_id, "partition") do update set next = excluded.next, updated_at = clock_timestamp()""",
        _columns(starts),
    )


def _columns(starts: Mapping[LogPartition, int]) -> list[str]:
    ordered = sorted(starts)
    return [
        text_array(place.topic_id for place in ordered),
        text_array(place.topic for place in ordered),
        text_array(str(place.partition) for place in ordered),
        text_array(str(starts[place]) for place in ordered),
    ]


def advance(connection: Connection, spans: Collection[Span]) -> None:
    """Move the stored offsets to the ends of the spans, in the caller's transaction; raises `OffsetConflict`.

    An offset that is further already stays: the batch has been read twice (after a rebalance), and storing it again is harmless.
    """
    ordered = sorted(spans)
    rows = connection.execute(
        """with span as (select * from unnest(%s::text[], %s::int[], %s::bigint[], %s::bigint[])
                             as s(topic_id, "partition", first, "end")),
                locked as (select o.topic_id, o."partition" from intake_offset o join span using (topic_id, "partition")
                            order by o.topic_id, o."partition" for update of o)
           update intake_offset o set next = greatest(o.next, span."end"), updated_at = clock_timestamp()
             from span join locked using (topic_id, "partition")
            where o.topic_id = span.topic_id and o."partition" = span."partition" and o.next >= span.first
           returning o.topic_id, o."partition" """,
        [
            text_array(span.place.topic_id for span in ordered),
            text_array(str(span.place.partition) for span in ordered),
            text_array(str(span.first) for span in ordered),
            text_array(str(span.end) for span in ordered),
        ],
    ).fetchall()
    moved = {(topic_id, partition) for topic_id, partition in rows}
    refused = [span.place for span in ordered if (span.place.topic_id, span.place.partition) not in moved]
    if refused:
        raise OffsetConflict(refused)


def next_activity(connection: Connection) -> int:
    """Count one change of the ledger, in the caller's transaction."""
    return _number(connection, "select nextval('activity')")


def last_activity(connection: Connection) -> int:
    """How many changes of the ledger there have been; 0 before the first."""
    return _number(connection, "select case when is_called then last_value else 0 end from activity")


def count_from(connection: Connection, activity: int) -> None:
    """Let the counter go on from here, if it is not further already. Not undone when a transaction is."""
    if last_activity(connection) < activity:
        connection.execute("select setval('activity', greatest(%s, last_value)) from activity", [activity])


def _number(connection: Connection, statement: str) -> int:
    row = connection.execute(statement.encode()).fetchone()
    assert row is not None  # noqa: S101  (both statements always return their row)
    return int(row[0])
