"""How replays, their plans and their reports look in JSON."""

from __future__ import annotations

from typing import Any

from schemas import keys
from services.consumer.ledger.replay_plans import Differences
from services.consumer.ledger.replay_report import Line
from services.consumer.ledger.replays import Range, Replay
from services.consumer.nouns import SeatRef


def summary(replay: Replay) -> dict[str, Any]:
    """One replay, as far as it has come."""
    return {
        "replay": str(replay.replay),
        "scope": replay.scope.told(),
        "verify": replay.verify,
        "dry_run": replay.dry_run,
        "plan": _id(replay.plan),
        "applied_by": _id(replay.applied_by),
        "state": replay.state,
        "reason": replay.reason,
        "done": replay.done,
        "total": replay.total,
        "ranges": [_range(one) for one in replay.ranges],
        "digest": replay.digest,
        "changes": replay.changes,
        "actor": replay.actor,
        "created_at": replay.created_at.isoformat(),
        "finished_at": replay.finished_at.isoformat() if replay.finished_at else None,
    }


def line(line: Line) -> dict[str, Any]:
    """One offset without its entity's key, which names a person; or one seat, which was named by who asked."""
    superseded = {"version": line.superseded_by, "offset": line.superseded_at_offset} if line.superseded_by else None
    told = {
        "line": line.line,
        "verdict": line.verdict,
        "reason": line.reason,
        "version": line.version,
        "superseded_by": superseded,
    }
    if line.target is not None and line.seat is not None:
        return told | {"seat": _seat(SeatRef(line.target, line.seat))}
    return told | {"partition": line.partition, "offset": line.offset, "kind": line.kind}


def change(subject: dict[str, str]) -> dict[str, Any]:
    """Of what a change is: a seat, or an entity that the ledger lacks or has in an older version."""
    if "seat" in subject:
        return {"seat": _seat(SeatRef(subject["target"], subject["seat"]))}
    return {"entity": subject}


def differences(found: Differences) -> dict[str, Any]:
    """What the plan did not foresee; `planned` is null for what has appeared, `now` for what has vanished."""
    return {
        "appeared": found.appeared,
        "vanished": found.vanished,
        "changed": found.changed,
        "difference": [change(one.subject) | {"planned": one.planned, "now": one.now} for one in found.first],
    }


def _seat(ref: SeatRef) -> dict[str, str]:
    lms_section, lms_user, role, associated_user = keys.split(ref.seat)
    told = {"target": ref.target, "lms_section": lms_section, "lms_user": lms_user, "role": role}
    return told | ({"associated_user": associated_user} if associated_user else {})


def _range(one: Range) -> dict[str, Any]:
    return {"topic": one.topic, "partition": one.partition, "from": one.first, "to": one.last, "next": one.next}


def _id(value: object) -> str | None:
    return None if value is None else str(value)
