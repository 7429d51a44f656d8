"""Undoing: overrides for all seats of a plan at once, and their end."""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from services.consumer.ledger import overruling, undo_plans
from services.consumer.ledger.overruling import Asked
from services.consumer.ledger.policies import Policies
from services.consumer.ledger.undo_plans import Scope, UndoPlan, Window
from services.consumer.nouns import PersonRef, SeatRef
from services.kit.postgres import Connection


class Order(NamedTuple):
    """What a person asks for."""

    window: Window
    scope: Scope
    digest: str
    """Of the plan that was seen."""
    ends_at: datetime
    """Of the overrides: by then the student system has to say the same."""
    reason: str
    actor: str


class Undone(NamedTuple):
    """What an undo did."""

    undo: UUID
    made: int
    """Overrides."""
    left: int
    """Seats that an override decides already, or to which the policy gives nothing."""
    work: set[SeatRef]


class Undo(NamedTuple):
    """An undo, for people."""

    undo: UUID
    scope: dict[str, str]
    from_at: datetime
    until_at: datetime
    ends_at: datetime
    seats: int
    in_force: int
    """Overrides of it that still decide."""
    reason: str
    actor: str
    made_at: datetime
    withdrawn_at: datetime | None


class WorldChanged(Exception):
    """The plan says something else by now; nothing was done."""

    def __init__(self, now: UndoPlan) -> None:
        super().__init__("world_changed")
        self.now = now


_MAKE = """
insert into undo (tenant, undo, target, scope, from_at, until_at, ends_at, seats, reason, actor)
values (%s, %s, %s, %s::jsonb, %s, %s, %s, %s, %s, %s)
"""
_UNDOS = """
select undo, scope, from_at, until_at, ends_at, seats,
       (select count(*)::int from override
         where override.tenant = undo.tenant and override.undo = undo.undo and ended_at is null and ends_at > clock_timestamp()),
       reason, actor, made_at, withdrawn_at
  from undo where tenant = %(tenant)s and target = %(target)s
"""
_WITHDRAWN = """
update undo set withdrawn_at = clock_timestamp() where tenant = %s and target = %s and undo = %s and withdrawn_at is null
"""


def apply(connection: Connection, policies: Policies, tenant: str, order: Order) -> Undone:
    """Override every seat of the plan, in the caller's open transaction. Removals go through the guard like all others.

    Raises `WorldChanged`, `undo_plans.TooMany` and `overruling.Refused` (the end is out of bounds); nothing is done then.
    """
    plan = undo_plans.plan(connection, policies, tenant, order.window, order.scope)
    if plan.digest != order.digest:
        raise WorldChanged(plan)
    undo = uuid.uuid4()
    asked = [
        Asked(PersonRef(tenant, one.person), one.section, one.role, one.gives, order.ends_at, order.reason, order.actor)
        for one in plan.inverses
    ]
    made, work = overruling.make_many(connection, policies, tenant, asked, undo)
    what = [policies.target, order.scope.as_json(), *order.window, order.ends_at, made, order.reason, order.actor]
    connection.execute(_MAKE, [tenant, undo, *what])
    return Undone(undo, made, len(asked) - made, work)


def withdraw(
    connection: Connection, policies: Policies, tenant: str, undo: UUID, actor: str, reason: str
) -> tuple[int, set[SeatRef]] | None:
    """End what is left of an undo's overrides; how many, and the seats that now have work. None: it was withdrawn before."""
    if connection.execute(_WITHDRAWN, [tenant, policies.target, undo]).rowcount == 0:
        return None
    return overruling.withdraw_many(connection, policies, tenant, undo, actor, reason)


def find(connection: Connection, tenant: str, target: str, limit: int) -> list[Undo]:
    """The newest."""
    rows = connection.execute(
        _UNDOS + " order by made_at desc limit %(limit)s", {"tenant": tenant, "target": target, "limit": limit}
    ).fetchall()
    return [Undo(*row) for row in rows]


def read(connection: Connection, tenant: str, target: str, undo: UUID) -> Undo | None:
    """One."""
    row: Any = connection.execute(
        _UNDOS + " and undo.undo = %(undo)s", {"tenant": tenant, "target": target, "undo": undo}
    ).fetchone()
    return Undo(*row) if row else None
