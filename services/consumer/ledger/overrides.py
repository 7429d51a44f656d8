"""Overrides as a decision reads them: which are in force for whom.

An override is in force until somebody decides its person and finds that its time is over, by the database's clock and under the
person's lock; that is written down in the same transaction. So whoever comes first decides alike, an old transaction that waited
for the lock cannot bring it back, and neither can a clock that is set back.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal, NamedTuple

from schemas import keys
from services.consumer.ledger import history
from services.consumer.ledger.history import Happening
from services.consumer.nouns import PersonRef
from services.consumer.policy.facts import Override, OverrideKey, Source, Stamp, stamp_of
from services.kit.postgres import Connection, text_array

ADOPTER = "policy:drift"
"""Actor of the overrides that the policy makes of what somebody did in the LMS. No caller can have this name: it has a colon."""


class Overrides(NamedTuple):
    """The overrides of some people."""

    in_force: Mapping[PersonRef, Sequence[Override]]
    stamps: Mapping[Source, Stamp]
    """When each was made; of one that has ended in this transaction, when its time was over."""


# Not ended, and whether its time is over. The course is the section's: an override needs no enrollment.
_STANDING = """
select o.tenant, o.person, o.override, o.section, o.role, o.state, o.made_at, s.event->>'institution', s.event->>'course',
       o.actor, coalesce(o.withdrawn_at, o.ends_at), o.withdrawn_at is not null or o.ends_at <= clock_timestamp(),
       o.withdrawn_at is not null
  from unnest(%s::text[], %s::text[]) as p(tenant, person)
  join override o using (tenant, person)
  left join entity s on s.tenant = o.tenant and s.kind = 'section' and s.key = o.section
 where o.ended_at is null
"""
_END = """
update override set ended_at = clock_timestamp()
  from unnest(%s::text[], %s::bigint[]) as over (tenant, override)
 where (override.tenant, override.override) = (over.tenant, over.override)
"""


_END_AGREED = """
update override
   set ended_at = clock_timestamp(), withdrawn_at = clock_timestamp(), withdrawn_by = %s,
       withdrawn_reason = 'the student system says the same'
  from unnest(%s::text[], %s::bigint[]) as over (tenant, override)
 where (override.tenant, override.override) = (over.tenant, over.override)
returning override.tenant, override.override::text, ended_at
"""


class _Standing(NamedTuple):
    """One that nobody has ended yet."""

    override: Override
    over_at: datetime
    is_over: bool
    withdrawn: bool


def read(connection: Connection, persons: Collection[PersonRef]) -> Overrides:
    """The overrides that these people were last decided with, and those made since."""
    return _told(_standing(connection, persons), ())


def settle(connection: Connection, persons: Collection[PersonRef]) -> Overrides:
    """End what is over of these people, whose locks the caller's transaction holds; what they are to be decided with."""
    standing = _standing(connection, persons)
    over = [one for one in standing if one.is_over]
    if over:
        keys_of_over = [one.override.source for one in over]
        connection.execute(_END, [text_array(one.tenant for one in keys_of_over), text_array(one.key for one in keys_of_over)])
        history.append(connection, (happening(one.override, "override_ended", withdrawn=one.withdrawn) for one in over))
    return _told([one for one in standing if not one.is_over], over)


def end_agreed(connection: Connection, exceptions: Overrides, agreed: Collection[Override]) -> Overrides:
    """End adoptions that the student system has overtaken; what is left to decide with. The persons' locks are held."""
    columns = [text_array(one.tenant for one in agreed), text_array(str(one.number) for one in agreed)]
    rows = connection.execute(_END_AGREED, [ADOPTER, *columns]).fetchall()
    history.append(connection, (happening(one, "override_ended", withdrawn=True) for one in agreed))
    ended: dict[Source, Stamp] = {OverrideKey(tenant, "override", number): stamp_of(at) for tenant, number, at in rows}
    left = {person: [one for one in theirs if one.source not in ended] for person, theirs in exceptions.in_force.items()}
    return Overrides(left, {**exceptions.stamps, **ended})


def happening(override: Override, what: Literal["override_made", "override_ended"], **detail: object) -> Happening:
    """Its row of history: never the registrar's words."""
    source = override.source
    told = {"role": override.role, "state": override.state}
    return Happening(
        override.tenant, override.person, what, section=override.section, kind=source.kind, key=source.key, detail=told | detail
    )


def _standing(connection: Connection, persons: Collection[PersonRef]) -> list[_Standing]:
    columns = [text_array(one.tenant for one in persons), text_array(one.person for one in persons)]
    return [_row(*row) for row in connection.execute(_STANDING, columns).fetchall()]


def _row(tenant: str, person: str, number: int, *rest: Any) -> _Standing:
    section, role, state, made_at, institution, course, actor, *ending = rest
    course_key = keys.course_key(tenant, institution, course).key if course else None
    return _Standing(Override(number, tenant, person, section, role, state, made_at, course_key, actor == ADOPTER), *ending)


def _told(in_force: Collection[_Standing], over: Collection[_Standing]) -> Overrides:
    of_persons: dict[PersonRef, list[Override]] = {}
    for one in in_force:
        of_persons.setdefault(PersonRef(one.override.tenant, one.override.person), []).append(one.override)
    made: dict[Source, Stamp] = {one.override.source: stamp_of(one.override.made_at) for one in in_force}
    return Overrides(of_persons, made | {one.override.source: stamp_of(one.over_at) for one in over})
