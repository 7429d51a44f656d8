"""What must hold whenever no transaction is open. Tests and drills ask; a healthy ledger answers with an empty list."""

from __future__ import annotations

from services.consumer.ledger import enrollments, overrides
from services.consumer.ledger.decision_plan import source_of
from services.consumer.ledger.policies import Policies
from services.consumer.nouns import SATISFIED, PersonRef, SeatRef
from services.consumer.policy.decide import decide, fold
from services.kit.postgres import Connection, text_array


def violations(connection: Connection, policies: Policies) -> list[str]:
    """Every broken promise, in words that name seats but nobody."""
    return [
        *_seats_that_are_not_decided(connection, policies),
        *(
            f"{promise}: {seat}"
            for promise, query in _BROKEN.items()
            for (seat,) in connection.execute(query.encode()).fetchall()
        ),
    ]


def _seats_that_are_not_decided(connection: Connection, policies: Policies) -> list[str]:
    """`seat.desired` is what entities and overrides decide, entitlements are what they give, what nothing entitles to is deleted.

    Members of a section that is still queued, and people whose moment has just come, are left out: they are decided soon.
    """
    active = policies.active(connection)
    row = connection.execute("select clock_timestamp()").fetchone()
    assert row is not None  # noqa: S101  (always one row)
    persons = [PersonRef(*row) for row in connection.execute(_DECIDED_PERSONS).fetchall()]
    in_force = overrides.read(connection, persons).in_force
    decided = {
        person: decide(entities, active[person.tenant].policy, policies.target, in_force.get(person, ()), row[0])
        for person, entities in enrollments.read(connection, persons).items()
        if person.tenant in active
    }
    given = [one for theirs in decided.values() for one in theirs]
    of_persons = [
        text_array(one.tenant for one in persons),
        text_array(one.person for one in persons),
        policies.target,
    ]
    seats = {
        SeatRef(*row[:2]): (PersonRef(*row[2:4]), row[4]) for row in connection.execute(_STORED_SEATS, of_persons).fetchall()
    }
    stored = {ref: desired for ref, (_, desired) in seats.items()}
    # Where two people are one user of the LMS, the seat is what its own person is entitled to.
    wanted = {
        ref: one.state
        for person, theirs in decided.items()
        for ref, one in fold(theirs).items()
        if ref not in seats or seats[ref][0] == person
    }
    entitled = {(source_of(*row[:3]), SeatRef(*row[3:])) for row in connection.execute(_STORED_ENTITLEMENTS, of_persons)}
    return [
        *(
            f"seat.desired = decide(entities): is {stored.get(ref)}, should be {wanted.get(ref, 'deleted')}"
            for ref in sorted(stored.keys() | wanted.keys())
            if stored.get(ref) != wanted.get(ref, "deleted")
        ),
        *(f"entitlement = decide(entity): {ref.seat}" for _, ref in sorted(entitled ^ {(one.source, one.ref) for one in given})),
    ]


_DECIDED_PERSONS = """
select tenant, person from (
  select tenant, person from entity where kind = 'enrollment' union select tenant, person from seat
  union select tenant, person from override where ended_at is null) as everybody
 where (tenant, person) not in (
   select entity.tenant, entity.person from section_to_decide join entity using (tenant, section)
    where kind = 'enrollment')
   and (tenant, person) not in (select tenant, person from wake where at <= clock_timestamp() + interval '1 second')
"""
_STORED_SEATS = """
select target, seat, tenant, person, desired
  from seat join unnest(%s::text[], %s::text[]) as decided (tenant, person) using (tenant, person) where target = %s
"""
_STORED_ENTITLEMENTS = """
select tenant, kind, key, target, seat
  from entitlement join unnest(%s::text[], %s::text[]) as decided (tenant, person) using (tenant, person) where target = %s
"""


_NOTHING_LEFT = f"""{SATISFIED} and seat.suspect_until is null and seat.fence is null
  and not exists (select from intent
                   where intent.target = seat.target and intent.seat = seat.seat and intent.closed_at is null)"""

_BROKEN = {
    "a seat with something left has work": f"""
        select seat.seat from seat left join work using (target, seat) where work.seat is null and not ({_NOTHING_LEFT})""",  # noqa: S608
    "work means that something is left": f"""
        select seat.seat from seat join work using (target, seat) where {_NOTHING_LEFT} and not work.read_first""",  # noqa: S608
    "work belongs to a seat": "select seat from work left join seat using (target, seat) where seat.target is null",
    "an entitlement belongs to a seat": """
        select entitlement.seat from entitlement left join seat using (target, seat) where seat.target is null""",
    "what waits, waits for something missing": """
        select work.seat from work
          left join dependency d on (d.target, d.kind, d.object) = (work.target, work.waits_kind, work.waits_object)
         where work.state = 'waiting' and d.state is distinct from 'missing'""",
}  # fmt: skip
