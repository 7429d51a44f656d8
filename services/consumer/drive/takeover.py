"""Taking a target over from a driver that died: its open intents are calls that may have been made, and may still land."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from services.consumer.drive.lease import HOLDS, Lease
from services.consumer.drive.outcomes import LeaseLost, lock_seats, mark_suspect
from services.kit.postgres import Connection, text_array


class Inherited(NamedTuple):
    """An intent that another epoch left open."""

    intent: str
    seat: str
    person: str
    call: str
    seconds: float
    """From its writing to its deadline. Waited out anew on our own monotonic clock, because no other clock need be right."""


_OPEN = """
select intent::text, seat, person, call, extract(epoch from deadline - opened_at)::float8
  from intent where target = %s and closed_at is null and (owner, epoch) <> (%s, %s)
"""
_CLOSE = """
update intent set closed_at = clock_timestamp(), outcome = 'inherited'
 where target = %s and intent = any(%s::uuid[]) and closed_at is null
returning seat, call
"""


def inherited(connection: Connection, lease: Lease) -> list[Inherited]:
    """What others left open."""
    rows = connection.execute(_OPEN, [lease.target, lease.owner, lease.epoch]).fetchall()
    return [Inherited(*row) for row in rows]


def close(connection: Connection, lease: Lease, left: Sequence[Inherited], *, suspect_seconds: float) -> None:
    """Close inherited intents after their deadline; seats that they may have changed become suspect. Raises `LeaseLost`."""
    with connection.transaction():
        if connection.execute(HOLDS, {"target": lease.target, "owner": lease.owner, "epoch": lease.epoch}).fetchone() is None:
            raise LeaseLost
        lock_seats(connection, lease.target, [one.seat for one in left])
        rows = connection.execute(_CLOSE, [lease.target, text_array(one.intent for one in left)]).fetchall()
        written = [seat for seat, call in rows if call == "write"]
        mark_suspect(connection, lease.target, written, reason="inherited", suspect_seconds=suspect_seconds)
