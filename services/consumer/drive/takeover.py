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
returning seat, call, decision
"""
# A decision made meanwhile is another attempt.
_BURY = """
with dead as (
  update work set state = 'dead', reason = 'defect', waits_kind = null, waits_object = null
    from seat, unnest(%(seats)s::text[], %(decisions)s::bigint[]) as hopeless (seat, decision)
   where work.target = %(target)s and work.seat = hopeless.seat
     and seat.target = work.target and seat.seat = work.seat and seat.decision = hopeless.decision
  returning seat.target, seat.seat, seat.tenant, seat.person, seat.section, seat.version)
insert into history (tenant, person, section, target, seat, what, version, detail)
select tenant, person, section, target, seat, 'dead', version, jsonb_build_object('outcome', 'defect') from dead
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
    hopeless: Collection[str] = (),
) -> None:
    """Close such intents after their deadline; seats that they may have changed become suspect, and those that are `hopeless`
    dead letters. Raises `LeaseLost`."""
    with connection.transaction():
        if connection.execute(HOLDS, {"target": lease.target, "owner": lease.owner, "epoch": lease.epoch}).fetchone() is None:
            raise LeaseLost
        lock_seats(connection, lease.target, [one.seat for one in left])
        rows = connection.execute(_CLOSE, [reason, lease.target, text_array(one.intent for one in left)]).fetchall()
        written = [seat for seat, call, _ in rows if call == "write"]
        mark_suspect(connection, lease.target, written, reason=reason, suspect_seconds=suspect_seconds)
        dead = [(seat, str(decision)) for seat, _, decision in rows if seat in hopeless]
        if dead:
            seats, decisions = (text_array(column) for column in zip(*dead, strict=True))
            connection.execute(_BURY, {"target": lease.target, "seats": seats, "decisions": decisions})
