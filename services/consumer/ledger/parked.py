"""Records whose values only a newer reader knows: kept with their bytes until a reader that knows them starts."""

from __future__ import annotations

from collections.abc import Iterable
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
    with connection.cursor() as cursor:  # rare, so one by one is fine
        cursor.executemany(
            """insert into parked (topic_id, topic, "partition", "offset", key, value, reason)
               values (%s, %s, %s, %s, %s, %s, %s) on conflict do nothing""",
            [(*one.place, *one[1:]) for one in records],
        )


def waiting(connection: Connection) -> list[Parked]:
    """All of them, in the order of the log."""
    rows = connection.execute(
        """select topic_id, topic, "partition", "offset", key, value, reason from parked
            order by topic_id, "partition", "offset" """
    ).fetchall()
    return [Parked(LogPartition(*row[:3]), *row[3:]) for row in rows]


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
