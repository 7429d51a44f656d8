"""What a driver does now and then: throwing away what nobody needs."""

from __future__ import annotations

from services.kit.postgres import Connection

_OLD_INTENTS = """
delete from intent where (target, intent) in (
  select target, intent from intent where target = %s and closed_at < clock_timestamp() - interval '1 day' limit 10000)
"""
# No call that is still under way can have begun before such an object was resolved.
_OLD_DEPENDENCIES = """
delete from dependency where target = %s and state = 'resolved' and resolved_at < clock_timestamp() - interval '1 hour'
"""


def tidy(connection: Connection, target: str) -> None:
    """Closed intents are kept for a day (the history keeps what they were), resolved objects for an hour."""
    connection.execute(_OLD_INTENTS, [target])
    connection.execute(_OLD_DEPENDENCIES, [target])
