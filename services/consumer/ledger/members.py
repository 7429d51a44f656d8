"""Everybody with an enrollment or an override in a section that changed: decided with its event while they are few, otherwise
queued and decided in batches.

At the start of a term hundreds of sections change within one batch of the log. Deciding all their members in its transaction
would hold back every enrollment behind it, for as long as that takes. The queue is a row per section, written with the event.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Literal, NamedTuple

from services.consumer.ledger.deciding import decide_persons
from services.consumer.ledger.policies import Policies
from services.consumer.nouns import Effect, PersonRef, SeatRef
from services.kit.postgres import Connection, text_array

AT_ONCE = 500
"""Members decided in the transaction of their sections' events; the sections that do not fit are queued."""
_BATCH = 200
"""Members decided in one transaction afterwards: an enrollment of one of them waits so long, some 50 ms."""


class SectionRef(NamedTuple):
    """One section of one tenant; sorts in the order in which queued sections are locked."""

    tenant: str
    section: str
    """Section key text."""


class Decided(NamedTuple):
    """What one batch did."""

    work: set[SeatRef]
    """Seats that now have work."""
    effects: Counter[Effect | Literal["none"]]


class Waiting(NamedTuple):
    """The queue."""

    sections: int
    oldest_seconds: float


def of_changed(connection: Connection, sections: Iterable[SectionRef]) -> set[PersonRef]:
    """Who has to be decided with the events of these sections; the others are queued, in the caller's transaction.

    The caller has locked the sections: whoever becomes a member later decides by the new state of the section.
    """
    now, later = _divided(connection, sorted(set(sections)))
    if later:
        connection.execute(
            """insert into section_to_decide (tenant, section)
               select * from unnest(%s::text[], %s::text[]) as changed (tenant, section) order by tenant, section
               on conflict (tenant, section) do update set upto = ''""",
            _columns(later),
        )
    if not now:
        return set()
    rows = connection.execute(
        """with changed as (select * from unnest(%s::text[], %s::text[]) as changed (tenant, section))
           select tenant, person from entity join changed using (tenant, section) where kind = 'enrollment'
            union
           select tenant, person from override join changed using (tenant, section) where ended_at is null""",
        _columns(now),
    ).fetchall()
    return {PersonRef(*row) for row in rows}


def decide_next(connection: Connection, policies: Policies) -> Decided | None:
    """Decide the next members of the section that waits longest, in one transaction of its own; None when no section waits.

    Several processes may do it at once: a section that somebody works at is passed over. After a crash it goes on where it was.
    """
    with connection.transaction():
        row = connection.execute(
            "select tenant, section, upto from section_to_decide order by since limit 1 for update skip locked"
        ).fetchone()
        if row is None:
            return None
        tenant, section, upto = row
        persons = _members_behind(connection, SectionRef(tenant, section), upto)
        effects: Counter[Effect | Literal["none"]] = Counter()
        work = decide_persons(connection, persons, policies, cause="section", effects=effects)
        if len(persons) < _BATCH:
            connection.execute("delete from section_to_decide where (tenant, section) = (%s, %s)", [tenant, section])
        else:
            connection.execute(
                "update section_to_decide set upto = %s where (tenant, section) = (%s, %s)", [persons[-1].person, tenant, section]
            )
    return Decided(work, effects)


def waiting(connection: Connection) -> Waiting:
    """How many sections wait, and since when the oldest does."""
    row = connection.execute(
        "select count(*), coalesce(extract(epoch from clock_timestamp() - min(since)), 0)::float8 from section_to_decide"
    ).fetchone()
    assert row is not None  # noqa: S101  (an aggregate always gives a row)
    return Waiting(*row)


def _divided(connection: Connection, sections: list[SectionRef]) -> tuple[list[SectionRef], list[SectionRef]]:
    """Those whose members fit into this transaction, the small ones first, and the rest."""
    if not sections:
        return [], []
    counted = connection.execute(
        """select changed.tenant, changed.section, members.count
             from unnest(%s::text[], %s::text[]) as changed (tenant, section)
            cross join lateral (
              select count(*) from (select from entity e
                                     where e.tenant = changed.tenant and e.section = changed.section and e.kind = 'enrollment'
                                     union all
                                    select from override o
                                     where o.tenant = changed.tenant and o.section = changed.section and o.ended_at is null
                                     limit %s) as found) as members
            order by members.count, changed.tenant, changed.section""",
        [*_columns(sections), AT_ONCE + 1],
    ).fetchall()
    now: list[SectionRef] = []
    later: list[SectionRef] = []
    room = AT_ONCE
    for tenant, section, count in counted:
        room -= count
        (now if room >= 0 else later).append(SectionRef(tenant, section))
    return now, later


def _members_behind(connection: Connection, section: SectionRef, person: str) -> list[PersonRef]:
    rows = connection.execute(
        """(select distinct person from entity
             where tenant = %(tenant)s and section = %(section)s and kind = 'enrollment' and person > %(after)s
             order by person limit %(limit)s)
            union
           (select person from override
             where tenant = %(tenant)s and section = %(section)s and ended_at is null and person > %(after)s
             order by person limit %(limit)s)
            order by person limit %(limit)s""",
        section._asdict() | {"after": person, "limit": _BATCH},
    ).fetchall()
    return [PersonRef(section.tenant, found) for (found,) in rows]


def _columns(sections: Iterable[SectionRef]) -> list[str]:
    listed = list(sections)
    return [text_array(one.tenant for one in listed), text_array(one.section for one in listed)]
