"""Open intents that nobody works on: calls that may have been made, and may still land.

They come from a driver that died, or from ourselves: the database crashed and lost the newest outcomes, which are committed
without waiting for the disk, or the answer to the statement that wrote the intent was lost.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

from services.consumer.drive.lease import HOLDS, Lease
from services.consumer.drive.outcomes import LeaseLost, lock_seats, mark_suspect
from services.kit.postgres import Connection, text_array


class Inherited(NamedTuple):
    """An intent that was left open."""

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
_STRAYS = """
select intent::text, seat, person, call, 0::float8
  from intent
 where target = %s and owner = %s and epoch = %s and closed_at is null and deadline < clock_timestamp()
   and not intent = any(%s::uuid[])
"""
_CLOSE = """
update intent set closed_at = clock_timestamp(), outcome = %s
 where target = %s and intent = any(%s::uuid[]) and closed_at is null
returning seat, call
"""


def inherited(connection: Connection, lease: Lease) -> list[Inherited]:
    """What others left open."""
    rows = connection.execute(_OPEN, [lease.target, lease.owner, lease.epoch]).fetchall()
    return [Inherited(*row) for row in rows]


def strays(connection: Connection, lease: Lease, known: Collection[str]) -> list[Inherited]:
    """Open intents of ours, past their deadline, that we know nothing of."""
    rows = connection.execute(_STRAYS, [lease.target, lease.owner, lease.epoch, text_array(known)]).fetchall()
    return [Inherited(*row) for row in rows]


def close(
    connection: Connection,
    lease: Lease,
    left: Sequence[Inherited],
    *,
    reason: Literal["inherited", "stray"],
    suspect_seconds: float,
) -> None:
    """Close such intents after their deadline; seats that they may have changed become suspect. Raises `LeaseLost`."""
    with connection.transaction():
        if connection.execute(HOLDS, {"target": lease.target, "owner": lease.owner, "epoch": lease.epoch}).fetchone() is None:
            raise LeaseLost
        lock_seats(connection, lease.target, [one.seat for one in left])
        rows = connection.execute(_CLOSE, [reason, lease.target, text_array(one.intent for one in left)]).fetchall()
        written = [seat for seat, call in rows if call == "write"]
        mark_suspect(connection, lease.target, written, reason=reason, suspect_seconds=suspect_seconds)
