"""The inverse of what we did to the LMS between two times: which seats would have to be what, to be as they were before."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, NamedTuple

import orjson

from schemas import keys
from schemas.events import EnrollmentRole
from services.consumer.ledger.policies import ActivePolicy, Policies
from services.consumer.nouns import AppliedState, SeatState, satisfied, state_of
from services.kit.postgres import Connection

MOST = 2000
"""Seats of one undo: they are decided in one transaction."""

Left = Literal["as_before", "not_known", "no_role"]
"""Why a seat that was touched is left alone: it is by now as it was before; nobody knows what it was; the policy has no role of
the student system that is the seat's."""


class Scope(NamedTuple):
    """Where: everywhere, or in an institution's term, in one section, or of one person."""

    institution: str | None = None
    term: str | None = None
    section: str | None = None
    person: str | None = None
    """SIS id."""

    @property
    def prefix(self) -> str:
        """What the keys of its sections, with a slash behind them, begin with."""
        parts = [part for part in self[:3] if part is not None]
        return keys.join(*parts) + "/" if parts else ""

    def as_json(self) -> str:
        """As it is stored; ``{}`` for everywhere."""
        return orjson.dumps({name: part for name, part in self._asdict().items() if part is not None}).decode()


class Window(NamedTuple):
    """From a moment, and before another one."""

    begins: datetime
    ends: datetime


class Inverse(NamedTuple):
    """One seat, and what it was before."""

    seat: str
    """Its key within the target."""
    person: str
    section: str
    """Section key text."""
    role: EnrollmentRole
    gives: SeatState
    """What it was, and would be again."""
    shown: AppliedState
    """What it is."""


@dataclass
class UndoPlan:
    """What an undo would do."""

    inverses: list[Inverse] = field(default_factory=list)
    """By seat."""
    left: Counter[Left] = field(default_factory=Counter)

    @property
    def digest(self) -> str:
        """Names the plan: the same as long as it says the same."""
        told = "\n".join("\0".join(map(str, one)) for one in self.inverses)
        return hashlib.sha256(told.encode()).hexdigest()


class TooMany(Exception):
    """More seats than one undo may have: name a term, a section or a person, or a shorter time."""


# The first change of each seat within the time tells what the seat was before it, also one of which nobody knew whether it had
# happened. An older release did not say.
_TOUCHED = """
with touched as (
  select distinct on (seat) seat, detail ->> 'before' as before
    from history
   where at >= %(begins)s and at < %(ends)s and tenant = %(tenant)s and target = %(target)s and what = 'outcome'
     and (detail ->> 'before' is not null or (not detail ? 'before' and detail ->> 'outcome' = 'done'))
     and starts_with(section || '/', %(prefix)s) and (%(person)s::text is null or person = %(person)s)
   order by seat, at)
select seat.seat, seat.person, seat.section, seat.role, seat.base_role, seat.applied, touched.before
  from touched join seat on seat.target = %(target)s and seat.seat = touched.seat
 where seat.tenant = %(tenant)s
 order by seat.seat limit %(limit)s
"""


def plan(connection: Connection, policies: Policies, tenant: str, window: Window, scope: Scope) -> UndoPlan:
    """What would have to be undone, from what is written down. Raises `TooMany`. Locks and writes nothing."""
    found = UndoPlan()
    active = policies.active(connection).get(tenant)
    parameters = {
        "begins": window.begins,
        "ends": window.ends,
        "tenant": tenant,
        "target": policies.target,
        "prefix": scope.prefix,
        "person": scope.person,
        "limit": MOST + 1,
    }
    rows = connection.execute(_TOUCHED, parameters, prepare=False).fetchall()
    if len(rows) > MOST:
        raise TooMany
    for seat, person, section, label, base, shown, before in rows:
        inverse = _inverse(active, seat, person, section, (label, base), shown, before)
        if isinstance(inverse, Inverse):
            found.inverses.append(inverse)
        else:
            found.left[inverse] += 1
    return found


def _inverse(
    active: ActivePolicy | None,
    seat: str,
    person: str,
    section: str,
    role: tuple[str, str],
    shown: AppliedState,
    before: AppliedState | None,
) -> Inverse | Left:
    was = state_of(before or "unknown")
    if was is None:
        return "not_known"
    if satisfied(was, shown):
        return "as_before"
    called = active.policy.role_called(*role) if active else None
    return Inverse(seat, person, section, called, was, shown) if called else "no_role"
