"""What the mirror's statements read when their plans were made for empty tables."""

from __future__ import annotations

import asyncio

import psycopg

from tests.integration.publisher.mirror.bench import Bench, change, eventually

REQUESTS, AT_ONCE = 500, 10


async def test_changes_to_a_new_mirror_do_not_read_all_that_came_before(bench: Bench) -> None:
    """They come in groups that are too small to plan for, and nobody has counted the tables' rows yet."""
    async with bench.writer() as writer:
        with psycopg.connect(bench.database_url) as connection:
            for table in ("entity", "source_row"):  # the server would notice in its own time
                connection.execute(f"alter table mirror.{table} set (autovacuum_enabled = off)".encode())
        for first in range(0, REQUESTS, AT_ONCE):
            people = range(first, first + AT_ONCE)
            await asyncio.gather(*(writer.accept([change(f"p{person}")], "test") for person in people))

    async def counted() -> bool:  # the server adds up what a connection has read when it ends
        return _of_both_tables(bench, "n_tup_ins") == 2 * REQUESTS

    await eventually(counted)
    assert _of_both_tables(bench, "seq_tup_read + idx_tup_fetch") < 30 * REQUESTS


def _of_both_tables(bench: Bench, figure: str) -> int:
    query = f"select sum({figure})::bigint from pg_stat_user_tables where relname in ('entity', 'source_row')"  # noqa: S608
    with psycopg.connect(bench.database_url) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])
