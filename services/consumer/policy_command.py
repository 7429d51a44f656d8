"""``policy test``: a policy against worked examples. ``policy apply``: make a policy the active one, decide all people again."""

from __future__ import annotations

from pathlib import Path

from services.consumer.ledger import audit, database, policies, redeciding
from services.consumer.ledger.policies import Policies
from services.consumer.nouns import WORK_CHANNEL
from services.consumer.policy import examples, model
from services.consumer.settings import LedgerSettings


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


def apply(settings: LedgerSettings, file: Path, actor: str) -> str:
    """Store the file as a new version and decide the tenant's people in batches; returns what happened, for a person to read.

    Stopped half-way, it is finished by any running consumer, or by applying the same file again. Raises `model.PolicyError`.
    """
    body = file.read_text(encoding="utf-8")
    url = settings.database_url.get_secret_value()
    database.migrate(url)
    with database.connect(url) as connection:
        with connection.transaction():
            version, is_new = policies.store(connection, settings.tenant, body, actor)
            detail = {"tenant": settings.tenant, "version": version, "digest": policies.digest(body), "new": is_new}
            audit.record(connection, actor, "policy.apply", "done", detail)
        changed = 0
        for seats in redeciding.redecide(connection, Policies(settings.target, settings.swap_settle_seconds), settings.tenant):
            changed += len(seats)
            if seats:
                connection.execute("select pg_notify(%s, %s)", [WORK_CHANNEL, settings.target])
    what = f"version {version} is active now" if is_new else f"version {version} was active already"
    return f"Policy of {settings.tenant}: {what}; {changed} seats have work because of it."
