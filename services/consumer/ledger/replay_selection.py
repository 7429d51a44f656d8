"""The seats that a replay names by what the ledger holds of something, page by page."""

from __future__ import annotations

from typing import Any, NamedTuple, assert_never

from services.consumer.ledger.reopening import SEATS_OF_ENTITIES
from services.consumer.ledger.replay_scopes import Scope
from services.consumer.nouns import PersonRef, SeatRef
from services.kit.postgres import Connection


class Named(NamedTuple):
    """Common table expressions, the last one called ``named`` (target, seat), and their parameters."""

    expressions: str
    parameters: dict[str, Any]


class NamedSeat(NamedTuple):
    """A seat of the scope, before any lock."""

    ref: SeatRef
    person: PersonRef
    version: int


_OF_MEMBERS = f"""asked as (select %(tenant)s::text as tenant, %(kind)s::text as kind, %(key)s::text as key),
{SEATS_OF_ENTITIES}, named as (select target, seat from of_entity)"""  # noqa: S608  (built from constants)
_OF_PERSON = """named as (
  select target, seat from seat where tenant = %(tenant)s and person = %(person)s)"""
_OF_COURSE = "named as (select target, seat from seat where tenant = %(tenant)s and course = %(key)s)"
_OF_TERM = """named as (
  select target, seat from seat where tenant = %(tenant)s and starts_with(section, %(key)s || '/'))"""
_OF_CLASS = """named as (
  select target, seat from work where target = %(target)s and state = 'dead' and dead_class = %(class)s)"""


def named(scope: Scope) -> Named:
    """The seats of a scope of the ledger, as they are when the query runs."""
    if scope.dead_letters is not None:
        return Named(_OF_CLASS, {"target": scope.dead_letters.target, "class": scope.dead_letters.dead_class})
    entity = scope.entity
    assert entity is not None  # noqa: S101  (a scope of the log names no seats)
    parameters = entity._asdict()
    match entity.kind:
        case "enrollment" | "section":
            return Named(_OF_MEMBERS, parameters)
        case "person":
            return Named(_OF_PERSON, parameters | {"person": entity.parts[0]})
        case "course":
            return Named(_OF_COURSE, parameters)
        case "term":
            return Named(_OF_TERM, parameters)
        case never:
            assert_never(never)


def count(connection: Connection, scope: Scope) -> int:
    """How many seats the scope has now."""
    expressions, parameters = named(scope)
    query = f"with {expressions} select count(*) from named"  # noqa: S608
    row = connection.execute(query.encode(), parameters, prepare=False).fetchone()
    assert row is not None  # noqa: S101  (an aggregate always gives a row)
    return int(row[0])


def page(connection: Connection, scope: Scope, after: SeatRef, limit: int) -> list[NamedSeat]:
    """The next `limit` seats of the scope, by target and seat: whatever comes and goes meanwhile, each is met at most once."""
    expressions, parameters = named(scope)
    query = f"""with {expressions}
            select target, seat, tenant, person, version from named join seat using (target, seat)
             where (target, seat) > (%(after_target)s, %(after_seat)s)
             order by target, seat limit %(limit)s"""  # noqa: S608
    rows = connection.execute(
        query.encode(),
        parameters | {"after_target": after.target, "after_seat": after.seat, "limit": limit},
        prepare=False,
    ).fetchall()
    return [
        NamedSeat(SeatRef(target, seat), PersonRef(tenant, person), version) for target, seat, tenant, person, version in rows
    ]
