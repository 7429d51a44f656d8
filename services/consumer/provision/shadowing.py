"""Objects that may not be written to: put off, because there may be as many as a university has people, and for weeks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from services.consumer.ledger.writing import is_live
from services.consumer.nouns import TERM, ObjectKind
from services.kit.postgres import Connection, text_array

LIVE = f"""
case when object.kind = 'person'
     then exists (select from seat
                   where (seat.tenant, seat.person) = (object.tenant, object.person) and seat.target = object.target
                     and {is_live("seat.target", TERM)})
       or exists (select from lms_object as heir join seat using (target, tenant, person)
                   where (heir.target, heir.kind, heir.object) = (object.target, 'person', object.moves_to)
                     and {is_live("seat.target", TERM)})
     else {is_live("object.target", "object.term")} end
"""  # noqa: S608  (constants of ours)
"""Whether the object may be written to: a person, who belongs to no term, as soon as one of their seats may, under either id if
the SIS keeps them under another one now."""

_SHADOW_SECONDS = 600.0
"""A person may have got a seat elsewhere by then. Of terms that go live we hear."""
_AT_ONCE = 1000
_PUT_OFF = f"""
with found as materialized (
  select lms_object.target, lms_object.kind, lms_object.object
    from lms_object join unnest(%s::text[], %s::text[]) as found (kind, object) using (kind, object)
   where lms_object.target = %s order by kind, object for update of lms_object)
update lms_object
   set reason = 'shadow', next_at = clock_timestamp() + {_SHADOW_SECONDS} * (0.75 + random() / 2) * interval '1 s'
  from found where (lms_object.target, lms_object.kind, lms_object.object) = (found.target, found.kind, found.object)
"""  # noqa: S608  (a constant of this module)
_COME_OUT = f"""
with batch as materialized (
  select kind, object, {LIVE} as live from lms_object as object
   where target = %(target)s and (kind, object) > (%(kind)s, %(object)s) and reason = 'shadow'
   order by kind, object limit {_AT_ONCE} for update),
woken as (
  update lms_object set reason = null, next_at = clock_timestamp()
    from batch where target = %(target)s and (lms_object.kind, lms_object.object) = (batch.kind, batch.object) and live)
select kind, object from batch order by kind desc, object desc limit 1
"""  # noqa: S608  (constants of ours)


class Place(NamedTuple):
    """How far a pass over all objects has come."""

    kind: str = ""
    object: str = ""


def put_off(connection: Connection, target: str, objects: Sequence[tuple[ObjectKind, str]]) -> None:
    """Look at these again later: they were found in shadow."""
    kinds, sis_ids = zip(*objects, strict=True)
    connection.execute(_PUT_OFF, [text_array(kinds), text_array(sis_ids), target])


def come_out(connection: Connection, target: str, after: Place) -> Place | None:
    """Have some of those looked at that may be written to by now; where to go on, None at the end."""
    row = connection.execute(_COME_OUT.encode(), {"target": target, **after._asdict()}).fetchone()
    return Place(*row) if row else None
