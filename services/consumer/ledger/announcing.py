"""Telling the driver, wherever it is, that there is work for it."""

from __future__ import annotations

from collections.abc import Callable, Collection

from services.consumer.nouns import WORK_CHANNEL, SeatRef
from services.kit.postgres import Connection

Handover = Callable[[Collection[SeatRef]], bool]
"""Tells this process's driver about committed work, from any thread. False when it does not drive all of these seats."""


def tell(connection: Connection, seats: Collection[SeatRef], handover: Handover) -> None:
    """After the commit: to this process's driver, and to the others unless that one drives. A notification is a transaction that
    waits for the disk, and would have the same driver look at the same work a second time."""
    if seats and not handover(seats):
        announce(connection, seats)


def announce(connection: Connection, seats: Collection[SeatRef]) -> None:
    """To the drivers of these seats; in a transaction they hear of it when that is committed. Whoever commits many in a row makes
    it a statement of its own: a notification in them would let the whole server commit one by one."""
    for target in sorted({seat.target for seat in seats}):
        connection.execute("select pg_notify(%s, %s)", [WORK_CHANNEL, target])
