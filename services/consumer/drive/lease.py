"""Who drives a target: one row, taken over only when it has expired or was released; its epoch never repeats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from services.kit.postgres import Connection


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to call a target, as proven by (owner, epoch)."""

    target: str
    owner: str
    epoch: int
    """Strictly increasing, also across a restore of the database: at least its clock in microseconds."""


BEHIND = "select from recovery where active and behind"
"""One row while the ledger has not read again what it has forgotten: nobody may act upon what it wants."""
_ACQUIRE = f"""
insert into lease as old (target, owner, epoch, expires_at)
select %(target)s, %(owner)s, (extract(epoch from clock_timestamp()) * 1e6)::bigint, clock_timestamp() + %(ttl)s * interval '1 s'
 where not exists ({BEHIND})
on conflict (target) do update
   set owner = excluded.owner, epoch = greatest(old.epoch + 1, excluded.epoch), expires_at = excluded.expires_at
 where old.expires_at <= clock_timestamp()
returning epoch
"""  # noqa: S608  (constants of this module)
_FREE = "select from lease where target = %s and expires_at > clock_timestamp()"
_RENEW = """
update lease set expires_at = clock_timestamp() + %s * interval '1 s' where target = %s and owner = %s and epoch = %s
"""
_RELEASE = "update lease set expires_at = clock_timestamp() where target = %s and owner = %s and epoch = %s"
HOLDS = "select from lease where target = %(target)s and owner = %(owner)s and epoch = %(epoch)s for share"
"""One row if the lease is still ours. Locks it until the transaction ends, so that a take-over waits for what we record."""


def acquire(connection: Connection, target: str, owner: str, ttl_seconds: float) -> Lease | None:
    """Take the lease if nobody holds it, and the ledger is not behind the log. A standby asks every second, so the usual answer
    comes from a read without a lock."""
    if connection.execute(_FREE, [target]).fetchone() is not None:
        return None
    row = connection.execute(_ACQUIRE, {"target": target, "owner": owner, "ttl": ttl_seconds}).fetchone()
    return None if row is None else Lease(target, owner, row[0])


def renew(connection: Connection, lease: Lease, ttl_seconds: float) -> bool:
    """Keep it. False: somebody else has it, or it was voided; whatever is under way must not be recorded."""
    return connection.execute(_RENEW, [ttl_seconds, lease.target, lease.owner, lease.epoch]).rowcount == 1


def holding(lease: Lease) -> Callable[[Connection], bool]:
    """For whoever writes beside the work: asks whether the lease is still ours, and locks it until the transaction ends."""
    owned = {"target": lease.target, "owner": lease.owner, "epoch": lease.epoch}
    return lambda connection: connection.execute(HOLDS, owned).fetchone() is not None


def release(connection: Connection, lease: Lease) -> None:
    """Let a standby take over at once."""
    connection.execute(_RELEASE, [lease.target, lease.owner, lease.epoch])
