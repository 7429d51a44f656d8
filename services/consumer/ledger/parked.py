"""Records whose values only a newer reader knows: kept with their bytes until a reader that knows them starts."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from services.consumer.ledger.offsets import LogPartition
from services.kit.postgres import Connection, text_array


class Parked(NamedTuple):
    """One record, untouched."""

    place: LogPartition
    offset: int
    key: bytes | None
    value: bytes
    reason: str
    """Names of the fields that this reader did not understand."""


def park(connection: Connection, records: Iterable[Parked]) -> None:
    """Keep them, in the transaction that moves the offset past them."""
    for one in records:  # rare, so one by one is fine; an `executemany` of none would be a round trip
        connection.execute(
            """insert into parked (topic_id, topic, "partition", "offset", key, value, reason)
               values (%s, %s, %s, %s, %s, %s, %s) on conflict do nothing""",
            [*one.place, *one[1:]],
        )


class Mark(NamedTuple):
    """Where a pass over the parked records stands; None for the beginning."""

    topic_id: str
    partition: int
    offset: int


def waiting(connection: Connection, after: Mark | None, limit: int) -> list[Parked]:
    """At most `limit` of them behind `after`, in the order of the log."""
    rows = connection.execute(
        """select topic_id, topic, "partition", "offset", key, value, reason from parked
            where (topic_id, "partition", "offset") > (%s, %s, %s)
            order by topic_id, "partition", "offset" limit %s""",
        [*(after or Mark("", -1, -1)), limit],
    ).fetchall()
    return [Parked(LogPartition(*row[:3]), *row[3:]) for row in rows]


class Waiting(NamedTuple):
    """A parked record without its content."""

    topic: str
    partition: int
    offset: int
    reason: str
    at: datetime


def listed(connection: Connection, limit: int) -> list[Waiting]:
    """What has waited longest for a newer reader."""
    rows = connection.execute(
        'select topic, "partition", "offset", reason, at from parked order by at, topic, "partition", "offset" limit %s', [limit]
    ).fetchall()
    return [Waiting(*row) for row in rows]


def backlog(connection: Connection) -> tuple[int, float]:
    """How many wait, and the age of the oldest in seconds."""
    row = connection.execute(
        "select count(*), coalesce(extract(epoch from clock_timestamp() - min(at)), 0)::float8 from parked"
    ).fetchone()
    assert row is not None  # noqa: S101  (an aggregate always returns its row)
    return row[0], row[1]


def release(connection: Connection, records: Iterable[Parked]) -> None:
    """Forget them, in the transaction that takes them."""
    released = list(records)
    connection.execute(
        """delete from parked using unnest(%s::text[], %s::int[], %s::bigint[]) as r(topic_id, "partition", "offset")
            where parked.topic_id = r.topic_id and parked."partition" = r."partition" and parked."offset" = r."offset" """,
        [
            text_array(one.place.topic_id for one in released),
            text_array(str(one.place.partition) for one in released),
            text_array(str(one.offset) for one in released),
        ],
    )
