"""Deciding everybody again after the policy changed: in batches, each its own transaction, continued after a crash."""

from __future__ import annotations

from collections.abc import Iterator

from services.consumer.ledger import section_courses
from services.consumer.ledger.deciding import decide_persons
from services.consumer.ledger.policies import Policies
from services.consumer.nouns import PersonRef, SeatRef
from services.kit.postgres import Connection

_BATCH = 500


def unfinished(connection: Connection) -> list[str]:
    """Tenants whose active policy has not reached everybody."""
    rows = connection.execute("select tenant from policy where active and redecided_at is null order by tenant").fetchall()
    return [tenant for (tenant,) in rows]


def redecide(connection: Connection, policies: Policies, tenant: str) -> Iterator[set[SeatRef]]:
    """Decide the tenant's people under the active policy; yields the seats with work after each committed batch.

    Two processes may do it at once: a batch locks the policy's row. Who is decided by live events meanwhile is decided by the
    active policy already, and meets no change here.
    """
    while True:
        with connection.transaction():
            row = connection.execute(
                """select redecided_upto from policy where tenant = %s and active and redecided_at is null for no key update""",
                [tenant],
            ).fetchone()
            if row is None:
                return
            if not row[0]:
                section_courses.reconsider(connection, tenant, policies)
            persons = [
                PersonRef(tenant, person)
                for (person,) in connection.execute(
                    "select person from person where tenant = %s and person > %s order by person limit %s",
                    [tenant, row[0], _BATCH],
                ).fetchall()
            ]
            seats = decide_persons(connection, persons, policies, cause="policy")
            _note(connection, tenant, persons)
        yield seats


def _note(connection: Connection, tenant: str, persons: list[PersonRef]) -> None:
    if persons:
        connection.execute("update policy set redecided_upto = %s where tenant = %s and active", [persons[-1].person, tenant])
    else:
        connection.execute("update policy set redecided_at = clock_timestamp() where tenant = %s and active", [tenant])
