"""``policy test``: a policy against worked examples. ``policy plan``: what it would change. ``policy apply``: make it the active
one, and decide all people again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import psycopg

from services.consumer.guard import foreseeing
from services.consumer.guard.foreseeing import Expected
from services.consumer.ledger import audit, database, policies, policy_plans, redeciding
from services.consumer.ledger.announcing import announce
from services.consumer.ledger.decision_plan import Change
from services.consumer.ledger.policies import Policies
from services.consumer.ledger.policy_plans import KINDS, Digest, PolicyPlan, WorldChanged
from services.consumer.policy import examples, model
from services.consumer.settings import LedgerSettings
from services.kit.postgres import Connection


def test(policy_file: Path | None, examples_file: Path | None) -> tuple[str, bool]:
    """Decide every example; what to print, and whether all came out as they say. The packaged files stand for those not named.

    Nothing is read but the files. Raises `model.PolicyError` and `examples.ExamplesError`.
    """
    policy = model.parse(policy_file.read_text(encoding="utf-8") if policy_file else model.default_text())
    table = examples.parse(examples_file.read_text(encoding="utf-8-sig") if examples_file else examples.default_text())
    wrong = {one.example: one for one in examples.differences(table, policy)}
    lines = []
    for example in table:
        difference = wrong.get(example.name)
        lines.append(f"{'wrong' if difference else 'ok   '}  {example.name}")
        if difference:
            lines += [f"         the example says: {seat}" for seat in difference.missing]
            lines += [f"         the policy gives: {seat}" for seat in difference.unexpected or ["no seat"]]
    lines.append(f"{len(table) - len(wrong)} of {len(table)} examples come out as they say.")
    return "\n".join(lines), not wrong


class PlanError(ValueError):
    """Nothing was planned or stored. The message says why, and what to do."""


def plan(settings: LedgerSettings, file: Path, rows: int) -> str:
    """What the file would change if it were the policy, so many of the seats in full; writes nothing.

    Raises `model.PolicyError` and `PlanError`.
    """
    body = file.read_text(encoding="utf-8")
    try:
        with database.connect(settings.database_url.get_secret_value()) as connection:
            connection.read_only = True
            with connection.transaction():
                policy_plans.see_one_moment(connection)
                found = policy_plans.plan(connection, settings.target, settings.tenant, body, rows)
                held = foreseeing.foresee(connection, settings.target, settings.tenant, found.removals, found.guard)
    except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedColumn) as error:
        raise PlanError("The ledger is not of this release. Start the consumer of this release first, it migrates it.") from error
    return "\n".join(_told_plan(found, held, file))


def apply(settings: LedgerSettings, file: Path, actor: str, planned: str | None = None, within: int = 0) -> str:
    """Store the file as a new version and decide the tenant's people in batches; returns what happened, for a person to read.

    Stopped half-way, it is finished by any running consumer, or by applying the same file again. With the digest of a plan it is
    stored only while the plan holds, give or take `within` seats of each kind. Raises `model.PolicyError`, `PlanError` and
    `policy_plans.WorldChanged`.
    """
    body = file.read_text(encoding="utf-8")
    digest = Digest.of(planned) if planned is not None else None
    if planned is not None and digest is None:
        raise PlanError("That is not the digest of a plan. Copy the whole of what `policy plan` prints last.")
    url = settings.database_url.get_secret_value()
    database.migrate(url)
    with database.connect(url) as connection:
        version, is_new = _store(connection, settings, body, actor, digest, within)
        changed = 0
        for seats in redeciding.redecide(connection, Policies(settings.target, settings.swap_settle_seconds), settings.tenant):
            changed += len(seats)
            announce(connection, seats)
    what = f"version {version} is active now" if is_new else f"version {version} was active already"
    return f"Policy of {settings.tenant}: {what}; {changed} seats have work because of it."


def _store(
    connection: Connection, settings: LedgerSettings, body: str, actor: str, planned: Digest | None, within: int
) -> tuple[int, bool]:
    detail: dict[str, object] = {"tenant": settings.tenant, "digest": policies.digest(body)}
    try:
        with connection.transaction():
            if planned is None:
                version, is_new = policies.store(connection, settings.tenant, body, actor)
            else:
                detail["plan"] = str(planned)
                policy_plans.see_one_moment(connection)
                version, is_new = policy_plans.apply(connection, settings.target, settings.tenant, body, actor, planned, within)
            audit.record(connection, actor, "policy.apply", "done", detail | {"version": version, "new": is_new})
    except WorldChanged as changed:
        with connection.transaction():
            audit.record(connection, actor, "policy.apply", "refused", detail | {"now": changed.now._asdict()})
        raise
    except psycopg.errors.SerializationFailure as error:
        raise PlanError("Another policy is being applied. Nothing was stored; plan again when it is done.") from error
    return version, is_new


def _told_plan(plan: PolicyPlan, held: Sequence[Expected], file: Path) -> Iterator[str]:
    active = f"version {plan.active_version} is active" if plan.active_version is not None else "none is active"
    yield f"Policy of {plan.tenant}: {active}; {plan.persons:,} people were decided under {file.name}."
    if not plan.reached_everybody:
        yield "The active version is still being carried out: what it has left to do is among these changes."
    yield ""
    yield f"{'seats that would change':30}" + "".join(f"{kind:>10}" for kind in KINDS)
    for term, counts in sorted(plan.terms.items()):
        yield f"{term:30}" + "".join(f"{counts[kind]:>10,}" for kind in KINDS)
    yield f"{'all':30}" + "".join(f"{count:>10,}" for count in plan.digest.totals)
    yield ""
    yield f"{plan.removals.total():,} of them give access now, and would not any more."
    yield from map(_told_expected, held)
    if plan.rows:
        yield ""
        yield from map(_told_change, plan.rows)
    yield ""
    yield f"To apply exactly this: policy apply {file} --plan {plan.digest}"


def _told_expected(expected: Expected) -> str:
    where = f"{expected.scope.kind} {expected.scope.key}".strip()
    cause = expected.cause
    if cause is None:
        return f"The guard would hold {expected.removals:,} of them in {where}, where a hold is open."
    return f"The guard would hold {expected.removals:,} of them in {where} with {cause.active:,} active seats: {cause.allowed}."


def _told_change(change: Change) -> str:
    seat = change.seat
    return f"{change.effect:7}{seat.person}  {seat.section}  {seat.role}  {change.before or 'none'} -> {change.after}"
