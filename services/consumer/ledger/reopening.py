"""Opening seats again: what has failed or waits starts over, and what is settled may be read back."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal, NamedTuple
from uuid import UUID

from schemas.keys import EntityKey
from services.consumer.ledger import history
from services.consumer.ledger.history import Happening
from services.consumer.nouns import PRIORITY_REPAIR, SATISFIED, PersonRef, SeatRef
from services.kit.postgres import Connection, text_array

Standing = Literal["open", "satisfied"]
"""`open`: at least one seat of the entity is not settled."""

SEATS_OF_ENTITIES = """member as (
  select asked.*, entity.kind as by_kind, entity.key as by_key, entity.person, entity.section
    from asked join entity using (tenant, kind, key) where asked.kind = 'enrollment'
  union all
  select asked.*, entity.kind, entity.key, entity.person, entity.section
    from asked join entity on entity.tenant = asked.tenant and entity.section = asked.key
   where asked.kind = 'section' and entity.kind = 'enrollment'
  union all
  select asked.*, 'override', override::text, override.person, override.section
    from asked join override on override.tenant = asked.tenant and override.section = asked.key
   where asked.kind = 'section'
), of_entity as (
  select member.tenant, member.kind, member.key, entitlement.target, entitlement.seat
    from member
    join entitlement on (entitlement.tenant, entitlement.kind, entitlement.key) = (member.tenant, member.by_kind, member.by_key)
  union
  select member.tenant, member.kind, member.key, seat.target, seat.seat
    from member join seat using (tenant, person, section)
   where not exists (select from entitlement where (entitlement.target, entitlement.seat) = (seat.target, seat.seat))
)"""
"""Common table expressions over one called ``asked`` (tenant, kind, key). An enrollment's seats are those it gives, and those in
its section that it may have given earlier and that nothing gives any more: their removal may have failed. A section's seats are
those of its members, because its state decides them, and those of overrides in it; people, courses and terms have none of their
own."""

_ASKED = """asked as (
  select * from unnest(%(tenants)s::text[], %(kinds)s::text[], %(keys)s::text[]) as asked (tenant, kind, key)
)"""


_STARTS_OVER = "(work.state in ('dead', 'retrying', 'waiting') or (%(verify)s and work.state in ('pending', 'guarded')))"
_IS_READ_BACK = f"(%(verify)s or not {SATISFIED})"
IS_OPENED = f"case when work.seat is null then {_IS_READ_BACK} else {_STARTS_OVER} end"
"""Whether `reopen` would open a row called ``seat`` whose work, if it has any, is called ``work``."""


def persons_of(connection: Connection, entities: Iterable[EntityKey]) -> set[PersonRef]:
    """Whose seats depend on these entities: the persons to lock before anything is re-opened."""
    rows = connection.execute(
        f"with {_ASKED}, {SEATS_OF_ENTITIES} select distinct tenant, person from member",  # noqa: S608
        _asked(entities),
    )
    return {PersonRef(tenant, person) for tenant, person in rows.fetchall()}


def seats_of(connection: Connection, entities: Iterable[EntityKey]) -> set[SeatRef]:
    """The seats of these entities."""
    rows = connection.execute(f"with {_ASKED}, {SEATS_OF_ENTITIES} select target, seat from of_entity", _asked(entities))  # noqa: S608
    return {SeatRef(*row) for row in rows.fetchall()}


def reopen(connection: Connection, seats: Collection[SeatRef], replay: UUID, *, verify: bool) -> set[SeatRef]:
    """Start over what is dead, retrying or waiting; with `verify` also have the settled seats read back from the LMS.

    Within the caller's transaction, which holds the persons' locks. Nothing here looks at an event: what a seat should be is
    what the newest state decided. Returns the seats that were opened.
    """
    locked = _locked(connection, seats)
    opened = _start_over(connection, locked, verify) | _read_back(connection, locked, verify)
    history.append(connection, (_happening(seat, replay) for seat in locked if seat.ref in opened))
    return opened


def standings_of_seats(connection: Connection, seats: Collection[SeatRef]) -> Mapping[SeatRef, Standing]:
    """How each of these seats stands."""
    rows = connection.execute(
        f"""select target, seat, {SATISFIED} and work.seat is null
             from seat join unnest(%(targets)s::text[], %(seats)s::text[]) as asked (target, seat) using (target, seat)
             left join work using (target, seat)""",  # noqa: S608
        _listed(seats),
    )
    return {SeatRef(*ref): "satisfied" if settled else "open" for *ref, settled in rows.fetchall()}


def standings(connection: Connection, entities: Iterable[EntityKey]) -> Mapping[EntityKey, Standing]:
    """How the seats of each entity stand; an entity without a seat is left out."""
    rows = connection.execute(
        f"""with {_ASKED}, {SEATS_OF_ENTITIES}
            select of_entity.tenant, of_entity.kind, of_entity.key, bool_and({SATISFIED} and work.seat is null)
              from of_entity
              join seat using (target, seat)
              left join work using (target, seat)
             group by of_entity.tenant, of_entity.kind, of_entity.key""",  # noqa: S608
        _asked(entities),
    )
    return {EntityKey(*key): "satisfied" if settled else "open" for *key, settled in rows.fetchall()}


class _Seat(NamedTuple):
    ref: SeatRef
    tenant: str
    person: str
    section: str
    version: int


def _locked(connection: Connection, refs: Collection[SeatRef]) -> list[_Seat]:
    """The seats and their work, locked in the order that deciding and settling keep."""
    rows = connection.execute(
        """select target, seat, tenant, person, section, version
             from seat join unnest(%(targets)s::text[], %(seats)s::text[]) as asked (target, seat) using (target, seat)
            order by target, seat for no key update of seat""",
        _listed(refs),
    )
    seats = [_Seat(SeatRef(target, seat), *rest) for target, seat, *rest in rows.fetchall()]
    connection.execute(
        """select from work join unnest(%(targets)s::text[], %(seats)s::text[]) as asked (target, seat) using (target, seat)
            order by target, seat for update of work""",
        _listed(refs),
    )
    return seats


def _start_over(connection: Connection, seats: Sequence[_Seat], verify: bool) -> set[SeatRef]:
    # Work that is on its way keeps its time and place: a removal that settles for the add of a swap, or waits for the guard, must
    # not be hurried.
    rows = connection.execute(
        f"""update work
              set state = case when state = 'guarded' then state else 'pending' end, read_first = read_first or %(verify)s,
                  attempts = case when state in ('pending', 'guarded') then attempts else 0 end,
                  next_at = case when state in ('pending', 'guarded') then next_at else clock_timestamp() end,
                  reason = null, waits_kind = null, waits_object = null
             from unnest(%(targets)s::text[], %(seats)s::text[]) as asked (target, seat)
            where (work.target, work.seat) = (asked.target, asked.seat) and {_STARTS_OVER}
        returning work.target, work.seat""",  # noqa: S608
        _listed(seat.ref for seat in seats) | {"verify": verify},
    )
    return {SeatRef(*row) for row in rows.fetchall()}


def _read_back(connection: Connection, seats: Sequence[_Seat], verify: bool) -> set[SeatRef]:
    # A seat that is neither right nor at work should not exist; whoever replays its event expects it to be repaired.
    rows = connection.execute(
        f"""insert into work (target, seat, tenant, person, course, state, priority, next_at, read_first)
            select seat.target, seat.seat, seat.tenant, seat.person, seat.course, 'pending', %(priority)s,
                   clock_timestamp(), true
              from seat join unnest(%(targets)s::text[], %(seats)s::text[]) as asked (target, seat) using (target, seat)
             where {_IS_READ_BACK}
             order by seat.target, seat.seat
            on conflict (target, seat) do nothing
            returning target, seat""",  # noqa: S608
        _listed(seat.ref for seat in seats) | {"verify": verify, "priority": PRIORITY_REPAIR},
    )
    return {SeatRef(*row) for row in rows.fetchall()}


def _happening(seat: _Seat, replay: UUID) -> Happening:
    return Happening(
        tenant=seat.tenant,
        person=seat.person,
        what="reopened",
        section=seat.section,
        target=seat.ref.target,
        seat=seat.ref.seat,
        version=seat.version,
        detail={"replay": str(replay)},
    )


def _asked(entities: Iterable[EntityKey]) -> dict[str, str]:
    listed = list(entities)
    return {
        "tenants": text_array(entity.tenant for entity in listed),
        "kinds": text_array(entity.kind for entity in listed),
        "keys": text_array(entity.key for entity in listed),
    }


def _listed(refs: Iterable[SeatRef]) -> dict[str, object]:
    listed = list(refs)
    return {"targets": text_array(ref.target for ref in listed), "seats": text_array(ref.seat for ref in listed)}
