"""Which course's class a section's number stands for, and numbers that were given to another class.

The LMS knows a section by its number. Until somebody has moved it there, or made a new one, members of the new class would be let
into the old one's course; see `nouns.INTO_REUSED` for who asks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from services.consumer.ledger.policies import Policies
from services.kit.postgres import Connection, text_array


class Told(NamedTuple):
    """What the newest event of a section says."""

    tenant: str
    section: str
    """Section key text."""
    course: str
    """As the SIS writes it."""


class _Differs(NamedTuple):
    """A section whose event says something else than what was agreed, or than the event before."""

    told: Told
    agreed: str
    in_use: bool
    """Somebody of ours is or was in it, as far as the LMS has shown; or we made it, or may have, in the agreed course."""


# What was never told is agreed at once.
_NOTE = """
with told as (
  select * from unnest(%s::text[], %s::text[], %s::text[]) as told (tenant, section, course) order by tenant, section),
first as (
  insert into section_course (tenant, section, course) select tenant, section, course from told on conflict do nothing)
select told.tenant, told.section, told.course, agreed.course,
       exists (select from entity join seat on seat.tenant = entity.tenant and seat.person = entity.person
                                           and seat.section = entity.section
                where entity.tenant = told.tenant and entity.section = told.section and entity.kind = 'enrollment'
                  and (seat.lms_enrollment is not null or seat.applied not in ('unknown', 'absent')))
       or exists (select from lms_object as made
                   where made.tenant = told.tenant and made.kind = 'section' and made.key = told.section
                     and (made.origin = 'ours' or made.making or made.call = 'make'))
  from told join section_course as agreed using (tenant, section)
 where agreed.course <> told.course or agreed.reused_as is not null
   for no key update of agreed
"""
_WRITE = """
update section_course set course = said.course, reused_as = said.reused_as
  from unnest(%s::text[], %s::text[], %s::text[], %s::text[]) as said (tenant, section, course, reused_as)
 where (section_course.tenant, section_course.section) = (said.tenant, said.section)
"""
_AGREE = "update section_course set course = reused_as, reused_as = null where (tenant, section, reused_as) = (%s, %s, %s)"
_REUSED = """
select section, course, reused_as from section_course
 where tenant = %s and reused_as is not null order by section for no key update
"""


def note(connection: Connection, told: Iterable[Told], policies: Policies) -> None:
    """Compare what events of sections say with what was agreed, in the transaction that takes them and holds the sections' locks.

    A class that was moved keeps its number, and so does one whose number nobody of ours has used in the LMS, and no section of
    ours has; that is agreed. Any other course is noted as what the number was given to.
    """
    columns = [text_array(column) for column in zip(*sorted(told), strict=True)]
    if not columns:
        return
    differs = [_Differs(Told(*row[:3]), *row[3:]) for row in connection.execute(_NOTE, columns).fetchall()]
    if differs:
        active = policies.active(connection)
        rows = [
            (one.told.tenant, one.told.section, one.agreed, one.told.course)
            if one.in_use and one.told.tenant in active and active[one.told.tenant].policy.is_reuse(one.agreed, one.told.course)
            else (one.told.tenant, one.told.section, one.told.course, None)
            for one in differs
        ]
        connection.execute(_WRITE, [text_array(column) for column in zip(*rows, strict=True)])


def agree(connection: Connection, tenant: str, section: str, course: str | None) -> bool:
    """A person has seen to it that the section of the LMS is the class's of this course; False when its number is not that one's
    any more."""
    return connection.execute(_AGREE, [tenant, section, course]).rowcount == 1


def reconsider(connection: Connection, tenant: str, policies: Policies) -> None:
    """Another policy is active: what it does not call another class any more is agreed, and who waits for it gets in."""
    policy = policies.active(connection)[tenant].policy
    for section, was, now in connection.execute(_REUSED, [tenant]).fetchall():
        if not policy.is_reuse(was, now):
            agree(connection, tenant, section, now)
