"""What another policy would change: everybody is decided under it, and nothing is written."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Self

from services.consumer.ledger import decision_plan, overrides, policies
from services.consumer.ledger.decision_plan import Change, Plan
from services.consumer.ledger.policies import ActivePolicy
from services.consumer.nouns import PersonRef, takes_away
from services.consumer.policy import model
from services.consumer.policy.guard_rules import GuardRules
from services.kit.postgres import Connection

_BATCH = 500

Kind = Literal["add", "drop", "update", "moved"]
"""Of a change: what it does to the person's access, or `moved`: the seat's section, course or base role is told differently, no
more."""
KINDS: tuple[Kind, ...] = ("add", "drop", "update", "moved")


class Totals(NamedTuple):
    """How many seats would change, by kind."""

    add: int
    drop: int
    update: int
    moved: int

    def __str__(self) -> str:
        """For people."""
        return ", ".join(f"{kind} {count:,}" for kind, count in zip(KINDS, self, strict=True))


class Digest(NamedTuple):
    """What names a plan: its totals, so that a plan that no longer holds can be compared, and a fingerprint of every change."""

    totals: Totals
    fingerprint: str

    def __str__(self) -> str:
        """As it is printed, and given back."""
        return "-".join([*map(str, self.totals), self.fingerprint])

    def holds(self, now: Digest, within: int) -> bool:
        """Whether the plan, made `now`, says the same: exactly, or so many seats of each kind more or fewer, whichever they are.
        On a day on which people register all the time nothing stays exactly as it was."""
        return now == self or (within > 0 and all(abs(a - b) <= within for a, b in zip(now.totals, self.totals, strict=True)))

    @classmethod
    def of(cls, text: str) -> Self | None:
        """The digest that was printed as `text`; None for a text that never was."""
        found = re.fullmatch(r"(\d{1,18})-(\d{1,18})-(\d{1,18})-(\d{1,18})-([0-9a-f]{64})", text)
        return cls(Totals(*map(int, found.groups()[:4])), found[5]) if found else None


class Place(NamedTuple):
    """Where a removal counts."""

    section: str
    """Section key text."""
    course: str | None
    """Course key text."""


@dataclass
class PolicyPlan:
    """What would change."""

    tenant: str
    active_version: int | None
    """Of the policy that decides now; None: there is none."""
    reached_everybody: bool
    """Otherwise the active policy is still being carried out, and what it has left to do counts as a change."""
    guard: GuardRules
    """Of the new policy."""
    persons: int = 0
    terms: dict[str, Counter[Kind]] = field(default_factory=dict)
    """By term key text, ``institution/term``."""
    removals: Counter[Place] = field(default_factory=Counter)
    """Seats that give access in the LMS, and should not any more."""
    rows: list[Change] = field(default_factory=list)
    """The first of them, by person."""
    policy_digest: str = ""
    sum_of_changes: int = 0
    """Of the hashes of all changes: the same in whatever order and in whatever batches they are met."""

    @property
    def digest(self) -> Digest:
        """What names this plan."""
        total: Counter[Kind] = sum(self.terms.values(), Counter())
        fingerprint = hashlib.sha256(f"{self.policy_digest} {self.sum_of_changes}".encode()).hexdigest()
        return Digest(Totals(*(total[kind] for kind in KINDS)), fingerprint)

    def note(self, section: str, kind: Kind, *facts: str) -> None:
        """Count one change; `facts` are what the digest has to cover."""
        self.terms.setdefault(section.rsplit("/", 1)[0], Counter())[kind] += 1
        self.sum_of_changes += int.from_bytes(hashlib.sha256("\0".join(facts).encode()).digest(), "big")


class WorldChanged(Exception):
    """The plan says something else by now; nothing was stored."""

    def __init__(self, planned: Totals, now: Totals) -> None:
        super().__init__(
            f"The plan no longer holds: it said {planned}; by now it is {now}"
            + (", of other seats, or the file is another one" if planned == now else "")
            + ". Nothing was stored; plan again."
        )
        self.planned = planned
        self.now = now


def see_one_moment(connection: Connection) -> None:
    """Let the open transaction, in which nothing was asked yet, see the ledger as it is now until its end."""
    connection.execute("set transaction isolation level repeatable read")


def plan(connection: Connection, target: str, tenant: str, body: str, rows: int = 0) -> PolicyPlan:
    """What would change if `body` were the tenant's policy, in the caller's transaction, which sees one moment; `rows` in full.

    Raises `model.PolicyError`. Nobody is locked and nothing is written, so that this may take its time.
    """
    policy = model.parse(body)
    row = connection.execute(
        """select clock_timestamp(), policy.version, policy.redecided_at is not null or policy.version is null
             from (values (%s)) as asked (tenant) left join policy on policy.tenant = asked.tenant and policy.active""",
        [tenant],
    ).fetchone()
    assert row is not None  # noqa: S101  (always one row)
    now, version, reached_everybody = row
    found = PolicyPlan(tenant, version, reached_everybody, policy.guard, policy_digest=policies.digest(body))
    for persons in _batches(connection, tenant):
        found.persons += len(persons)
        standing = overrides.read(connection, persons)
        _count(found, decision_plan.plan(connection, persons, {tenant: ActivePolicy(0, policy)}, target, standing, now), rows)
    return found


def apply(
    connection: Connection, target: str, tenant: str, body: str, actor: str, planned: Digest, within: int = 0
) -> tuple[int, bool]:
    """`policies.store`, if storing `body` would still change what the plan says, give or take so many seats of each kind; in the
    caller's transaction, as above.

    Raises `model.PolicyError` and `WorldChanged`; PostgreSQL raises `psycopg.errors.SerializationFailure` when another policy is
    being stored or carried out meanwhile.
    """
    row = connection.execute(
        "select version from policy where tenant = %s and active and digest = %s", [tenant, policies.digest(body)]
    ).fetchone()
    if row is not None:
        return int(row[0]), False  # somebody asks again, whose answer was lost
    now = plan(connection, target, tenant, body).digest
    if not planned.holds(now, within):
        raise WorldChanged(planned.totals, now.totals)
    return policies.store(connection, tenant, body, actor)


def _batches(connection: Connection, tenant: str) -> Iterator[list[PersonRef]]:
    after = ""
    while True:
        rows = connection.execute(
            "select person from person where tenant = %s and person > %s order by person limit %s", [tenant, after, _BATCH]
        ).fetchall()
        if not rows:
            return
        after = rows[-1][0]
        yield [PersonRef(tenant, person) for (person,) in rows]


def _count(found: PolicyPlan, plan: Plan, rows: int) -> None:
    for change in plan.changes:
        found.note(change.seat.section, change.effect, change.ref.seat, change.before or "", change.after)
        if takes_away(change.after, change.applied):
            found.removals[Place(change.seat.section, change.seat.course)] += 1
    for seat in plan.moved:
        found.note(seat.section, "moved", seat.ref.seat, seat.section, seat.course or "", seat.base_role)
    left = max(0, rows - len(found.rows))
    found.rows += sorted(plan.changes, key=lambda change: (change.seat.person, change.ref))[:left]
