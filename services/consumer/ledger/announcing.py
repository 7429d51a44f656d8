"""Telling the driver, wherever it is, that there is work for it."""

from __future__ import annotations

from collections.abc import Collection

from services.consumer.nouns import WORK_CHANNEL, SeatRef
from services.kit.postgres import Connection


def announce(connection: Connection, seats: Collection[SeatRef]) -> None:
    """To the drivers of these seats; in a transaction they hear of it when that is committed. Whoever commits many in a row makes
    it a statement of its own: a notification in them would let the whole server commit one by one."""
    for target in sorted({seat.target for seat in seats}):
        connection.execute("select pg_notify(%s, %s)", [WORK_CHANNEL, target])
