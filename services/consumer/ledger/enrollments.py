"""Reading what a decision is made from: a person's enrollments at their newest version, each with its section."""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import Any

from schemas import keys
from schemas.keys import EntityKey
from services.consumer.nouns import PersonRef
from services.consumer.policy.facts import Enrollment, SectionState, Stamp
from services.kit.postgres import Connection, text_array


def read(connection: Connection, persons: Collection[PersonRef]) -> dict[PersonRef, list[Enrollment]]:
    """The enrollments of these people. Before deciding, lock the persons first: what is read earlier may be old.

    ``offset 0`` keeps a planner that knows nothing of the tables to one probe of an index for each person.
    """
    rows = connection.execute(
        """select e.tenant, e.person, e.key, e.version, e.accepted_at,
                  e.event->>'status', e.event->>'role', e.event->>'effective_date',
                  s.event->>'status', s.event->>'institution', s.event->>'course', s.event->>'session', s.event->>'component',
                  s.version, s.accepted_at
             from unnest(%s::text[], %s::text[]) as p(tenant, person)
            cross join lateral (
              select * from entity
               where entity.tenant = p.tenant and entity.person = p.person and entity.kind = 'enrollment' offset 0) as e
             left join lateral (
              select * from entity where entity.tenant = e.tenant and entity.kind = 'section' and entity.key = e.section
              offset 0) as s on true""",
        [text_array(one.tenant for one in persons), text_array(one.person for one in persons)],
    ).fetchall()
    found: dict[PersonRef, list[Enrollment]] = {person: [] for person in persons}
    for tenant, person, key, version, accepted_at, status, role, effective_date, *section in rows:
        found[PersonRef(tenant, person)].append(
            Enrollment(
                entity=EntityKey(tenant, "enrollment", key),
                status=status,
                role=role,
                effective_date=date.fromisoformat(effective_date) if effective_date else None,
                stamp=Stamp(accepted_at, version),
                section=_section(tenant, *section),
            )
        )
    return found


def _section(
    tenant: str, status: Any, institution: Any, course: Any, session: Any, component: Any, version: Any, accepted_at: Any
) -> SectionState | None:
    """None while the SIS has told nothing about the section; its members count as enrolled in one that takes place."""
    if status is None:
        return None
    course_key = keys.course_key(tenant, institution, course).key if course else None
    return SectionState(status, course_key, Stamp(accepted_at, version), session, component)
