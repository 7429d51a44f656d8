"""Overrides as people make and withdraw them, and how they end. See `overrides` for what decisions make of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from operator import itemgetter
from typing import Literal, NamedTuple
from uuid import UUID

from schemas.events import EnrollmentRole
from services.consumer.ledger import history, overrides, section_locks
from services.consumer.ledger.deciding import decide_persons
from services.consumer.ledger.overrides import ADOPTER, happening
from services.consumer.ledger.policies import Policies
from services.consumer.nouns import PRIORITY_ADD, PersonRef, SeatRef, SeatState
from services.consumer.policy.decide import decide
from services.consumer.policy.facts import Entitlement, Override, stamp_of
from services.consumer.policy.model import Policy
from services.kit.postgres import Connection, text_array

LONGEST = "2 years"
"""From now to the end of an override: an exception for good belongs into the student system."""
_AT_ONCE = 200
"""Overrides whose people are decided in one transaction because they have ended."""

OverrideState = Literal["in_force", "ended", "withdrawn"]


class Asked(NamedTuple):
    """What a registrar asks for."""

    person: PersonRef
    section: str
    """Section key text."""
    role: EnrollmentRole
    gives: SeatState
    ends_at: datetime
    reason: str
    actor: str


class Told(NamedTuple):
    """An override, for people."""

    number: int
    tenant: str
    person: str
    section: str
    role: EnrollmentRole
    gives: SeatState
    reason: str
    actor: str
    made_at: datetime
    ends_at: datetime
    state: OverrideState
    withdrawn_at: datetime | None
    withdrawn_by: str | None
    withdrawn_reason: str | None


class Filter(NamedTuple):
    """Which overrides are asked about; None: whatever it is."""

    person: str | None = None
    section: str | None = None
    """Section key text."""
    state: OverrideState | None = None


class Deciding(NamedTuple):
    """An override that decides a seat, or would if a newer one did not."""

    tenant: str
    number: int
    actor: str
    ends_at: datetime


class Ended(NamedTuple):
    """What a round of ends did."""

    work: set[SeatRef]
    more: bool
    """Whether others may be due by now."""


class Refused(Exception):
    """The override is not made; `reason` is a closed code."""

    def __init__(self, reason: Literal["no_policy", "no_seat", "end_out_of_bounds", "seat_of_another", "in_force"]) -> None:
        super().__init__(reason)
        self.reason = reason


class InForce(Refused):
    """The seat has an override that is in force."""

    def __init__(self, number: int) -> None:
        super().__init__("in_force")
        self.number = number


class Over(Exception):
    """It is not in force any more."""

    def __init__(self, state: OverrideState) -> None:
        super().__init__(state)
        self.state = state


_ENDS_IN_TIME = "select %s::timestamptz > clock_timestamp() and %s::timestamptz <= clock_timestamp() + %s::interval"
_OWNER = "select tenant, person from seat where (target, seat) = (%s, %s)"
_MAKE = """
insert into override (tenant, person, section, role, state, ends_at, reason, actor, made_at)
select told.*, least(clock_timestamp(), told.ends_at - interval '1 microsecond')
  from (values (%s, %s, %s, %s, %s, %s::timestamptz, %s, %s))
       as told (tenant, person, section, role, state, ends_at, reason, actor)
returning override, made_at
"""
_MAKE_MANY = """
insert into override (tenant, undo, person, section, role, state, ends_at, reason, actor, made_at)
select %s, %s, told.*, least(clock_timestamp(), told.ends_at - interval '1 microsecond')
  from unnest(%s::text[], %s::text[], %s::text[], %s::text[], %s::timestamptz[], %s::text[], %s::text[])
       as told (person, section, role, state, ends_at, reason, actor)
returning override, person, section, role, state, ends_at, made_at
"""
_WITHDRAW_THESE = """
update override set withdrawn_at = clock_timestamp(), withdrawn_by = %s, withdrawn_reason = %s
 where tenant = %s and override = any(%s::bigint[]) and ended_at is null and ends_at > clock_timestamp()
returning person
"""
_WITHDRAW_MANY = """
update override set withdrawn_at = clock_timestamp(), withdrawn_by = %s, withdrawn_reason = %s
 where (tenant, undo) = (%s, %s) and ended_at is null and ends_at > clock_timestamp()
"""
# Whoever overrides a seat has seen it otherwise: it is looked at also where the ledger believes that it is so already. Whatever
# it stood for before, an override is behind it now.
_LOOK = f"""
with mine as (
  update seat set version = %(version)s where (target, seat) = (%(target)s, %(seat)s) and version = 0)
insert into work (target, seat, tenant, person, course, state, priority, next_at, read_first)
select target, seat, tenant, person, course, 'pending', {PRIORITY_ADD}, clock_timestamp(), true
  from seat where (target, seat) = (%(target)s, %(seat)s)
    on conflict (target, seat) do nothing
returning target, seat
"""  # noqa: S608  (a constant of ours)
_PERSON = "select person from override where (tenant, override) = (%s, %s)"
_WITHDRAW = """
update override set withdrawn_at = clock_timestamp(), withdrawn_by = %s, withdrawn_reason = %s
 where (tenant, override) = (%s, %s) and ended_at is null and ends_at > clock_timestamp()
"""
_DUE = """
select tenant, person from override where ended_at is null and ends_at <= clock_timestamp() order by ends_at limit %s
"""
_TOLD = """
select override, tenant, person, section, role, state, reason, actor, made_at, ends_at, standing, withdrawn_at, withdrawn_by,
       withdrawn_reason
  from (select override.*, case when withdrawn_at is not null then 'withdrawn'
                                when ended_at is not null or ends_at <= clock_timestamp() then 'ended'
                                else 'in_force' end as standing from override) as override
 where tenant = %(tenant)s
"""
_FOUND = f"""{_TOLD}
   and (%(person)s::text is null or person = %(person)s) and (%(section)s::text is null or section = %(section)s)
   and (%(state)s::text is null or standing = %(state)s) and override < %(before)s
 order by override desc limit %(limit)s
"""
# Two statements: in one the server may compare each of thousands of overrides with each of the seats.
_OVERRIDDEN = """
select told.seat, entitlement.tenant, entitlement.key::bigint
  from unnest(%s::text[]) as told (seat)
 cross join lateral (
   select * from entitlement where entitlement.target = %s and entitlement.seat = told.seat offset 0) as entitlement
 where entitlement.kind = 'override'
"""
_DECIDING = """
select tenant, override, actor, ends_at from override
 where tenant = any(%s::text[]) and override = any(%s::bigint[]) and ended_at is null
"""
_IN_FORCE = "select count(*) from override where ended_at is null and ends_at > clock_timestamp()"


def make(connection: Connection, policies: Policies, asked: Asked) -> tuple[int, set[SeatRef]]:
    """Make an override and decide its person, in the caller's open transaction; its number, and the seats that now have work.
    What the policy has adopted of the seat gives way.

    Raises `Refused`; nothing is made then, but what is over of the person's may have ended.
    """
    tenant = asked.person.tenant
    section_locks.take(connection, [(tenant, asked.section, False)])
    work = decide_persons(connection, [asked.person], policies, cause="override")
    entitlement = _entitlement(connection, policies, asked)
    if not _holds(connection, _ENDS_IN_TIME, asked.ends_at, asked.ends_at, LONGEST):
        raise Refused("end_out_of_bounds")
    adopted = _adopted(connection, policies, asked.person, entitlement.ref)
    owner = connection.execute(_OWNER, entitlement.ref).fetchone()
    if owner is not None and PersonRef(*owner) != asked.person:
        raise Refused("seat_of_another")
    work |= withdraw_these(connection, policies, tenant, adopted, asked.actor, "overridden by a person")
    row = connection.execute(
        _MAKE, [*asked.person, asked.section, asked.role, asked.gives, asked.ends_at, asked.reason, asked.actor]
    ).fetchone()
    assert row is not None  # noqa: S101  (an insert returns its row)
    made = Override(row[0], *asked.person, asked.section, asked.role, asked.gives, row[1])
    history.append(connection, [happening(made, "override_made", until=asked.ends_at.isoformat())])
    work |= decide_persons(connection, [asked.person], policies, cause="override")
    looked_at = {"target": entitlement.ref.target, "seat": entitlement.ref.seat, "version": stamp_of(made.made_at).version}
    found = connection.execute(_LOOK.encode(), looked_at).fetchall()
    return made.number, work | {SeatRef(*ref) for ref in found}


def withdraw(
    connection: Connection, policies: Policies, tenant: str, number: int, actor: str, reason: str
) -> set[SeatRef] | None:
    """End an override before its time, in the caller's open transaction; the seats that now have work. None: no such override.

    Raises `Over`.
    """
    row = connection.execute(_PERSON, [tenant, number]).fetchone()
    if row is None:
        return None
    person = PersonRef(tenant, row[0])
    work = decide_persons(connection, [person], policies, cause="override")
    if connection.execute(_WITHDRAW, [actor, reason, tenant, number]).rowcount == 0:
        found = read(connection, tenant, number)
        assert found is not None  # noqa: S101  (overrides are never deleted)
        raise Over(found.state)
    return work | decide_persons(connection, [person], policies, cause="override")


def make_many(
    connection: Connection, policies: Policies, tenant: str, asked: Sequence[Asked], undo: UUID | None
) -> tuple[int, set[SeatRef]]:
    """Make overrides at once, those of an undo; how many, and the seats that now have work. Left out are seats that an override
    decides already, and those to which the policy gives nothing.

    Raises `Refused` when the end is out of bounds or the tenant has no policy; nothing is made then.
    """
    persons = sorted({one.person for one in asked})
    section_locks.take(connection, [(tenant, one.section, False) for one in asked])
    work = decide_persons(connection, persons, policies, cause="override")
    active = policies.active(connection).get(tenant)
    if active is None:
        raise Refused("no_policy")
    for ends_at in {one.ends_at for one in asked}:
        if not _holds(connection, _ENDS_IN_TIME, ends_at, ends_at, LONGEST):
            raise Refused("end_out_of_bounds")
    in_force = overrides.read(connection, persons).in_force
    taken = {one.ref for theirs in in_force.values() for one in decide([], active.policy, policies.target, theirs)}
    rows = []
    for one in asked:
        given = would_give(active.policy, policies.target, one)
        if given is not None and given.ref not in taken:
            taken.add(given.ref)
            rows.append((one.person.person, one.section, one.role, one.gives, one.ends_at.isoformat(), one.reason, one.actor))
    if not rows:
        return 0, work
    columns = [text_array(column) for column in zip(*rows, strict=True)]
    made = connection.execute(_MAKE_MANY, [tenant, undo, *columns]).fetchall()
    history.append(
        connection,
        (
            happening(
                Override(number, tenant, person, section, role, gives, made_at),
                "override_made",
                until=ends_at.isoformat(),
                **({"undo": str(undo)} if undo else {}),
            )
            for number, person, section, role, gives, ends_at, made_at in made
        ),
    )
    return len(made), work | decide_persons(connection, persons, policies, cause="override")


def withdraw_many(
    connection: Connection, policies: Policies, tenant: str, undo: UUID, actor: str, reason: str
) -> tuple[int, set[SeatRef]]:
    """End all overrides that belong to an undo and are in force; how many, and the seats that now have work."""
    found = connection.execute("select distinct person from override where (tenant, undo) = (%s, %s)", [tenant, undo]).fetchall()
    persons = [PersonRef(tenant, person) for (person,) in found]
    work = decide_persons(connection, persons, policies, cause="override")
    ended = connection.execute(_WITHDRAW_MANY, [actor, reason, tenant, undo]).rowcount
    return ended, work | decide_persons(connection, persons, policies, cause="override")


def withdraw_these(
    connection: Connection, policies: Policies, tenant: str, numbers: Collection[int], actor: str, reason: str
) -> set[SeatRef]:
    """End those of these overrides that are in force; the seats that now have work. The caller has decided their people in this
    transaction."""
    found = connection.execute(_WITHDRAW_THESE, [actor, reason, tenant, text_array(map(str, numbers))]).fetchall()
    return decide_persons(connection, [PersonRef(tenant, person) for (person,) in found], policies, cause="override")


def end_due(connection: Connection, policies: Policies) -> Ended:
    """Decide the next people whose override has ended, in one transaction of its own. Several processes may do it at once."""
    with connection.transaction():
        persons = [PersonRef(*row) for row in connection.execute(_DUE, [_AT_ONCE]).fetchall()]
        return Ended(decide_persons(connection, persons, policies, cause="override"), len(persons) == _AT_ONCE)


def read(connection: Connection, tenant: str, number: int) -> Told | None:
    """One override."""
    row = connection.execute(f"{_TOLD} and override = %(override)s".encode(), {"tenant": tenant, "override": number}).fetchone()
    return Told(*row) if row else None


def find(connection: Connection, tenant: str, asked: Filter, before: int, limit: int) -> list[Told]:
    """Overrides with numbers below `before`, the newest first."""
    parameters = asked._asdict() | {"tenant": tenant, "before": before, "limit": limit}
    return [Told(*row) for row in connection.execute(_FOUND.encode(), parameters, prepare=False).fetchall()]


def count_in_force(connection: Connection) -> int:
    """Of all tenants."""
    row = connection.execute(_IN_FORCE).fetchone()
    assert row is not None  # noqa: S101  (an aggregate always gives a row)
    return int(row[0])


def would_give(policy: Policy, target: str, asked: Asked) -> Entitlement | None:
    """What the override would give its seat under this policy; None: the policy gives its role no seat."""
    unmade = Override(0, *asked.person, asked.section, asked.role, asked.gives, asked.ends_at)
    return next(iter(decide([], policy, target, [unmade])), None)


def of_seats(connection: Connection, target: str, seats: Collection[str]) -> dict[str, list[Deciding]]:
    """The overrides of those of these seats that have any, as their people were last decided."""
    overridden = connection.execute(_OVERRIDDEN, [text_array(seats), target]).fetchall() if seats else []
    if not overridden:
        return {}
    tenants, numbers = {tenant for _, tenant, _ in overridden}, {str(number) for _, _, number in overridden}
    rows = connection.execute(_DECIDING, [text_array(tenants), text_array(numbers)]).fetchall()
    deciding = {row[:2]: Deciding(*row) for row in rows}
    found: dict[str, list[Deciding]] = {}
    for seat, *named in sorted(overridden, key=itemgetter(2)):
        if tuple(named) in deciding:
            found.setdefault(seat, []).append(deciding[tuple(named)])
    return found


def _entitlement(connection: Connection, policies: Policies, asked: Asked) -> Entitlement:
    """What it would give its seat under the policy that is active."""
    active = policies.active(connection).get(asked.person.tenant)
    if active is None:
        raise Refused("no_policy")
    entitlement = would_give(active.policy, policies.target, asked)
    if entitlement is None:
        raise Refused("no_seat")
    return entitlement


def _adopted(connection: Connection, policies: Policies, person: PersonRef, seat: SeatRef) -> list[int]:
    """Overrides that the policy has made of the seat; two roles, or two sections, may be one. Raises `InForce` of others."""
    policy = policies.active(connection)[person.tenant].policy
    theirs = overrides.read(connection, [person]).in_force.get(person, ())
    found = [int(one.source.key) for one in decide([], policy, policies.target, theirs) if one.ref == seat]
    for number in found:
        told = read(connection, person.tenant, number)
        if told is None or told.actor != ADOPTER:
            raise InForce(number)
    return found


def _holds(connection: Connection, query: str, *parameters: object) -> bool:
    row = connection.execute(query.encode(), parameters).fetchone()
    return bool(row and row[0])
