"""The replays that were asked for, how far each has come, and the verdict of every offset."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal
from uuid import UUID

from psycopg.rows import class_row

from schemas.keys import EntityKey
from services.kit.postgres import Connection, text_array

Verdict = Literal[
    "reopened", "already_satisfied", "superseded", "undecodable", "parked", "hash_alarm", "expired", "absent", "no_seat"
]
"""What became of one offset when it was replayed. Of a `reopened` one, `replay_report` tells how its seats fare now."""


class ReplayLost(RuntimeError):
    """Another process has taken the replay over, or it was ended: abandon the batch."""


@dataclass(frozen=True, slots=True)
class Order:
    """A replay as it is asked for: offsets `first` to `last`, both included."""

    topic: str
    topic_id: str
    partition: int
    first: int
    last: int
    dry_run: bool
    verify: bool


@dataclass(frozen=True, slots=True)
class Replay:
    """One row of the table."""

    replay: UUID
    topic: str
    topic_id: str
    partition: int
    first: int
    last: int
    next: int
    """The first offset without a verdict."""
    dry_run: bool
    verify: bool
    state: Literal["running", "done", "failed"]
    reason: str | None
    """Why it failed."""
    actor: str
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict of one offset."""

    offset: int
    verdict: Verdict
    reason: str | None = None
    entity: EntityKey | None = None
    version: int | None = None
    superseded_by: int | None = None
    superseded_at_offset: int | None = None


_COLUMNS = """replay, topic, topic_id, "partition", first, last, next, dry_run, verify, state, reason, actor,
              created_at, finished_at"""


def create(connection: Connection, order: Order, actor: str) -> UUID | None:
    """Store a replay for any process to run; None while another one runs on the same partition."""
    row = connection.execute(
        """insert into replay (replay, topic, topic_id, "partition", first, last, next, dry_run, verify, state, actor)
           values (%s, %s, %s, %s, %s, %s, %s, %s, %s, 'running', %s)
           on conflict (topic, "partition") where state = 'running' do nothing
           returning replay""",
        [
            uuid.uuid4(),
            order.topic,
            order.topic_id,
            order.partition,
            order.first,
            order.last,
            order.first,
            order.dry_run,
            order.verify,
            actor,
        ],
    ).fetchone()
    return row[0] if row else None


def find(connection: Connection, replay: UUID) -> Replay | None:
    """One replay by its id."""
    with connection.cursor(row_factory=class_row(Replay)) as cursor:
        return cursor.execute(f"select {_COLUMNS} from replay where replay = %s", [replay]).fetchone()  # noqa: S608


def newest(connection: Connection, limit: int) -> list[Replay]:
    """The latest replays, newest first."""
    with connection.cursor(row_factory=class_row(Replay)) as cursor:
        query = f"select {_COLUMNS} from replay order by created_at desc, replay limit %s"  # noqa: S608
        return cursor.execute(query, [limit]).fetchall()


def claim(connection: Connection, owner: str, seconds: float) -> Replay | None:
    """Become the owner of the oldest running replay that is free: nobody's, `owner`'s own, or of an owner silent for too long."""
    with connection.cursor(row_factory=class_row(Replay)) as cursor:
        return cursor.execute(
            f"""update replay set owner = %s, owned_until = clock_timestamp() + make_interval(secs => %s)
                 where replay = (select replay from replay
                                  where state = 'running'
                                    and (owned_until is null or owned_until < clock_timestamp() or owner = %s)
                                  order by created_at limit 1 for update skip locked)
             returning {_COLUMNS}""",  # noqa: S608
            [owner, seconds, owner],
        ).fetchone()


def renew(connection: Connection, replay: UUID, owner: str, seconds: float) -> None:
    """Stay the owner while the log gives nothing; raises `ReplayLost`."""
    _owned(connection, "owned_until = clock_timestamp() + make_interval(secs => %s)", [seconds], replay, owner)


def advance(connection: Connection, replay: UUID, owner: str, end: int, seconds: float) -> None:
    """Record that every offset below `end` has its verdict, within the transaction that gave them. Raises `ReplayLost`."""
    assignments = "next = %s, owned_until = clock_timestamp() + make_interval(secs => %s)"
    _owned(connection, assignments, [end, seconds], replay, owner)


def finish(connection: Connection, replay: UUID, owner: str, reason: str | None = None) -> None:
    """End the replay: done, or failed for a reason. Raises `ReplayLost`."""
    assignments = "state = %s, reason = %s, finished_at = clock_timestamp(), owner = null, owned_until = null"
    _owned(connection, assignments, ["failed" if reason else "done", reason], replay, owner)


def release(connection: Connection, replay: UUID, owner: str) -> None:
    """Let another process continue at once."""
    connection.execute(
        "update replay set owner = null, owned_until = null where replay = %s and owner = %s and state = 'running'",
        [replay, owner],
    )


def _owned(connection: Connection, assignments: str, values: Sequence[object], replay: UUID, owner: str) -> None:
    updated = connection.execute(
        f"update replay set {assignments} where replay = %s and owner = %s and state = 'running'",  # noqa: S608
        [*values, replay, owner],
    )
    if updated.rowcount != 1:
        raise ReplayLost


def add_verdicts(connection: Connection, replay: UUID, judged: Sequence[Judged]) -> None:
    """Store the verdicts of a batch; each offset has exactly one."""
    columns = [
        text_array(str(one.offset) for one in judged),
        text_array(one.verdict for one in judged),
        text_array(one.reason for one in judged),
        text_array(one.entity.tenant if one.entity else None for one in judged),
        text_array(one.entity.kind if one.entity else None for one in judged),
        text_array(one.entity.key if one.entity else None for one in judged),
        text_array(_text(one.version) for one in judged),
        text_array(_text(one.superseded_by) for one in judged),
        text_array(_text(one.superseded_at_offset) for one in judged),
    ]
    connection.execute(
        """insert into replay_record (replay, "offset", verdict, reason, tenant, kind, key, version,
                                      superseded_by, superseded_at_offset)
           select %s, * from unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[],
                                    %s::bigint[], %s::bigint[], %s::bigint[])""",
        [replay, *columns],
    )


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)
