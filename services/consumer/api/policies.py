"""``/policies``: what another policy would change, and making it the active one if it still does."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Any

import psycopg
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from schemas import keys
from services.consumer.api.answers import policies as answers
from services.consumer.api.bodies import Query
from services.consumer.api.desk import Answer, Desk, OperationsRoute, Refusal, invalid, json_answer, query, raw_body
from services.consumer.guard import foreseeing
from services.consumer.guard.foreseeing import Expected
from services.consumer.ledger import policies, policy_plans
from services.consumer.ledger.decision_plan import Change
from services.consumer.ledger.policy_plans import Digest, PolicyPlan, WorldChanged
from services.consumer.policy.model import PolicyError, default_text
from services.kit.http import problem
from services.kit.openapi import operation
from services.kit.postgres import Connection

_POLICY_BYTES = 256 * 1024
_YAML = {"application/yaml": {"schema": {"type": "string", "description": "A policy.", "examples": [default_text()]}}}
_BUSY = "Another policy is being applied; plan again when it is done"


class PlanQuery(Query):
    """How much of the plan is told."""

    rows: int = Field(default=0, ge=0, le=1000, examples=[20])
    """So many of the seats in full; they name people."""


class ApplyQuery(Query):
    """Which plan is meant."""

    plan: str = Field(pattern=r"^\d{1,18}-\d{1,18}-\d{1,18}-\d{1,18}-[0-9a-f]{64}$", examples=[answers.DIGEST_EXAMPLE])
    """The digest of the plan that was seen."""
    within: int = Field(default=0, ge=0, le=100_000, examples=[5])
    """Give or take so many seats of each kind."""


def policy_router(desk: Desk, tenant: str, target: str) -> APIRouter:
    """The routes, for the consumer's own tenant. A policy travels as it is, as YAML."""
    router = APIRouter(route_class=OperationsRoute, tags=["policies"])
    caller = Depends(desk.caller)

    @router.post("/policies/plan", **operation("policies.plan", "Plan a policy", answers.PolicyPlan, body=_YAML, query=PlanQuery))
    async def plan(request: Request, actor: str = caller) -> Response:
        """What would change; `?rows=` of the seats in full. Nothing is written."""
        try:
            rows = query(request, PlanQuery).rows
            text = await _text(request)
        except Refusal as refusal:
            return await desk.refuse(actor, "policies.plan", refusal)
        return await desk.perform(actor, "policies.plan", partial(_plan, target, tenant, text=text, rows=rows))

    @router.post(
        "/policies/apply",
        **operation(
            "policies.apply",
            "Apply a policy",
            answers.PolicyApplied,
            status=HTTPStatus.ACCEPTED,
            body=_YAML,
            query=ApplyQuery,
            conflicts={"world_changed": "The policy would change something else by now; plan again", "busy": _BUSY},
        ),
    )
    async def apply(request: Request, actor: str = caller) -> Response:
        """Make it the active policy, if it still changes what the plan `?plan=` said, give or take `?within=` seats of each kind.
        Everybody is decided again soon after."""
        try:
            asked = query(request, ApplyQuery)
            planned = Digest.of(asked.plan)
            assert planned is not None  # noqa: S101  (has the digest's form)
            text = await _text(request)
        except Refusal as refusal:
            return await desk.refuse(actor, "policies.apply", refusal)
        work = partial(_apply, target, tenant, text=text, planned=planned, within=asked.within, actor=actor)
        return await desk.perform(actor, "policies.apply", work)

    return router


async def _text(request: Request) -> str:
    try:
        return (await raw_body(request, _POLICY_BYTES)).decode()
    except UnicodeDecodeError as error:
        raise _unusable("line 1: not UTF-8 text") from error


def _unusable(reasons: object) -> Refusal:
    return invalid([{"detail": line} for line in str(reasons).splitlines()], "bad_policy")


def _plan(target: str, tenant: str, connection: Connection, *, text: str, rows: int) -> Answer:
    policy_plans.see_one_moment(connection)
    try:
        found = policy_plans.plan(connection, target, tenant, text, rows)
    except PolicyError as error:
        return _refused(_unusable(error), {})
    held = foreseeing.foresee(connection, target, tenant, found.removals, found.guard)
    return json_answer(_told(found, held), {"policy": policies.digest(text), "plan": str(found.digest), "rows": len(found.rows)})


def _apply(target: str, tenant: str, connection: Connection, *, text: str, planned: Digest, within: int, actor: str) -> Answer:
    policy_plans.see_one_moment(connection)
    detail: dict[str, object] = {"policy": policies.digest(text), "plan": str(planned)}
    try:
        with connection.transaction():
            version, is_new = policy_plans.apply(connection, target, tenant, text, actor, planned, within)
    except PolicyError as error:
        return _refused(_unusable(error), detail)
    except WorldChanged as changed:
        told = {"planned": changed.planned._asdict(), "now": changed.now._asdict()}
        response = problem(HTTPStatus.CONFLICT, str(changed), reason="world_changed", **told)
        return Answer(response, detail | told | {"reason": "world_changed"}, "refused")
    except psycopg.errors.SerializationFailure:
        return Answer(problem(HTTPStatus.CONFLICT, _BUSY, reason="busy"), detail | {"reason": "busy"}, "refused")
    content: dict[str, object] = {"version": version, "new": is_new}
    return Answer(JSONResponse(content, HTTPStatus.ACCEPTED), detail | content)


def _refused(refusal: Refusal, detail: dict[str, object]) -> Answer:
    return Answer(refusal.response, detail | {"reason": refusal.reason}, "refused")


def _told(plan: PolicyPlan, held: list[Expected]) -> dict[str, Any]:
    return {
        "active_version": plan.active_version,
        "reached_everybody": plan.reached_everybody,
        "persons": plan.persons,
        "seats": plan.digest.totals._asdict(),
        "terms": [_place(("institution", "term"), key) | dict(counts) for key, counts in sorted(plan.terms.items())],
        "removals": plan.removals.total(),
        "held": [_expected(one) for one in held],
        "rows": [_row(change) for change in plan.rows],
        "digest": str(plan.digest),
    }


def _place(names: tuple[str, ...], key: str) -> dict[str, Any]:
    return dict(zip(names, keys.split(key), strict=True))


def _expected(one: Expected) -> dict[str, Any]:
    """As ``GET /holds`` tells a hold."""
    told: dict[str, Any] = {"scope": one.scope.kind, "key": one.scope.key, "removals": one.removals}
    return told | ({"active": one.cause.active, "limit": one.cause.allowed} if one.cause else {"open": True})


def _row(change: Change) -> dict[str, Any]:
    return {
        "person": change.seat.person,
        "section": _place(("institution", "term", "section"), change.seat.section),
        "role": change.seat.role,
        "effect": change.effect,
        "before": change.before,
        "after": change.after,
    }
