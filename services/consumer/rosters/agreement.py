"""How far the LMS is as the ledger wants it, term by term: what a campus looks at before it goes live."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from services.consumer.ledger.writing import is_live
from services.consumer.nouns import SATISFIED
from services.kit.postgres import Connection

# Reads all seats in its scope, seconds at millions.
_TERMS = f"""
with term as (
  select split_part(seat.section, '/', 1) || '/' || split_part(seat.section, '/', 2) as term, count(*)::int as seats,
         count(*) filter (where applied <> 'unknown' and {SATISFIED} and finding.seat is null)::int as agree,
         count(*) filter (where applied = 'unknown')::int as unknown,
         count(*) filter (where applied <> 'unknown' and not {SATISFIED}
                            and accepted_at > clock_timestamp() - interval '1 day')::int as young
    from seat
    left join (select distinct seat from roster_finding where target = %(target)s and seat is not null) as finding using (seat)
   where target = %(target)s and starts_with(section || '/', %(prefix)s) group by 1),
reading as (
  select split_part(section, '/', 1) || '/' || split_part(section, '/', 2) as term, min(read_at) as oldest,
         count(*)::int as sections
    from (select distinct on (lms_section) section, read_at from roster_section
           where target = %(target)s and state = 'read' and starts_with(section || '/', %(prefix)s)
           order by lms_section, read_at desc) as newest
   group by 1)
select term.term, {is_live("%(target)s", "term.term")}, seats, agree, unknown, young, coalesce(sections, 0), oldest
  from term left join reading using (term) order by term.term
"""  # noqa: S608  (constants of ours)


class Agreement(NamedTuple):
    """One term."""

    term: str
    """Term key text."""
    live: bool
    seats: int
    agree: int
    """Seats that the LMS showed as they should be, when they were last looked at."""
    unknown: int
    """Seats that nobody has looked at."""
    young: int
    """Of the others, those that the student system changed within a day: another feed may not have brought them yet."""
    sections_read: int
    oldest_reading_at: datetime | None
    """Nothing in the term was looked at earlier than this, except what was never."""


def by_term(connection: Connection, target: str, prefix: str) -> list[Agreement]:
    """Every term that has seats, of the sections whose key, with a slash behind it, begins with `prefix`."""
    rows = connection.execute(_TERMS.encode(), {"target": target, "prefix": prefix}).fetchall()
    return [Agreement(*row) for row in rows]
