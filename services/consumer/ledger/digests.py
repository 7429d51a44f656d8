"""Comparing the ledger with the mirror, and what the publisher is asked for because of it."""

from __future__ import annotations

import uuid

from schemas.returns import Scope
from services.kit.postgres import Connection


def request_republish(connection: Connection, scope: Scope, reason: str) -> None:
    """Have the publisher emit the current state of `scope` again: for a ledger, or a log, that lost what it cannot name.

    Durable with the caller's transaction, and sent by whoever compares digests. A wish that has not been sent yet is enough for
    all who want the same.
    """
    connection.execute(
        """insert into republish_wish (request, scope, reason) values (%s, %s::jsonb, %s)
           on conflict (scope) where not sending do nothing""",
        [uuid.uuid4(), scope.model_dump_json(exclude_none=True), reason],
    )


def reconciled(connection: Connection) -> bool:
    """Whether a complete round of digests, asked for after recovery mode was entered, left no difference to the mirror."""
    row = connection.execute(
        "select exists (select from recovery join digest_reading on digest_reading.agreed_for = recovery.since)"
    ).fetchone()
    return bool(row and row[0])
