"""Suspending people whom the SIS has removed: within a day no more of a tenant's than its policy lets go without a person's word.

When more are to be suspended all of them are held. They are counted together then, not one by one: there may be as many as a
university has students, and each look at one costs two calls.
"""

from __future__ import annotations

from collections.abc import Mapping

from services.consumer.provision.shadowing import LIVE
from services.kit.postgres import Connection, text_array

# Who is in shadow alone is nobody yet, and who was removed while nobody was to be suspended is not to be. Counted no further than
# the answer needs.
_TOO_MANY = f"""
select count(*) > %(most)s
  from (select from lms_object as object
         where target = %(target)s and tenant = %(tenant)s
           and (suspended_at > clock_timestamp() - interval '1 day'
                or suspends and coalesce(reason, '') not in ('off', 'shadow') and {LIVE})
         limit %(most)s + 1) as counted
"""  # noqa: S608  (constants of ours)
_TENANTS_HELD = "select distinct tenant from lms_object where target = %s and state = 'held'"
_RELEASE = """
with held as materialized (
  select target, kind, object from lms_object
   where target = %s and tenant = any(%s::text[]) and state = 'held' order by kind, object for update)
update lms_object set state = 'pending', reason = null, state_since = clock_timestamp(), next_at = clock_timestamp()
  from held where (lms_object.target, lms_object.kind, lms_object.object) = (held.target, held.kind, held.object)
"""


def too_many(connection: Connection, target: str, tenant: str, most: int) -> bool:
    """Whether more than `most` people of a tenant were suspended within a day, or are to be."""
    row = connection.execute(_TOO_MANY.encode(), {"target": target, "tenant": tenant, "most": most}).fetchone()
    return bool(row and row[0])


def release(connection: Connection, target: str, most: Mapping[str, int]) -> int:
    """Let those go on who are held though it would not be too many any more; `most` by tenant; how many that were."""
    held = [tenant for (tenant,) in connection.execute(_TENANTS_HELD, [target]).fetchall()]
    free = [tenant for tenant in held if not too_many(connection, target, tenant, most.get(tenant, 0))]
    return connection.execute(_RELEASE, [target, text_array(free)]).rowcount if free else 0
