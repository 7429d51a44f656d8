"""``/undos``: the inverse of what was done to the LMS between two times, planned, then applied as overrides."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Self

import orjson
from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import ConfigDict, Field, model_validator

from schemas import keys
from services.consumer.api.answers import overrides as answers
from services.consumer.api.bodies import (
    Body,
    Later,
    Moment,
    Nothing,
    OneOf,
    PersonId,
    Reason,
    ReasonRequest,
    SectionPlace,
    Sha256,
    TermPlace,
)
from services.consumer.api.desk import (
    Answer,
    Desk,
    OperationsRoute,
    Refusal,
    body,
    invalid,
    json_answer,
    not_found,
    uuid_of,
)
from services.consumer.ledger import overruling, undo_plans, undoing
from services.consumer.ledger.announcing import announce
from services.consumer.ledger.overruling import Refused
from services.consumer.ledger.policies import Policies
from services.consumer.ledger.undo_plans import Inverse, Scope, TooMany, UndoPlan, Window
from services.consumer.ledger.undoing import Order, Undo, WorldChanged
from services.kit.http import problem
from services.kit.openapi import operation
from services.kit.postgres import Connection

_ROWS = 1000
_NEWEST = 50
_UndoId = Annotated[str, Path(description="Id of the undo.", examples=["b1c8a4de-4c5f-4b59-9f0a-5f2d3f6f0c7a"])]
_WORLD_CHANGED = "The plan says something else by now; nothing was done. Plan again"
_NO_POLICY = "The tenant has no active policy, so nobody gets a seat: apply one first"
_WITHDRAWN = "The undo was withdrawn before"


class PersonPlace(Body):
    """One person, by the id of the SIS."""

    person: PersonId


class UndoScope(OneOf):
    """Exactly one of these."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"term": {"institution": "PSUNV", "term": "1259"}}]})

    section: SectionPlace | None = None
    term: TermPlace | None = None
    person: PersonPlace | None = None
    everything: Nothing | None = None

    @property
    def scope(self) -> Scope:
        """As the ledger has it."""
        return Scope(**getattr(self, self.name).model_dump())


class UndoPlanRequest(Body):
    """Between which times, and where. People are named in the body, because URLs are logged along the way."""

    begins: Moment = Field(alias="from")
    ends: Later = Field(alias="until")
    scope: UndoScope

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.begins >= self.ends:
            raise ValueError("from must be before until")
        return self


class UndoRequest(UndoPlanRequest):
    """The same, with what was seen, and why."""

    digest: Sha256
    """Of the plan that was seen."""
    in_force_until: Later
    """The end of the overrides: by then the student system has to say the same."""
    reason: Reason


def undo_router(desk: Desk, tenant: str, policies: Policies) -> APIRouter:
    """The routes, for the consumer's own tenant and target."""
    router = APIRouter(route_class=OperationsRoute, tags=["undos"])
    caller = Depends(desk.caller)

    @router.post("/undos/plan", **operation("undos.plan", "Plan an undo", answers.UndoPlan, body=UndoPlanRequest))
    async def plan(request: Request, actor: str = caller) -> Response:
        """Which seats would have to be what. Nothing is written."""
        try:
            asked = await body(request, UndoPlanRequest)
        except Refusal as refusal:
            return await desk.refuse(actor, "undos.plan", refusal)
        return await desk.perform(actor, "undos.plan", partial(_plan, policies, tenant, asked=asked))

    @router.post(
        "/undos",
        **operation(
            "undos.apply",
            "Carry an undo out",
            answers.UndoMade,
            status=HTTPStatus.CREATED,
            body=UndoRequest,
            conflicts={"world_changed": _WORLD_CHANGED, "no_policy": _NO_POLICY},
            located=True,
        ),
    )
    async def apply(request: Request, actor: str = caller) -> Response:
        """Carry the plan out, if it still says the same."""
        try:
            asked = await body(request, UndoRequest)
        except Refusal as refusal:
            return await desk.refuse(actor, "undos.apply", refusal)
        return await desk.perform(actor, "undos.apply", partial(_apply, policies, tenant, asked=asked, actor=actor))

    @router.get("/undos", **operation("undos.list", "List undos", answers.UndoList))
    async def listed(actor: str = caller) -> Response:
        """The newest fifty."""
        return await desk.perform(actor, "undos.list", partial(_listed, policies, tenant))

    @router.get("/undos/{undo}", **operation("undos.read", "Read an undo", answers.Undo, missing="undo"))
    async def one(undo: _UndoId, actor: str = caller) -> Response:
        """One, and how many of its overrides still decide."""
        return await desk.perform(actor, "undos.read", partial(_read, policies, tenant, undo))

    @router.post(
        "/undos/{undo}/withdraw",
        **operation(
            "undos.withdraw",
            "Withdraw an undo",
            answers.UndoWithdrawn,
            body=ReasonRequest,
            missing="undo",
            conflicts={"withdrawn": _WITHDRAWN},
        ),
    )
    async def withdraw(request: Request, undo: _UndoId, actor: str = caller) -> Response:
        """End its overrides: the student system decides these seats again."""
        try:
            asked = await body(request, ReasonRequest)
        except Refusal as refusal:
            return await desk.refuse(actor, "undos.withdraw", refusal)
        work = partial(_withdraw, policies, tenant, undo, actor=actor, reason=asked.reason)
        return await desk.perform(actor, "undos.withdraw", work)

    return router


def _window(asked: UndoPlanRequest) -> Window:
    return Window(asked.begins, asked.ends)


def _detail(asked: UndoPlanRequest) -> dict[str, object]:
    """For the audit, which has not the person's own words."""
    return asked.model_dump(mode="json", by_alias=True, exclude={"reason"}, exclude_none=True)


def _plan(policies: Policies, tenant: str, connection: Connection, *, asked: UndoPlanRequest) -> Answer:
    try:
        found = undo_plans.plan(connection, policies, tenant, _window(asked), asked.scope.scope)
    except TooMany:
        return _too_many(asked)
    return json_answer(_told_plan(found), _detail(asked) | {"seats": len(found.inverses), "digest": found.digest})


def _too_many(asked: UndoPlanRequest) -> Answer:
    wrong = {
        "pointer": "/scope",
        "detail": f"more than {undo_plans.MOST} seats: name a term, a section or a person, or less time",
    }
    return Answer(invalid([wrong], "too_many").response, _detail(asked) | {"reason": "too_many"}, "refused")


def _apply(policies: Policies, tenant: str, connection: Connection, *, asked: UndoRequest, actor: str) -> Answer:
    detail = _detail(asked)
    order = Order(_window(asked), asked.scope.scope, asked.digest, asked.in_force_until, asked.reason, actor)
    try:
        done = undoing.apply(connection, policies, tenant, order)
    except TooMany:
        return _too_many(asked)
    except WorldChanged as changed:
        response = problem(HTTPStatus.CONFLICT, _WORLD_CHANGED, reason="world_changed", now=_told_plan(changed.now))
        return Answer(response, detail | {"reason": "world_changed"}, "refused")
    except Refused as refused:
        return Answer(_refusal(refused), detail | {"reason": refused.reason}, "refused")
    announce(connection, done.work)
    content = {"undo": str(done.undo), "overrides": done.made, "left": done.left}
    headers = {"Location": f"/undos/{done.undo}"}
    created = Response(orjson.dumps(content), HTTPStatus.CREATED, headers, media_type="application/json")
    return Answer(created, detail | content)


def _refusal(refused: Refused) -> Response:
    if refused.reason == "end_out_of_bounds":
        wrong = {"pointer": "/in_force_until", "detail": f"in the future, and at most {overruling.LONGEST} from now"}
        return invalid([wrong]).response
    return problem(HTTPStatus.CONFLICT, _NO_POLICY, reason=refused.reason)


def _listed(policies: Policies, tenant: str, connection: Connection) -> Answer:
    found = undoing.find(connection, tenant, policies.target, _NEWEST)
    return json_answer({"undos": [_told(one) for one in found]}, {"undos": len(found)})


def _read(policies: Policies, tenant: str, name: str, connection: Connection) -> Answer:
    undo = uuid_of(name)
    found = undoing.read(connection, tenant, policies.target, undo) if undo else None
    return json_answer(_told(found), {"undo": name}) if found else not_found("undo", {"undo": name[:40]})


def _withdraw(policies: Policies, tenant: str, name: str, connection: Connection, *, actor: str, reason: str) -> Answer:
    undo = uuid_of(name)
    if undo is None or undoing.read(connection, tenant, policies.target, undo) is None:
        return not_found("undo", {"undo": name[:40]})
    detail = {"undo": str(undo)}
    done = undoing.withdraw(connection, policies, tenant, undo, actor, reason)
    if done is None:
        response = problem(HTTPStatus.CONFLICT, _WITHDRAWN, reason="withdrawn")
        return Answer(response, detail | {"reason": "withdrawn"}, "refused")
    ended, work = done
    announce(connection, work)
    return json_answer(detail | {"ended": ended}, detail | {"ended": ended})


def _told_plan(plan: UndoPlan) -> Mapping[str, Any]:
    """Of a long plan the first thousand seats; the digest covers all of them."""
    return {
        "seats": len(plan.inverses),
        "left_alone": dict(plan.left),
        "inverses": [_inverse(one) for one in plan.inverses[:_ROWS]],
        "digest": plan.digest,
    }


def _inverse(one: Inverse) -> dict[str, Any]:
    institution, term, section = keys.split(one.section)
    return {
        "person": one.person,
        "section": {"institution": institution, "term": term, "section": section},
        "role": one.role,
        "gives": one.gives,
        "shown": one.shown,
    }


def _told(one: Undo) -> dict[str, Any]:
    scope: dict[str, Any] = dict(one.scope) or {"everything": {}}
    told = one._asdict() | {"undo": str(one.undo), "scope": scope}
    names = {"from_at": "from", "until_at": "until", "ends_at": "in_force_until"}
    return {names.get(name, name): value for name, value in told.items() if value is not None}
