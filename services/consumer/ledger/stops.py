"""Where the line stopped because too many records could not be used, until a person or a new reader lets it go on."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from services.consumer.ledger.offsets import LogPartition
from services.kit.postgres import Connection, text_array


class Stop(NamedTuple):
    """One partition at which an intake stopped."""

    place: LogPartition
    offset: int
    """The record that would have been one too many."""
    bad: int
    seen: int
    reason: str
    """The most frequent reason among the records that could not be used; a closed code."""
    at: datetime
    divert_before: int | None
    """A person has decided that what lies below may go to the dead letters; None while nobody has."""


_COLUMNS = 'topic_id, topic, "partition", "offset", bad, seen, reason, at, divert_before'


def put(connection: Connection, place: LogPartition, offset: int, bad: int, seen: int, reason: str) -> None:
    """The line stops here. One that stopped here before keeps the time at which it did."""
    connection.execute(
        """insert into intake_stop (topic_id, topic, "partition", "offset", bad, seen, reason) values (%s, %s, %s, %s, %s, %s, %s)
           on conflict (topic_id, "partition") do update
              set "offset" = excluded."offset", bad = excluded.bad, seen = excluded.seen, reason = excluded.reason,
                  divert_before = null""",
        [*place, offset, bad, seen, reason],
    )


def every(connection: Connection) -> list[Stop]:
    """All of them, in the order of topic and partition."""
    rows = connection.execute(f'select {_COLUMNS} from intake_stop order by topic, "partition"'.encode()).fetchall()  # noqa: S608
    return [Stop(LogPartition(*row[:3]), *row[3:]) for row in rows]


def of(connection: Connection, places: Collection[LogPartition]) -> dict[LogPartition, Stop]:
    """Those of these partitions."""
    return {stop.place: stop for stop in every(connection) if stop.place in places}


def remove(connection: Connection, places: Collection[LogPartition]) -> None:
    """The line goes on there."""
    connection.execute(
        """delete from intake_stop using unnest(%s::text[], %s::int[]) as gone (topic_id, "partition")
            where intake_stop.topic_id = gone.topic_id and intake_stop."partition" = gone."partition" """,
        [text_array(place.topic_id for place in places), text_array(str(place.partition) for place in places)],
    )


def divert(connection: Connection, place: LogPartition, before: int) -> None:
    """What lies below this offset may go to the dead letters, however much it is."""
    connection.execute(
        'update intake_stop set divert_before = %s where topic_id = %s and "partition" = %s',
        [before, place.topic_id, place.partition],
    )
