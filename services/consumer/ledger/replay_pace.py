"""How fast replays open seats, all together: a moment in the ledger, so that a successor goes on at the same pace."""

from __future__ import annotations

from services.kit.postgres import Connection


def spend(connection: Connection, seats: int, per_second: int) -> None:
    """These seats were opened; within the transaction that opened them. The next ones have to wait for as long as they take."""
    if seats:
        connection.execute(
            """insert into replay_pace (next_at) values (clock_timestamp() + make_interval(secs => %(seconds)s))
               on conflict (only_row) do update
                  set next_at = greatest(replay_pace.next_at, clock_timestamp()) + make_interval(secs => %(seconds)s)""",
            {"seconds": seats / per_second},
        )


def seconds_left(connection: Connection) -> float:
    """How long the next seats have to wait; 0 when they need not."""
    row = connection.execute("select extract(epoch from next_at - clock_timestamp())::float8 from replay_pace").fetchone()
    return max(0.0, row[0]) if row else 0.0
