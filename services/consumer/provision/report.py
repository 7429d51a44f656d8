"""The objects of a target for people and gauges: how many are in which state, and each with its reason."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple, get_args

from services.consumer.nouns import ObjectKind
from services.consumer.provision.shadowing import LIVE
from services.consumer.provision.steps import State
from services.kit.postgres import Connection

KINDS: tuple[ObjectKind, ...] = get_args(ObjectKind)
STATES: tuple[State, ...] = get_args(State)


class Count(NamedTuple):
    """Objects of one kind that are in one state for one reason."""

    kind: ObjectKind
    state: State
    reason: str | None
    live: bool
    """Whether they may be written to; nothing is done for the others."""
    objects: int
    oldest_seconds: float
    """Since the longest of them entered this state."""


class Listed(NamedTuple):
    """One object."""

    number: int
    kind: ObjectKind
    sis_id: str
    """As the LMS knows it."""
    section: str | None
    """Key text of the section that it was wanted for."""
    state: State
    reason: str | None
    live: bool
    since: datetime
    next_at: datetime | None
    attempts: int
    lms_id: str | None
    origin: str | None
    kept: list[str]
    """Attributes that somebody has set in the LMS, and that stay so."""
    waits_for: str | None
    """SIS id of what it has to be made in."""


_COUNTS = f"""
select kind, state, reason,
       case when state = 'settled' then true when reason = 'shadow' then false else {LIVE} end as live, count(*)::int,
       extract(epoch from clock_timestamp() - min(state_since))::float8
  from lms_object as object where target = %s
 group by 1, 2, 3, 4 order by 1, 2, 3, 4
"""  # noqa: S608  (a constant of ours)
_PAGE = f"""
select number, kind, object, section, state, reason, {LIVE}, state_since, next_at, attempts, lms_id, origin, kept, waits_object
  from lms_object as object
 where target = %(target)s and number > %(after)s and (%(kind)s::text is null or kind = %(kind)s)
   and (%(state)s::text is null or state = %(state)s)
 order by number limit %(limit)s
"""  # noqa: S608  (a constant of ours)


def counts(connection: Connection, target: str) -> list[Count]:
    """All objects, settled ones too: reads the whole table."""
    return [Count(*row) for row in connection.execute(_COUNTS.encode(), [target]).fetchall()]


def page(
    connection: Connection, target: str, kind: ObjectKind | None, state: State | None, after: int, limit: int
) -> list[Listed]:
    """Objects in the order in which they were taken up."""
    asked = {"target": target, "kind": kind, "state": state, "after": after, "limit": limit}
    return [Listed(*row) for row in connection.execute(_PAGE.encode(), asked).fetchall()]
