"""What a plan would change, and how that differs from what it would change by now.

Both are the answer of one query over the ledger: when the plan is done its answer is stored with a digest, and asked again when
somebody applies the plan. Which records a range of the log holds cannot change; the plan has noted them.
"""

from __future__ import annotations

from typing import Any, NamedTuple
from uuid import UUID

from services.consumer.ledger import replay_selection
from services.consumer.ledger.reopening import IS_OPENED, SEATS_OF_ENTITIES
from services.consumer.ledger.replay_selection import Named
from services.consumer.ledger.replays import Replay
from services.kit.postgres import Connection

Facts = dict[str, Any]


class Change(NamedTuple):
    """One thing that would change."""

    number: int
    """Counts from 1."""
    subject: dict[str, str]
    """``target`` and ``seat``; or ``tenant``, ``kind`` and ``key`` of an entity whose record would be taken."""
    facts: Facts
    """Of a seat ``desired``, ``applied``, ``work`` (null when settled) and ``version``; of an entity ``version`` and the
    ``ledger_version`` that it replaces."""


class Difference(NamedTuple):
    """A subject of which the plan and the present say different things."""

    subject: dict[str, str]
    planned: Facts | None
    """None: it has appeared."""
    now: Facts | None
    """None: nothing is left to change about it."""


class Differences(NamedTuple):
    """How the world has changed since the plan."""

    appeared: int
    vanished: int
    changed: int
    first: list[Difference]
    """Some of them, by subject."""

    def __bool__(self) -> bool:
        return bool(self.first)


_SEATS_OF_RECORDS = f"""recorded as (
  select tenant, kind, key, max(version) as version
    from replay_line where replay = %(plan)s and key is not null and verdict <> 'hash_alarm' group by tenant, kind, key
), asked as (
  select recorded.* from recorded join entity using (tenant, kind, key) where entity.version = recorded.version
), {SEATS_OF_ENTITIES}, named as (select distinct target, seat from of_entity)"""  # noqa: S608

_TAKEN = """
 union all
select jsonb_build_object('tenant', tenant, 'kind', kind, 'key', key),
       jsonb_build_object('version', recorded.version, 'ledger_version', entity.version)
  from recorded left join entity using (tenant, kind, key)
 where entity.version is null or entity.version < recorded.version"""

_OPENED = f"""
select jsonb_build_object('target', seat.target, 'seat', seat.seat) as subject,
       jsonb_build_object('desired', seat.desired, 'applied', seat.applied, 'work', work.state, 'version', seat.version) as facts
  from named join seat using (target, seat) left join work using (target, seat)
 where {IS_OPENED}"""  # noqa: S608


def _changes(plan: Replay) -> Named:
    """Expressions, the last one called ``change`` (subject, facts): what the plan would change at this moment."""
    if plan.scope.in_the_log:
        expressions, parameters, taken = _SEATS_OF_RECORDS, {"plan": plan.replay}, _TAKEN
    else:
        (expressions, parameters), taken = replay_selection.named(plan.scope), ""
    own = {"plan": plan.replay, "verify": plan.verify}
    return Named(f"{expressions}, change as ({_OPENED}{taken})", parameters | own)


def store(connection: Connection, plan: Replay) -> None:
    """Note what the plan would change, and the digest over it; within the transaction that ends the plan."""
    expressions, parameters = _changes(plan)
    query = f"""
    with {expressions}, stored as (
      insert into replay_change (replay, number, subject, facts)
      select %(plan)s, row_number() over (order by subject::text collate "C"), subject, facts from change
      returning number, subject, facts
    )
    update replay
       set (changes, digest) = (
         select count(*), encode(sha256(coalesce(string_agg(
                  sha256(convert_to(subject::text || facts::text, 'UTF8')), ''::bytea order by number), ''::bytea)), 'hex')
           from stored)
     where replay = %(plan)s"""  # noqa: S608
    connection.execute(query.encode(), parameters, prepare=False)


def page(connection: Connection, plan: UUID, after: int, limit: int) -> list[Change]:
    """The next `limit` changes behind the given number."""
    rows = connection.execute(
        "select number, subject, facts from replay_change where replay = %s and number > %s order by number limit %s",
        [plan, after, limit],
    )
    return [Change(*row) for row in rows.fetchall()]


def differences(connection: Connection, plan: Replay, limit: int) -> Differences:
    """What applying the plan would do otherwise by now than the plan says; at most `limit` of them in detail."""
    expressions, parameters = _changes(plan)
    query = f"""
    with {expressions}, planned as (
      select subject, facts from replay_change where replay = %(plan)s
    ), difference as (
      select subject, planned.facts as planned, change.facts as now
        from planned full join change using (subject) where planned.facts is distinct from change.facts
    )
    select subject, planned, now,
           count(*) filter (where planned is null) over (), count(*) filter (where now is null) over (), count(*) over ()
      from difference order by subject::text collate "C" limit %(limit)s"""  # noqa: S608
    rows = connection.execute(query.encode(), parameters | {"limit": limit}, prepare=False).fetchall()
    appeared, vanished, total = rows[0][3:] if rows else (0, 0, 0)
    return Differences(appeared, vanished, total - appeared - vanished, [Difference(*row[:3]) for row in rows])
