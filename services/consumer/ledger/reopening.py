"""Opening the seats of an entity again: what has failed or waits starts over, and what is settled may be read back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal
from uuid import UUID

from psycopg.types.json import Jsonb

from schemas.keys import EntityKey
from services.consumer.nouns import PRIORITY_REPAIR, SATISFIED, PersonRef, SeatRef
from services.kit.postgres import Connection, text_array

Standing = Literal["open", "satisfied"]
"""`open`: at least one seat of the entity is not settled."""

SEATS_OF_ENTITIES = """of_entity as (
  select asked.tenant, asked.kind, asked.key, entitlement.target, entitlement.seat, entitlement.person
    from asked join entitlement using (tenant, kind, key)
  union
  select asked.tenant, asked.kind, asked.key, entitlement.target, entitlement.seat, entitlement.person
    from asked
    join entity member on asked.kind = 'section' and member.kind = 'enrollment'
                      and member.tenant = asked.tenant and member.section = asked.key
    join entitlement on (entitlement.tenant, entitlement.kind, entitlement.key) = (member.tenant, member.kind, member.key)
)"""
"""A common table expression over one called ``asked`` (tenant, kind, key). A section's seats are those of its members, because
its state decides them; people, courses and terms have none of their own."""

_ASKED = """asked as (
  select * from unnest(%(tenants)s::text[], %(kinds)s::text[], %(keys)s::text[]) as asked (tenant, kind, key)
)"""


def persons_of(connection: Connection, entities: Iterable[EntityKey]) -> set[PersonRef]:
    """Whose seats depend on these entities: the persons to lock before anything is re-opened."""
    rows = connection.execute(
        f"with {_ASKED}, {SEATS_OF_ENTITIES} select distinct tenant, person from of_entity",  # noqa: S608
        _asked(entities),
    )
    return {PersonRef(tenant, person) for tenant, person in rows.fetchall()}


def reopen(connection: Connection, entities: Iterable[EntityKey], replay: UUID, *, verify: bool) -> set[SeatRef]:
    """Start over what is dead, retrying or waiting; with `verify` also have the settled seats read back from the LMS.

    Within the caller's transaction, which holds the persons' locks. Nothing here looks at an event: what a seat should be is
    what the newest state decided. Returns the seats that now have work.
    """
    seats = _locked(connection, entities)
    opened = _start_over(connection, seats, verify) | _read_back(connection, seats, verify)
    _remember(connection, opened, replay)
    return opened


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


def _locked(connection: Connection, entities: Iterable[EntityKey]) -> list[SeatRef]:
    rows = connection.execute(
        f"""with {_ASKED}, {SEATS_OF_ENTITIES}
            select target, seat from seat
             where (target, seat) in (select target, seat from of_entity)
             order by target, seat for no key update""",  # noqa: S608
        _asked(entities),
    )
    return [SeatRef(*row) for row in rows.fetchall()]


def _start_over(connection: Connection, seats: Sequence[SeatRef], verify: bool) -> set[SeatRef]:
    # Work that is pending already keeps its time: a removal that settles for the add of a swap must not be hurried.
    rows = connection.execute(
        """with opened as (
             select work.target, work.seat, work.state from work
               join unnest(%(targets)s::text[], %(seats)s::text[]) as asked (target, seat) using (target, seat)
              where work.state in ('dead', 'retrying', 'waiting') or (%(verify)s and work.state = 'pending')
              order by work.target, work.seat for update of work
           )
           update work
              set state = 'pending', read_first = work.read_first or %(verify)s,
                  attempts = case when opened.state = 'pending' then work.attempts else 0 end,
                  next_at = case when opened.state = 'pending' then work.next_at else clock_timestamp() end,
                  reason = null, waits_kind = null, waits_object = null
             from opened where (work.target, work.seat) = (opened.target, opened.seat)
        returning work.target, work.seat""",
        _listed(seats) | {"verify": verify},
    )
    return {SeatRef(*row) for row in rows.fetchall()}


def _read_back(connection: Connection, seats: Sequence[SeatRef], verify: bool) -> set[SeatRef]:
    # A seat that is neither right nor at work should not exist; whoever replays its event expects it to be repaired.
    rows = connection.execute(
        f"""insert into work (target, seat, tenant, person, course, state, priority, next_at, read_first)
            select seat.target, seat.seat, seat.tenant, seat.person, seat.course, 'pending', %(priority)s,
                   clock_timestamp(), true
              from seat join unnest(%(targets)s::text[], %(seats)s::text[]) as asked (target, seat) using (target, seat)
             where %(verify)s or not {SATISFIED}
             order by seat.target, seat.seat
            on conflict (target, seat) do nothing
            returning target, seat""",  # noqa: S608
        _listed(seats) | {"verify": verify, "priority": PRIORITY_REPAIR},
    )
    return {SeatRef(*row) for row in rows.fetchall()}


def _remember(connection: Connection, opened: Iterable[SeatRef], replay: UUID) -> None:
    connection.execute(
        """insert into history (tenant, person, section, target, seat, what, version, detail)
           select seat.tenant, seat.person, seat.section, seat.target, seat.seat, 'reopened', seat.version, %(detail)s
             from seat join unnest(%(targets)s::text[], %(seats)s::text[]) as asked (target, seat) using (target, seat)""",
        _listed(sorted(opened)) | {"detail": Jsonb({"replay": str(replay)})},
    )


def _asked(entities: Iterable[EntityKey]) -> dict[str, str]:
    listed = list(entities)
    return {
        "tenants": text_array(entity.tenant for entity in listed),
        "kinds": text_array(entity.kind for entity in listed),
        "keys": text_array(entity.key for entity in listed),
    }


def _listed(seats: Sequence[SeatRef]) -> dict[str, object]:
    return {"targets": text_array(seat.target for seat in seats), "seats": text_array(seat.seat for seat in seats)}
