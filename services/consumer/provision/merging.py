"""People whom the SIS keeps under another id, and that one perhaps under a third."""

from __future__ import annotations

from schemas import keys
from services.kit.postgres import Connection

_KEPT_UNDER = "select event ->> 'merged_into' from entity where (tenant, kind, key) = (%s, 'person', %s)"


def last_heir(connection: Connection, tenant: str, person: str) -> str | None:
    """Under which id the SIS keeps this person in the end, by its newest events: their own unless it says otherwise. None when it
    leads in a circle."""
    passed: set[str] = set()
    while person not in passed:
        passed.add(person)
        row = connection.execute(_KEPT_UNDER, [tenant, keys.join(person)]).fetchone()
        if row is None or row[0] is None:
            return person
        person = row[0]
    return None
