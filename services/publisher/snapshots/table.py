"""The rows of ``snapshot``: what became of each extract, who works on it, and how far they have come."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple

from services.kit.postgres import Connection
from services.publisher.translate.extract import Manifest

State = Literal["receiving", "refused", "held", "applying", "applied", "superseded"]
"""``receiving``: stored, its rejects not yet in quarantine. ``refused``: nothing of it was used. ``held``: waits for a person.
``superseded``: another extract of the same scope was taken instead."""
_CLAIM_SECONDS = 15
"""A process that has not finished a page for so long is taken for dead."""
_KEEP_DAYS = 90
_LISTED = 50
_TOGETHER_HOURS = 36
"""What extracts remove within this time is judged together. More than a day, so that one a night counts with the last, whichever
of the two was late."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One extract, as far as it has come. Counts are of rows."""

    id: uuid.UUID
    kind: str
    institution: str
    term: str
    channel: str
    started_at: datetime
    ended_at: datetime
    received_at: datetime
    digest: str
    bytes: int
    state: State
    reason: str | None
    """Why it was refused or is held: a closed code."""
    detail: str | None
    """The same for people."""
    rows: int
    unusable: int
    absent: int | None
    """Of the mirror that the extract lacks; None: nothing is concluded from absence."""
    total: int
    done: int
    changed: int
    approved_by: str | None
    closed_at: datetime | None


_COLUMNS = """id, kind, institution, term, channel, started_at, ended_at, received_at, digest, bytes, state, reason, detail,
    rows, unusable, absent, total, done, changed, approved_by, closed_at"""


class Progress(NamedTuple):
    """What one page brought."""

    done: int
    """The number of its last row."""
    changed: int
    last: bool


class Removals(NamedTuple):
    """What extracts of one scope have removed that nobody approved."""

    rows: int
    """Of people and classes that were there."""
    since: datetime
    counted_at: datetime


# --- taking one in ---------------------------------------------------------------------------------------------------


def insert(connection: Connection, snapshot_id: uuid.UUID, manifest: Manifest, digest: str, size: int, state: State) -> None:
    """Note an extract, of which nothing is counted yet, and forget what is long past."""
    _forget_old(connection)
    connection.execute(
        """insert into snapshot (id, tenant, kind, institution, term, channel, started_at, ended_at, received_at, digest, bytes,
                                 state)
           values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)""",
        [
            snapshot_id, manifest.tenant, manifest.kind, manifest.institution, manifest.term, manifest.channel,
            manifest.started_at, manifest.ended_at, manifest.received_at, digest, size, state,
        ],
    )  # fmt: skip


def refuse(connection: Connection, manifest: Manifest, digest: str, size: int, reason: str, detail: str) -> Snapshot:
    """Note that one was refused."""
    snapshot_id = uuid.uuid4()
    with connection.transaction():
        insert(connection, snapshot_id, manifest, digest, size, "refused")
        connection.execute(
            "update snapshot set reason = %s, detail = %s, closed_at = clock_timestamp() where id = %s",
            [reason, detail, snapshot_id],
        )
    return _known(connection, snapshot_id)


def of_scope(connection: Connection, manifest: Manifest) -> list[Snapshot]:
    """Those of the same scope that were taken or wait for a person, the newest first."""
    rows = connection.execute(
        f"""select {_COLUMNS} from snapshot
             where (tenant, kind, institution, term) = (%s, %s, %s, %s) and state in ('held', 'applying', 'applied')
             order by started_at desc, received_at desc limit %s""",  # noqa: S608  (a constant of this module)
        [manifest.tenant, manifest.kind, manifest.institution, manifest.term, _LISTED],
    )
    return [_snapshot(row) for row in rows]


def is_scope_busy(connection: Connection, manifest: Manifest) -> bool:
    """Whether another one is being applied. One that began at the same time may be this one, sent again."""
    found = connection.execute(
        """select from snapshot
            where (tenant, kind, institution, term) = (%s, %s, %s, %s) and state = 'applying' and started_at <> %s""",
        [manifest.tenant, manifest.kind, manifest.institution, manifest.term, manifest.started_at],
    )
    return found.rowcount > 0


def removals(connection: Connection, manifest: Manifest) -> Removals:
    """Since the last approval, and for `_TOGETHER_HOURS` at most. While one waits for a person that time stands still: the clock
    lets none go."""
    row = connection.execute(
        f"""with scope as (
              select * from snapshot where (tenant, kind, institution, term) = (%s, %s, %s, %s)),
            begun as (
              select greatest(
                       coalesce((select min(counted_since) from scope where state = 'held'),
                                clock_timestamp() - interval '{_TOGETHER_HOURS} hours'),
                       (select max(counted_at) from scope where approved_by is not null)) as since)
            select coalesce(sum(lacking), 0)::bigint, since, clock_timestamp()
              from begun left join scope
                on counted_at > since and state in ('applying', 'applied')
             group by since""",  # noqa: S608  (a constant of this module)
        [manifest.tenant, manifest.kind, manifest.institution, manifest.term],
    ).fetchone()
    assert row is not None  # noqa: S101  (`begun` is one row)
    return Removals(*row)


def open_up(connection: Connection, snapshot_id: uuid.UUID) -> Snapshot:
    """Its rejects are safe: apply it, or hold it when it has a reason for that; what was held of its scope is moot.

    It stays ``receiving`` when another one of its scope was applied after it was judged. Raises `psycopg.errors.UniqueViolation`
    when that happens just now.
    """
    with connection.transaction():
        _end_older(connection, snapshot_id)
        connection.execute(
            """update snapshot s set state = case when s.reason is null then 'applying' else 'held' end
                where s.id = %s and s.state = 'receiving'
                  and not exists (
                    select from snapshot other
                     where (other.tenant, other.kind, other.institution, other.term) = (s.tenant, s.kind, s.institution, s.term)
                       and (other.state = 'applying' or (other.state = 'applied' and other.closed_at > s.counted_at)))""",
            [snapshot_id],
        )
    return _known(connection, snapshot_id)


def give_up(connection: Connection, snapshot_id: uuid.UUID) -> None:
    """It was not opened up, and its sender hears so: what is stored of it serves nobody."""
    with connection.transaction():
        connection.execute(
            "update snapshot set state = 'superseded', closed_at = clock_timestamp() where id = %s and state = 'receiving'",
            [snapshot_id],
        )
        _forget_rows(connection, snapshot_id)


def approve(connection: Connection, snapshot_id: uuid.UUID, digest: str, actor: str) -> Snapshot | None:
    """Apply one that is held; None when that is not what it is. Raises as `open_up`."""
    with connection.transaction():
        row = connection.execute(
            f"""update snapshot set state = 'applying', approved_by = %s
                 where id = %s and digest = %s and state = 'held' returning {_COLUMNS}""",  # noqa: S608
            [actor, snapshot_id, digest],
        ).fetchone()
        if row is None:
            return None
        _end_older(connection, snapshot_id)
    return _snapshot(row)


def _end_older(connection: Connection, newer: uuid.UUID) -> None:
    """What is held of the same scope and is no newer is moot: applied later, it would bring back who has left since."""
    moot = connection.execute(
        """update snapshot s set state = 'superseded', closed_at = clock_timestamp()
             from snapshot new
            where new.id = %s
              and (s.tenant, s.kind, s.institution, s.term) = (new.tenant, new.kind, new.institution, new.term)
              and s.id <> new.id and s.state in ('held', 'receiving') and s.started_at <= new.started_at
            returning s.id""",
        [newer],
    ).fetchall()
    _forget_rows(connection, *(row[0] for row in moot))


# --- working on them -------------------------------------------------------------------------------------------------


def claim(connection: Connection, tenant: str, worker: uuid.UUID) -> Snapshot | None:
    """The oldest that is to be applied, kept from other processes for a while; None when there is nothing to do.

    One at a time, whatever its scope: one extract is as much as the mirror should have in hand beside live changes.
    """
    row = connection.execute(
        f"""update snapshot
               set worker = %(worker)s, worker_until = clock_timestamp() + make_interval(secs => {_CLAIM_SECONDS})
             where id = (select id from snapshot where tenant = %(tenant)s and state = 'applying'
                          order by received_at limit 1 for update)
               and (worker is null or worker = %(worker)s or worker_until < clock_timestamp())
            returning {_COLUMNS}""",  # noqa: S608
        {"tenant": tenant, "worker": worker},
    ).fetchone()
    return _snapshot(row) if row else None


def advance(connection: Connection, snapshot_id: uuid.UUID, progress: Progress, worker: uuid.UUID) -> None:
    """Note that a page is in the mirror. Says nothing where another process has taken over."""
    with connection.transaction():
        connection.execute(
            f"""update snapshot
                   set done = %(done)s, changed = changed + %(changed)s,
                       worker_until = clock_timestamp() + make_interval(secs => {_CLAIM_SECONDS}),
                       state = case when %(last)s then 'applied' else state end,
                       closed_at = case when %(last)s then clock_timestamp() end
                 where id = %(id)s and worker = %(worker)s and state = 'applying'""",  # noqa: S608
            {"id": snapshot_id, "worker": worker, **progress._asdict()},
        )
        if progress.last:
            _forget_rows(connection, snapshot_id)


def release(connection: Connection, worker: uuid.UUID) -> None:
    """Let other processes go on at once."""
    connection.execute("update snapshot set worker = null where worker = %s and state = 'applying'", [worker])


def _forget_old(connection: Connection) -> None:
    """What ended long ago, and what its process left behind before it was taken (the sender had no answer, and sent it again).

    But for what somebody else is forgetting already: that is for as long as an extract takes to be stored.
    """
    old = connection.execute(
        """delete from snapshot
            where id in (select id from snapshot
                          where closed_at < clock_timestamp() - make_interval(days => %s)
                             or (state = 'receiving' and received_at < clock_timestamp() - interval '1 day')
                            for update skip locked)
            returning id""",
        [_KEEP_DAYS],
    ).fetchall()
    _forget_rows(connection, *(row[0] for row in old))


def _forget_rows(connection: Connection, *ended: uuid.UUID) -> None:
    connection.execute("delete from snapshot_row where snapshot = any(%s)", [list(ended)])


# --- looking at them -------------------------------------------------------------------------------------------------


def find(connection: Connection, snapshot_id: uuid.UUID) -> Snapshot | None:
    """One."""
    row = connection.execute(f"select {_COLUMNS} from snapshot where id = %s", [snapshot_id]).fetchone()  # noqa: S608
    return _snapshot(row) if row else None


def newest(connection: Connection) -> Sequence[Snapshot]:
    """Those that are open, then the latest, with those that were refused: a job that is refused every minute hides nothing."""
    rows = connection.execute(
        f"""select {_COLUMNS} from snapshot
             order by (state in ('held', 'applying')) desc, received_at desc limit {_LISTED}"""  # noqa: S608
    )
    return [_snapshot(row) for row in rows]


def count_open(connection: Connection) -> dict[State, int]:
    """How many are held, and how many are being applied."""
    rows = connection.execute("select state, count(*) from snapshot where state in ('held', 'applying') group by state")
    counts: dict[State, int] = {"held": 0, "applying": 0}
    return counts | dict(rows.fetchall())


def _known(connection: Connection, snapshot_id: uuid.UUID) -> Snapshot:
    found = find(connection, snapshot_id)
    assert found is not None  # noqa: S101  (written by the caller)
    return found


def _snapshot(row: tuple[Any, ...]) -> Snapshot:
    return Snapshot(*row)
