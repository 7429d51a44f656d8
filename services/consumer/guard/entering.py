"""Access that waits because the section's number was given to another class: the LMS may still have the old one's behind it."""

from __future__ import annotations

from services.consumer.guard.judging import Cause, Courses, Group, Held, Scope
from services.consumer.guard.reading import IN_LIVE_TERM, Members
from services.consumer.guard.writing import Writer
from services.consumer.ledger.writing import Terms
from services.consumer.nouns import INTO_REUSED
from services.kit.postgres import Connection

# ``offset 0``: as in `reading`.
_WAITING = f"""
select seat.tenant, seat.section, min(work.term), number.course, number.reused_as, array_agg(seat.seat), array_agg(seat.decision),
       (select count(*)::int from seat as other
         where other.target = %(target)s and other.lms_section = min(seat.lms_section) and other.applied = 'active')
  from work
 cross join lateral (select * from seat where seat.target = work.target and seat.seat = work.seat offset 0) as seat
  join section_course as number on number.tenant = seat.tenant and number.section = seat.section
 where work.target = %(target)s and work.state = 'guarded' and work.hold is null and {IN_LIVE_TERM}
   and work.cleared is distinct from seat.decision and {INTO_REUSED}
 group by seat.tenant, seat.section, number.course, number.reused_as
 order by seat.tenant, seat.section
"""  # noqa: S608  (a constant of ours)
_OPEN = "select tenant, key, hold, is_course from hold where target = %s and state = 'open' and scope = 'reused_section'"


def hold(connection: Connection, target: str, terms: Terms, writer: Writer) -> int:
    """Hold who would be let into such a section, in one hold for each section and new class; how many holds were opened.

    Where a hold is open for another class, the number was given away once more: whoever comes waits until that one is emptied.
    """
    rows = connection.execute(_WAITING.encode(), {"target": target, **terms.parameters}).fetchall()
    if not rows:
        return 0
    standing = {(tenant, section): (hold, now) for tenant, section, hold, now in connection.execute(_OPEN, [target]).fetchall()}
    opened = 0
    for tenant, section, term, was, now, seats, decisions, active in rows:
        group = Group(tenant, section, None, term, False, False, True, len(seats))
        cause = Cause(None, 0, active, "", Courses(was, now))
        held = Held(Scope("reused_section", tenant, section), [group], cause)
        number, held_for = standing.get((tenant, section), (None, now))
        if held_for != now:
            continue
        opened += number is None
        writer.hold(held, number, {group: Members(seats, decisions)})
    return opened
