"""Deciding people again because a moment has come: an enrollment of theirs begins.

Whoever decides a person notes when time alone will change the decision; see `decision_plan.Plan.wakes`.
"""

from __future__ import annotations

from typing import NamedTuple

from services.consumer.ledger.deciding import decide_persons, lock_persons
from services.consumer.ledger.policies import Policies
from services.consumer.nouns import PersonRef, SeatRef
from services.kit.postgres import Connection, text_array

_AT_ONCE = 200
"""People decided in one transaction. On the first day of a term there are many thousands."""

_DUE = "select tenant, person from wake where at <= clock_timestamp() order by at limit %s"
_FORGET = """
delete from wake using unnest(%s::text[], %s::text[]) as woken (tenant, person)
 where (wake.tenant, wake.person) = (woken.tenant, woken.person)
"""


class Woken(NamedTuple):
    """What one round did."""

    work: set[SeatRef]
    more: bool
    """Whether others may be due by now."""


def wake_due(connection: Connection, policies: Policies) -> Woken:
    """Decide the next people whose moment has come, in one transaction of its own. Several processes may do it at once.

    The notes go before the decision, which writes new ones for all that still lies in the future.
    """
    with connection.transaction():
        persons = sorted(PersonRef(*row) for row in connection.execute(_DUE, [_AT_ONCE]).fetchall())
        if not persons:
            return Woken(set(), more=False)
        lock_persons(connection, persons)
        connection.execute(_FORGET, [text_array(one.tenant for one in persons), text_array(one.person for one in persons)])
        return Woken(decide_persons(connection, persons, policies, cause="start"), len(persons) == _AT_ONCE)
