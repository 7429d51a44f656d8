"""The registrar's policy in the ledger: numbered versions, one of them active, changed only on purpose."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import NamedTuple

from services.consumer.policy import model
from services.consumer.policy.model import Policy
from services.kit.postgres import Connection


class ActivePolicy(NamedTuple):
    """The policy that decides for a tenant now."""

    version: int
    policy: Policy


@dataclass
class Policies:
    """What a decision needs to know besides the entities. Keeps parsed policies by what they say: after a restore the same number
    may be another policy."""

    target: str
    """The one target that all sections go to."""
    swap_settle_seconds: float = 3
    """How long a removal waits for the add of a swap."""
    _parsed: dict[str, Policy] = field(default_factory=dict)

    def active(self, connection: Connection) -> dict[str, ActivePolicy]:
        """The active version of every tenant. Call it after the persons are locked: then a policy that is being applied either
        is seen here, or its own pass over these persons comes after us."""
        rows = connection.execute("select tenant, version, digest from policy where active").fetchall()
        return {tenant: ActivePolicy(version, self._policy(connection, tenant, version, said)) for tenant, version, said in rows}

    def _policy(self, connection: Connection, tenant: str, version: int, said: str) -> Policy:
        if said not in self._parsed:
            row = connection.execute("select body from policy where tenant = %s and version = %s", [tenant, version]).fetchone()
            assert row is not None  # noqa: S101  (versions are never deleted)
            self._parsed[said] = model.parse(row[0])
        return self._parsed[said]


def ensure(connection: Connection, tenant: str, body: str) -> int:
    """At the very first start of a tenant, store `body` as version 1; otherwise leave everything as it is.

    Returns the active version. Raises `model.PolicyError`.
    """
    model.parse(body)
    with connection.transaction():
        _lock(connection, tenant)
        row = connection.execute("select version from policy where tenant = %s and active", [tenant]).fetchone()
        if row is not None:
            return int(row[0])
        connection.execute(
            """insert into policy (tenant, version, body, digest, active, actor, redecided_at)
               values (%s, 1, %s, %s, true, 'start', clock_timestamp())""",
            [tenant, body, digest(body)],
        )
        return 1


def store(connection: Connection, tenant: str, body: str, actor: str) -> tuple[int, bool]:
    """Make `body` the active version; returns it, and whether it is a new one (the active text again is not).

    Everybody still has to be decided again: see `redeciding`. Raises `model.PolicyError`.
    """
    model.parse(body)
    with connection.transaction():
        _lock(connection, tenant)
        row = connection.execute("select version, digest from policy where tenant = %s and active", [tenant]).fetchone()
        if row is not None and row[1] == digest(body):
            return int(row[0]), False
        connection.execute("update policy set active = false where tenant = %s and active", [tenant])
        version = connection.execute(
            """insert into policy (tenant, version, body, digest, active, actor)
               select %(tenant)s, coalesce(max(version), 0) + 1, %(body)s, %(digest)s, true, %(actor)s
                 from policy where tenant = %(tenant)s
               returning version""",
            {"tenant": tenant, "body": body, "digest": digest(body), "actor": actor},
        ).fetchone()
        assert version is not None  # noqa: S101  (an aggregate always gives a row)
        return int(version[0]), True


def digest(body: str) -> str:
    """What tells one text from another."""
    return hashlib.sha256(body.encode()).hexdigest()


def _lock(connection: Connection, tenant: str) -> None:
    connection.execute("select pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"policy {tenant}"])
