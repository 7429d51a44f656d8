"""What somebody did in the LMS and the policy takes for right: marked while a roster is recorded, see `adopting` for the rest.

A mark goes with its difference: what a later reading shows no more is not adopted.

What is adopted stays the LMS's to change until its end. When it differs again, whatever the policy says of that, its override
follows, or ends if the SIS says the same by then: a guest whom the teacher has sent away must not be given back.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from services.consumer.ledger import overruling
from services.consumer.ledger.overrides import ADOPTER
from services.consumer.ledger.policies import ActivePolicy
from services.consumer.rosters.acceptance import ShownSeat, acceptable
from services.consumer.rosters.comparing import Difference
from services.consumer.rosters.sections import Section
from services.kit.postgres import Connection, text_array


class Adoption(NamedTuple):
    """A difference that is to hold."""

    subject: str
    seats: Sequence[ShownSeat]
    """Empty: it cannot be adopted, and is not repaired either, because what it changes was adopted before."""
    until: datetime | None
    """The end of the adoption that it goes on with; None: it is the first."""
    lasts: timedelta | None
    """From now on, if it is the first."""


_FORGET = "delete from roster_adoption where target = %s and lms_section = %s"
_MARK = """
insert into roster_adoption (target, lms_section, subject, seat, role, base_role, shown, lms_enrollment, lms_course, run, until)
select %(target)s, %(lms_section)s, subject, seat, role, base_role, shown, lms_enrollment, lms_course, %(run)s,
       coalesce(until, clock_timestamp() + days * interval '1 day')
  from unnest(%(subjects)s::text[], %(seats)s::text[], %(roles)s::text[], %(base_roles)s::text[], %(states)s::text[],
              %(enrollments)s::text[], %(courses)s::text[], %(ends)s::timestamptz[], %(days)s::int[])
       as told (subject, seat, role, base_role, shown, lms_enrollment, lms_course, until, days)
"""
_SECTIONS = "select distinct lms_section from roster_adoption where target = %s order by lms_section"


def wanted(
    connection: Connection, target: str, section: Section, differences: Iterable[Difference], active: ActivePolicy
) -> dict[str, Adoption]:
    """What the policy wants adopted, and can be, by subject. Where a registrar's override decides the seat, that holds."""
    differences = list(differences)
    in_force = overruling.of_seats(connection, target, [one.seat.seat for one in differences if one.seat is not None])
    found = {}
    for one in differences:
        theirs = in_force.get(one.seat.seat, []) if one.seat is not None else []
        lasts = active.policy.drift.adopted_for(one.kind)
        if all(it.actor == ADOPTER for it in theirs) and (theirs or lasts):
            seats = acceptable(one, section.lms_section, section.tenant, active.policy)
            if seats or theirs:
                found[one.subject] = Adoption(one.subject, seats, max((it.ends_at for it in theirs), default=None), lasts)
    return found


def followed_in_shadow(
    connection: Connection, target: str, section: Section, differences: Iterable[Difference], active: ActivePolicy
) -> list[Adoption]:
    """What was adopted and is shown otherwise in shadow, where the LMS is believed each time, whoever asks: when the term goes
    live, it would be written as it was adopted."""
    shadowed = [one for one in differences if one.seat is not None and not one.seat.live]
    found = wanted(connection, target, section, shadowed, active)
    return [one for one in found.values() if one.until is not None]


def forget(connection: Connection, target: str, lms_section: str) -> None:
    """Drop the section's marks: another roster of it is being recorded."""
    connection.execute(_FORGET, [target, lms_section])


def mark(connection: Connection, target: str, section: Section, adoptions: Iterable[Adoption]) -> int:
    """Have these adopted soon, in the transaction that records their roster; how many seats they are."""
    told = [(one, shown) for one in adoptions for shown in one.seats]
    if told:
        connection.execute(
            _MARK,
            {
                "target": target,
                "lms_section": section.lms_section,
                "run": section.run,
                "subjects": text_array(one.subject for one, _ in told),
                "seats": text_array(shown.seat for _, shown in told),
                "roles": text_array(shown.role for _, shown in told),
                "base_roles": text_array(shown.base_role for _, shown in told),
                "states": text_array(shown.state for _, shown in told),
                "enrollments": text_array(shown.lms_enrollment for _, shown in told),
                "courses": text_array(shown.lms_course for _, shown in told),
                "ends": text_array(one.until.isoformat() if one.until else None for one, _ in told),
                "days": text_array(str(one.lasts.days) if one.lasts else None for one, _ in told),
            },
        )
    return len(told)


def due(connection: Connection, target: str) -> list[str]:
    """LMS sections that have marks."""
    return [row[0] for row in connection.execute(_SECTIONS, [target]).fetchall()]
