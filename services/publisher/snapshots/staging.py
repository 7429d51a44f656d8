"""An extract into the table ``snapshot_row``, and the judgement whether it is to be believed. One transaction, no events.

What the mirror holds of the scope and the extract lacks is stored beside its rows, as deletions. Only what the mirror saw before
the extract began, less the late-commit margin, can be lacking; what changes until a deletion is applied is for `mirror.order` to
say.
"""

from __future__ import annotations

import io
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC
from typing import Any, BinaryIO, NamedTuple

import orjson
import psycopg

from services.kit.postgres import Connection
from services.publisher.changes import Change, Reject, Unavailable
from services.publisher.mirror import order
from services.publisher.snapshots import table
from services.publisher.snapshots.table import Removals, Snapshot
from services.publisher.translate.extract import KINDS, ExtractRefused, Line, Manifest, Site, read
from services.publisher.translate.peoplesoft import LATE_COMMIT, MAX_REJECTS

_FEW = 5
"""So many rows may always be lacking: a share of a small scope says nothing."""
_MAX_UNUSABLE_SHARE = 0.1
_LONGEST_LINE = 1024 * 1024
"""Characters. Text without line ends, as an export in JSON is, would else be held in memory as one line."""
_TAKEN = frozenset({"applying", "applied"})


@dataclass(slots=True)
class Reading:
    """What the lines said, counted."""

    rows: int = 0
    unusable: int = 0
    nameless: int = 0
    """Unusable lines that might be about anybody."""
    rejects: list[Reject] = field(default_factory=list)
    """At most `MAX_REJECTS`."""
    reasons: Counter[str] = field(default_factory=Counter)

    def note(self, line: Line) -> None:
        """Count one."""
        self.rows += 1
        if line.reject is None:
            return
        self.unusable += 1
        self.nameless += not line.keys
        self.reasons[line.reject.reason] += 1
        if len(self.rejects) < MAX_REJECTS:
            self.rejects.append(line.reject)


class Staged(NamedTuple):
    """An extract that was taken in."""

    snapshot: Snapshot
    rejects: list[Reject]


class _Lacking(NamedTuple):
    """What the mirror holds, of people and classes that are there by what it says; and what of that the extract lacks."""

    held: int
    lacking: int
    absent: int
    """With those that have left, whose rows are gone as well."""


def stage(
    connection: Connection, file: BinaryIO, manifest: Manifest, digest: str, size: int, site: Site, max_absent_percent: float
) -> Staged:
    """Store it as ``receiving``. Raises `ExtractRefused` or ``Unavailable("busy")``; then nothing is stored."""
    with connection.transaction():
        _wait_for_others(connection)
        removals = table.removals(connection, manifest)
        earlier = table.of_scope(connection, manifest)
        if same := next((one for one in earlier if one.digest == digest and one.started_at == manifest.started_at), None):
            return Staged(same, [])
        _refuse_out_of_turn(manifest, earlier)
        snapshot_id = uuid.uuid4()
        table.insert(connection, snapshot_id, manifest, digest, size, "receiving")
        reading = _copy(connection, file, snapshot_id, manifest, site)
        _refuse_unusable(reading)
        lacking = None if reading.nameless else _note_absent(connection, snapshot_id, manifest)
        doubt = _doubt(lacking, removals, max_absent_percent) if lacking else None
        if lacking and doubt:
            doubt += _renamed(connection, snapshot_id, manifest, lacking)
        _count(connection, snapshot_id, reading, lacking, removals, doubt)
    found = table.find(connection, snapshot_id)
    assert found is not None  # noqa: S101  (written above)
    return Staged(found, reading.rejects)


def _wait_for_others(connection: Connection) -> None:
    """Two extracts at once would both be judged by a mirror that lacks the other. Raises ``Unavailable("busy")``."""
    try:
        connection.execute("select pg_advisory_xact_lock(hashtextextended('snapshots', 0))")
    except psycopg.errors.LockNotAvailable as error:
        raise Unavailable("busy") from error


def _refuse_out_of_turn(manifest: Manifest, earlier: list[Snapshot]) -> None:
    if any(one.state == "applying" for one in earlier):
        raise Unavailable("busy")
    taken = [one for one in earlier if one.state in _TAKEN]
    if any(manifest.started_at <= one.started_at for one in taken):
        raise ExtractRefused("not_newer", "an extract of this scope that began later, or at the same time, was taken already")
    # Of two queries that ran at the same time nobody can say which one saw a row last.
    if any(manifest.started_at < one.ended_at for one in taken):
        raise ExtractRefused(
            "not_newer", "it began before the last extract of its scope had ended (or arrived, if that was not told)"
        )


# --- the lines -------------------------------------------------------------------------------------------------------


def _copy(connection: Connection, file: BinaryIO, snapshot_id: uuid.UUID, manifest: Manifest, site: Site) -> Reading:
    """Line by line, so that an extract of any length takes the memory of one."""
    reading = Reading()
    text = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
    try:
        with (
            connection.cursor() as cursor,
            cursor.copy(
                """copy snapshot_row (snapshot, number, says, record, key, key_columns, columns, entity_kind, entity_key, deleted)
                   from stdin"""
            ) as copy,
        ):
            number = 0
            for line in read(_lines(text), manifest, site):
                reading.note(line)
                for row in _rows(line, manifest):
                    number += 1
                    copy.write_row((snapshot_id, number, *row))
    finally:
        text.detach()
    # Until the server has counted them it takes the rows for a handful, to be gone through again for each row of the mirror.
    connection.execute("analyze snapshot_row")
    _keep_last_of_each_key(connection, snapshot_id)
    return reading


def _keep_last_of_each_key(connection: Connection, snapshot_id: uuid.UUID) -> None:
    """Rows of one extract tie, so that arrival would decide: a page that is applied again would bring back the earlier row."""
    connection.execute(
        """with doubled as materialized (
             select record, key, max(number) as last from snapshot_row
              where snapshot = %(snapshot)s and says = 'present' group by record, key having count(*) > 1)
           delete from snapshot_row r using doubled d
            where r.snapshot = %(snapshot)s and (r.record, r.key) = (d.record, d.key)
              and r.says = 'present' and r.number < d.last""",
        {"snapshot": snapshot_id},
    )


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise ExtractRefused("malformed_csv", f"a line of more than {_LONGEST_LINE} characters; is it CSV?")
        yield line


def _rows(line: Line, manifest: Manifest) -> Iterator[tuple[Any, ...]]:
    for change in line.changes:
        yield _row("present", change)
    for key in line.keys:
        yield "unusable", KINDS[manifest.kind].record.name, key, None, None, None, None, False


def _row(says: str, change: Change) -> tuple[Any, ...]:
    entity = (change.entity.kind, change.entity.key) if change.entity else (None, None)
    columns = (orjson.dumps(change.key).decode(), orjson.dumps(change.columns).decode())
    return (says, change.record, change.row_key, *columns, *entity, change.deleted)


def _refuse_unusable(reading: Reading) -> None:
    if reading.unusable == reading.rows or reading.unusable > max(_FEW, _MAX_UNUSABLE_SHARE * reading.rows):
        reasons = ", ".join(f"{reason} {count}" for reason, count in reading.reasons.most_common(3))
        raise ExtractRefused("unusable_rows", f"{reading.unusable} of {reading.rows} rows cannot be used: {reasons}")


# --- what is lacking -------------------------------------------------------------------------------------------------


def _note_absent(connection: Connection, snapshot_id: uuid.UUID, manifest: Manifest) -> _Lacking:
    kind = KINDS[manifest.kind]
    values = {
        "snapshot": snapshot_id,
        "tenant": manifest.tenant,
        "institution": manifest.institution,
        "term": manifest.term,
        "entity": kind.entity,
        "record": kind.record.name,
        "companion": kind.companion.name if kind.companion else None,
        "channel": manifest.channel,
        "position": manifest.order.position,
        "before": manifest.started_at - LATE_COMMIT - order.MARGIN,
    }
    # Looked up entity by entity (hence the offset): a join whose keys are partly constants goes through a table that nobody has
    # counted yet once for each row.
    row = connection.execute(
        """with held as materialized (
             select s.record, s.key, s.key_columns, s.entity_kind, s.entity_key,
                    coalesce(e.status, '') not in ('dropped', 'cancelled', 'removed') as there,
                    (coalesce(s.as_of_to, s.as_of_from) < %(before)s or (s.channel = %(channel)s and s.position < %(position)s))
                    and not exists (select from snapshot_row r
                                     where r.snapshot = %(snapshot)s and (r.record, r.key) = (s.record, s.key)) as absent
               from entity e
               cross join lateral (
                 select * from source_row r where (r.tenant, r.entity_kind, r.entity_key) = (e.tenant, e.kind, e.key) offset 0) s
              where (e.tenant, e.institution, e.term, e.kind) = (%(tenant)s, %(institution)s, %(term)s, %(entity)s)
                and s.record = %(record)s and not s.deleted),
           gone as (
             select record, key, key_columns, entity_kind, entity_key from held where absent
             union all
             select s.record, s.key, s.key_columns, s.entity_kind, s.entity_key
               from held h join source_row s on (s.tenant, s.record, s.key) = (%(tenant)s, %(companion)s, h.key)
              where h.absent and not s.deleted),
           stored as (
             insert into snapshot_row
                    (snapshot, number, says, record, key, key_columns, columns, entity_kind, entity_key, deleted)
             select %(snapshot)s,
                    row_number() over (order by key, record)
                    + (select coalesce(max(number), 0) from snapshot_row where snapshot = %(snapshot)s),
                    'absent', record, key, key_columns, '{}', entity_kind, entity_key, true
               from gone)
           select count(*) filter (where there), count(*) filter (where there and absent), count(*) filter (where absent)
             from held""",
        values,
    ).fetchone()
    assert row is not None  # noqa: S101  (an aggregate always returns its row)
    return _Lacking(*row)


def _doubt(lacking: _Lacking, removals: Removals, max_absent_percent: float) -> str | None:
    """Why a person has to look before anything is removed: because of what extracts remove together, not of each alone."""
    together, of = lacking.lacking + removals.rows, lacking.held + removals.rows
    if not lacking.lacking or together <= max(_FEW, of * max_absent_percent / 100):
        return None
    told = f"the extract lacks {lacking.lacking} of the {lacking.held} rows that the mirror holds of its scope"
    if not removals.rows:
        return told
    since = removals.since.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"{told}; with {removals.rows} that extracts have removed since {since} it is {together} of {of}"


def _renamed(connection: Connection, snapshot_id: uuid.UUID, manifest: Manifest, lacking: _Lacking) -> str:
    new = _count_new(connection, snapshot_id, manifest)
    return f" and has {new} that the mirror does not know: has an id been renamed?" if 2 * new >= lacking.lacking else ""


def _count_new(connection: Connection, snapshot_id: uuid.UUID, manifest: Manifest) -> int:
    row = connection.execute(
        """select count(*) from snapshot_row r
            where r.snapshot = %s and r.says = 'present' and r.record = %s
              and not exists (select from source_row s where (s.tenant, s.record, s.key) = (%s, r.record, r.key))""",
        [snapshot_id, KINDS[manifest.kind].record.name, manifest.tenant],
    ).fetchone()
    return int(row[0]) if row else 0


def _count(
    connection: Connection,
    snapshot_id: uuid.UUID,
    reading: Reading,
    lacking: _Lacking | None,
    removals: Removals,
    doubt: str | None,
) -> None:
    detail = f"{reading.nameless} rows without a readable key: nothing is concluded from absence" if reading.nameless else doubt
    connection.execute(
        """update snapshot s
              set rows = %(rows)s, unusable = %(unusable)s, absent = %(absent)s, lacking = %(lacking)s,
                  counted_at = %(counted_at)s, counted_since = %(since)s, reason = %(reason)s, detail = %(detail)s,
                  total = (select coalesce(max(r.number), 0) from snapshot_row r where r.snapshot = s.id and r.says <> 'unusable')
            where s.id = %(id)s""",
        {
            "id": snapshot_id,
            "rows": reading.rows,
            "unusable": reading.unusable,
            "absent": lacking and lacking.absent,
            "lacking": lacking and lacking.lacking,
            "counted_at": removals.counted_at,
            "since": removals.since,
            "reason": "shrunk" if doubt else None,
            "detail": detail,
        },
    )
