"""Deciding people under their locks, and writing down what has to be done.

Every transaction that decides, whoever asks for it, goes through `decide_persons`: it locks the persons, sorted, and only then
reads their entities. So two that decide the same person pass one after the other, and the second sees what the first has written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Literal

from services.consumer.ledger import decision_plan, decision_writing, overrides
from services.consumer.ledger.decision_plan import Plan
from services.consumer.ledger.decision_writing import Cause
from services.consumer.ledger.policies import Policies
from services.consumer.nouns import Effect, PersonRef, SeatRef
from services.consumer.policy.facts import Stamp
from services.kit.postgres import Connection, text_array

_CHUNK = 500
"""People decided with one round of statements; a section's own event may touch thousands."""


def decide_persons(
    connection: Connection,
    persons: Collection[PersonRef],
    policies: Policies,
    *,
    cause: Cause,
    effects: Counter[Effect | Literal["none"]] | None = None,
) -> set[SeatRef]:
    """Decide these people from what the ledger knows, in the caller's open transaction; returns the seats that now have work.

    Writes entitlements, seats, work and history, and only where something changes. `effects` counts the decisions. A tenant
    without a policy gets no seats. An override whose time is over ends here, whatever the persons are decided for. Calls that
    are under way are left alone: whoever settles them looks at the seat again.
    """
    ordered = sorted(set(persons))
    if not ordered:
        return set()
    lock_persons(connection, ordered)
    active, now = policies.active(connection), _now(connection)
    exceptions = overrides.settle(connection, ordered)
    work: set[SeatRef] = set()
    for chunk in _chunks([person for person in ordered if person.tenant in active]):
        plan = decision_plan.plan(connection, chunk, active, policies.target, exceptions, now)
        if plan.agreed:
            exceptions = overrides.end_agreed(connection, exceptions, plan.agreed)
            plan = decision_plan.plan(connection, chunk, active, policies.target, exceptions, now)
        if cause == "policy":
            plan = _counted_from(now, plan)
        work |= decision_writing.write(connection, plan, policies, cause)
        if effects is not None:
            effects.update(change.effect for change in plan.changes)
            effects["none"] += plan.unchanged
    return work


def lock_persons(connection: Connection, ordered: Sequence[PersonRef]) -> None:
    """Take the locks that stand for these people, in the order of their keys, creating what is missing.

    The update never happens: a row that is there already is locked, and left as it is.
    """
    connection.execute(
        """insert into person (tenant, person)
           select * from unnest(%s::text[], %s::text[]) as p(tenant, person) order by tenant, person
           on conflict (tenant, person) do update set person = excluded.person where false""",
        [text_array(one.tenant for one in ordered), text_array(one.person for one in ordered)],
    )


def _chunks(persons: Sequence[PersonRef]) -> Iterator[Sequence[PersonRef]]:
    return (persons[start : start + _CHUNK] for start in range(0, len(persons), _CHUNK))


def _now(connection: Connection) -> datetime:
    """What the database's clock says, after the locks: whoever waited for them decides by the time that it is then."""
    row = connection.execute("select clock_timestamp()").fetchone()
    assert row is not None  # noqa: S101  (always one row)
    now: datetime = row[0]
    return now


def _counted_from(now: datetime, plan: Plan) -> Plan:
    """Freshness of what another policy changes counts from now, not from the old event."""
    return replace(plan, changes=[one._replace(because=Stamp(now, one.because.version)) for one in plan.changes])
