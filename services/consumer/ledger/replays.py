"""The replays that were asked for, how far each has come, and the verdict of every offset and seat.

A plan is a replay that changes nothing. What is carried out is carried out for a plan, and for one plan once.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID

import orjson
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from schemas.keys import EntityKey
from services.consumer.ledger import replay_scopes, replay_selection
from services.consumer.ledger.replay_scopes import Scope
from services.consumer.nouns import SeatRef
from services.kit.postgres import Connection, text_array

State = Literal["running", "done", "failed", "cancelled"]

Verdict = Literal[
    "reopened", "already_satisfied", "superseded", "undecodable", "parked", "hash_alarm", "expired", "absent", "no_seat"
]
"""What became of one offset or seat. Of a `reopened` one, `replay_report` tells how its seats fare now."""


class ReplayLost(RuntimeError):
    """Another process has taken the replay over, or it was cancelled: abandon the batch."""


class TooLarge(ValueError):
    """So many offsets or seats are more than one replay may have; nothing was stored."""

    def __init__(self, total: int) -> None:
        super().__init__(total)
        self.total = total


@dataclass(frozen=True, slots=True)
class Range:
    """Offsets of one partition, `first` to `last`, both included."""

    topic: str
    topic_id: str
    partition: int
    first: int
    last: int
    next: int
    """The first offset without a verdict."""

    @property
    def offsets(self) -> int:
        """How many there are."""
        return self.last - self.first + 1


@dataclass(frozen=True, slots=True)
class Order:
    """A replay as it is asked for."""

    scope: Scope
    """With its tenant or target named."""
    ranges: Sequence[Range]
    """What it reads of the log; empty for a scope of the ledger."""
    dry_run: bool
    verify: bool
    plan: UUID | None = None
    """The plan that it carries out."""


@dataclass(frozen=True, slots=True)
class Replay:
    """One row of the table."""

    replay: UUID
    scope: Scope
    ranges: Sequence[Range]
    after: SeatRef
    """In a scope of the ledger, the last seat with a verdict."""
    dry_run: bool
    verify: bool
    plan: UUID | None
    applied_by: UUID | None
    """Of a plan, the replay that carries it out."""
    state: State
    reason: str | None
    """Why it failed."""
    done: int
    total: int
    """Offsets or seats, when it was asked for."""
    digest: str | None
    """Of a plan that is done."""
    changes: int | None
    """Of a plan that is done: how much it would change."""
    actor: str
    created_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict of one offset, or of one seat."""

    offset: int | None
    verdict: Verdict
    reason: str | None = None
    entity: EntityKey | None = None
    version: int | None = None
    superseded_by: int | None = None
    superseded_at_offset: int | None = None
    seat: SeatRef | None = None


_BATCHES = 0xBA7C
"""Class of the advisory locks that stand for a replay's batches. They are granted in the order of asking: whoever cancels waits
for the batch that is under way, and for no other; a row's lock might go to the next one first."""

_COLUMNS = """replay, scope, dry_run, verify, plan, state, reason, done, total, digest, changes, actor, created_at, finished_at,
              after_target, after_seat,
              (select r.replay from replay r where r.plan = replay.replay) as applied_by,
              (select coalesce(jsonb_agg(jsonb_build_object('topic', topic, 'topic_id', topic_id, 'partition', "partition",
                                                            'first', first, 'last', last, 'next', next)
                                         order by topic, "partition"), '[]')
                 from replay_range r where r.replay = replay.replay) as ranges"""


def create(connection: Connection, order: Order, actor: str, most: int | None = None) -> UUID:
    """Store a replay for any process to run; raises `TooLarge` when it has more than `most` offsets or seats."""
    replay = uuid.uuid4()
    scope = order.scope
    total = sum(one.offsets for one in order.ranges) if scope.in_the_log else replay_selection.count(connection, scope)
    if most is not None and total > most:
        raise TooLarge(total)
    connection.execute(
        """insert into replay (replay, scope, dry_run, verify, plan, state, total, actor)
           values (%s, %s, %s, %s, %s, 'running', %s, %s)""",
        [replay, Jsonb(scope.told()), order.dry_run, order.verify, order.plan, total, actor],
    )
    for one in order.ranges:
        connection.execute(
            """insert into replay_range (replay, topic, topic_id, "partition", first, last, next)
               values (%s, %s, %s, %s, %s, %s, %s)""",
            [replay, one.topic, one.topic_id, one.partition, one.first, one.last, one.first],
        )
    return replay


def find(connection: Connection, replay: UUID, *, lock: bool = False) -> Replay | None:
    """One replay by its id; with `lock` nobody applies it, cancels it or begins a batch until the transaction ends."""
    if lock:
        connection.execute("select pg_advisory_xact_lock(%s, hashtext(%s::text))", [_BATCHES, replay])
    return next(iter(_read(connection, f"select {_COLUMNS} from replay where replay = %s", [replay])), None)  # noqa: S608


def newest(connection: Connection, limit: int) -> list[Replay]:
    """The latest replays, newest first."""
    return _read(connection, f"select {_COLUMNS} from replay order by created_at desc, replay limit %s", [limit])  # noqa: S608


_FREE = "state = 'running' and (owned_until is null or owned_until < clock_timestamp())"


def claim(connection: Connection, owner: str, seconds: float) -> Replay | None:
    """Become the owner of a running replay that is free: nobody's, `owner`'s own, or of an owner silent for too long.

    Plans first: they are short, and somebody waits for them. Then the oldest.
    """
    claimed = _read(
        connection,
        f"""update replay set owner = %s, owned_until = clock_timestamp() + make_interval(secs => %s)
             where replay = (select replay from replay where {_FREE} or (state = 'running' and owner = %s)
                              order by dry_run desc, created_at limit 1 for update skip locked)
         returning {_COLUMNS}""",  # noqa: S608
        [owner, seconds, owner],
    )
    return next(iter(claimed), None)


def plan_waits(connection: Connection) -> bool:
    """Whether a plan waits for a process."""
    row = connection.execute(f"select exists (select from replay where {_FREE} and dry_run)").fetchone()  # noqa: S608
    return bool(row and row[0])


def renew(connection: Connection, replay: UUID, owner: str, seconds: float) -> None:
    """Stay the owner while there is nothing to do yet; raises `ReplayLost`."""
    _owned(connection, "owned_until = clock_timestamp() + make_interval(secs => %s)", [seconds], replay, owner)


def advance_in_log(connection: Connection, replay: UUID, owner: str, place: Range, end: int, offsets: int, seconds: float) -> int:
    """Record, within the transaction that gives them, that the `offsets` before `end` have their verdicts.

    Returns the number of the first of their lines; raises `ReplayLost`.
    """
    line = _advance(connection, replay, owner, offsets, seconds)
    connection.execute(
        'update replay_range set next = %s where (replay, topic, "partition") = (%s, %s, %s)',
        [end, replay, place.topic, place.partition],
    )
    return line


def advance_in_ledger(connection: Connection, replay: UUID, owner: str, last: SeatRef, seats: int, seconds: float) -> int:
    """The same for the `seats` up to `last`."""
    line = _advance(connection, replay, owner, seats, seconds)
    connection.execute("update replay set after_target = %s, after_seat = %s where replay = %s", [*last, replay])
    return line


def _advance(connection: Connection, replay: UUID, owner: str, count: int, seconds: float) -> int:
    connection.execute("select pg_advisory_xact_lock_shared(%s, hashtext(%s::text))", [_BATCHES, replay])
    assignments = "done = done + %s, owned_until = clock_timestamp() + make_interval(secs => %s)"
    return _owned(connection, assignments, [count, seconds], replay, owner) - count + 1


def finish(connection: Connection, replay: UUID, owner: str, reason: str | None = None) -> None:
    """End the replay: done, or failed for a reason. Raises `ReplayLost`."""
    assignments = "state = %s, reason = %s, finished_at = clock_timestamp(), owner = null, owned_until = null"
    _owned(connection, assignments, ["failed" if reason else "done", reason], replay, owner)


def cancel(connection: Connection, replay: UUID) -> None:
    """End a running replay that the caller has locked: no batch is under way. Its owner finds the replay lost."""
    connection.execute(
        """update replay set state = 'cancelled', finished_at = clock_timestamp(), owner = null, owned_until = null
            where replay = %s and state = 'running'""",
        [replay],
    )


def release(connection: Connection, replay: UUID, owner: str, seconds: float = 0) -> None:
    """Let any process continue, after some seconds."""
    connection.execute(
        """update replay set owner = null, owned_until = clock_timestamp() + make_interval(secs => %s)
            where replay = %s and owner = %s and state = 'running'""",
        [seconds, replay, owner],
    )


def _owned(connection: Connection, assignments: str, values: Sequence[object], replay: UUID, owner: str) -> int:
    """How many offsets or seats are done."""
    row = connection.execute(
        f"update replay set {assignments} where replay = %s and owner = %s and state = 'running' returning done",  # noqa: S608
        [*values, replay, owner],
    ).fetchone()
    if row is None:
        raise ReplayLost
    return int(row[0])


def add_lines(connection: Connection, replay: UUID, first: int, judged: Sequence[Judged], partition: int | None = None) -> None:
    """Store the verdicts of a batch, in the lines from `first` on; each line has exactly one."""
    columns = [
        text_array(str(first + number) for number in range(len(judged))),
        text_array(_text(one.offset) for one in judged),
        text_array(one.verdict for one in judged),
        text_array(one.reason for one in judged),
        text_array(one.entity.tenant if one.entity else None for one in judged),
        text_array(one.entity.kind if one.entity else None for one in judged),
        text_array(one.entity.key if one.entity else None for one in judged),
        text_array(_text(one.version) for one in judged),
        text_array(_text(one.superseded_by) for one in judged),
        text_array(_text(one.superseded_at_offset) for one in judged),
        text_array(one.seat.target if one.seat else None for one in judged),
        text_array(one.seat.seat if one.seat else None for one in judged),
    ]
    connection.execute(
        """insert into replay_line (replay, "partition", line, "offset", verdict, reason, tenant, kind, key, version,
                                    superseded_by, superseded_at_offset, target, seat)
           select %s, %s::int, *
             from unnest(%s::bigint[], %s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[], %s::text[], %s::bigint[],
                         %s::bigint[], %s::bigint[], %s::text[], %s::text[])""",
        [replay, partition, *columns],
    )


def _text(number: int | None) -> str | None:
    return None if number is None else str(number)


def _read(connection: Connection, query: str, values: Sequence[object]) -> list[Replay]:
    with connection.cursor(row_factory=dict_row) as cursor:
        return [_replay(row) for row in cursor.execute(query.encode(), values).fetchall()]


def _replay(row: dict[str, Any]) -> Replay:
    return Replay(
        scope=replay_scopes.of_json(orjson.dumps(row.pop("scope"))),
        ranges=tuple(Range(**one) for one in row.pop("ranges")),
        after=SeatRef(row.pop("after_target"), row.pop("after_seat")),
        **row,
    )
