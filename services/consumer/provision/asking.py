"""What objects wait for the SIS to tell: the publisher is asked for it, by whoever compares digests."""

from __future__ import annotations

from schemas.keys import EntityKey
from services.kit.postgres import Connection, text_array

_ASK_AGAIN_SECONDS = 600
_TO_ASK = """
select distinct tenant, lacks_kind, lacks_key from lms_object where lacks_key is not null and ask_at <= clock_timestamp()
 order by tenant, lacks_kind, lacks_key limit %s
"""
_ASKED = f"""
update lms_object
   set ask_at = clock_timestamp() + least(greatest(clock_timestamp() - state_since, {_ASK_AGAIN_SECONDS} * interval '1 s'),
                                          interval '1 day')
  from unnest(%s::text[], %s::text[], %s::text[]) as asked (tenant, kind, key)
 where (lms_object.tenant, lms_object.lacks_kind, lms_object.lacks_key) = (asked.tenant, asked.kind, asked.key)
"""  # noqa: S608  (a constant of this module)


def to_ask(connection: Connection, limit: int) -> list[EntityKey]:
    """Entities that objects wait for and that the publisher is to be asked for now."""
    return [EntityKey(*row) for row in connection.execute(_TO_ASK, [limit]).fetchall()]


def asked(connection: Connection, entities: list[EntityKey]) -> None:
    """It was. It is asked again after ten minutes, then after as long again as the object has waited."""
    connection.execute(_ASKED, [text_array(column) for column in zip(*entities, strict=True)])
