"""Who asked for what: one row per call of the operations API, in the transaction of its effect."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Literal

from psycopg.types.json import Jsonb

from services.kit.postgres import Connection

Outcome = Literal["done", "refused", "not_found"]
"""`refused`: the call was understood and nothing was done; its detail says why in closed codes."""


def record(connection: Connection, actor: str, action: str, outcome: Outcome, detail: Mapping[str, object]) -> None:
    """Append the row within the caller's open transaction, so that neither it nor the effect exists alone.

    `detail` may hold the ids that were asked for, because the table is read by those who may see them; never a name.
    """
    connection.execute(
        "insert into audit (id, actor, action, outcome, detail) values (%s, %s, %s, %s, %s)",
        [uuid.uuid4(), actor, action, outcome, Jsonb(dict(detail))],
    )
