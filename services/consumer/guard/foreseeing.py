"""What the guard would hold of removals that nobody has decided yet: for whoever wants to know before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from services.consumer.guard import reading
from services.consumer.guard.judging import Cause, Group, Scope, judge
from services.consumer.ledger.policy_plans import Place
from services.consumer.policy.guard_rules import GuardRules
from services.kit.postgres import Connection


class Expected(NamedTuple):
    """Removals of one scope that would need a person."""

    scope: Scope
    removals: int
    cause: Cause | None
    """None: they would join a hold that is open."""


def foresee(connection: Connection, target: str, tenant: str, removals: Mapping[Place, int], rules: GuardRules) -> list[Expected]:
    """What would be held, under these rules, of so many removals that come at once, beside what went lately and was announced.

    A forecast: what waits already is not in it, and people who only move within a course count as leaving it. Reads all seats
    of the tenant, and writes nothing.
    """
    groups = [
        Group(tenant, place.section, place.course, place.section.rsplit("/", 1)[0], True, False, True, count)
        for place, count in removals.items()
    ]
    if not groups:
        return []
    sizes = reading.sizes_counted_now(connection, target, tenant, groups)
    verdict = judge(groups, sizes, reading.open_holds(connection, target), reading.plans(connection, target), {tenant: rules})
    return [Expected(held.scope, sum(group.size for group in held.groups), held.cause) for held in verdict.held]
