"""``/removals``, ``/planned-changes``: whether removals go, and those that were announced."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Self

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ConfigDict, Field, model_validator

from schemas import keys
from services.consumer.api.answers import removals as answers
from services.consumer.api.bodies import (
    LONGEST_PAGE,
    Body,
    CourseId,
    Institution,
    Later,
    Moment,
    Nothing,
    OneOf,
    Reason,
    ReasonRequest,
    SectionPlace,
    Tenant,
    TermPlace,
)
from services.consumer.api.desk import Answer, Desk, OperationsRoute, Refusal, body, json_answer, not_found, uuid_of
from services.consumer.api.places import place
from services.consumer.guard import holds
from services.consumer.guard.holds import Announced
from services.kit.openapi import operation
from services.kit.postgres import Connection

_PlannedId = Annotated[str, Path(description="Id of the announcement.", examples=["5e0f7c52-6a86-4f39-9d0e-0c7c7d1f6d11"])]
_Switch = Annotated[str, Path(description="Which.", json_schema_extra={"enum": ["pause", "resume"]})]


class CoursePlace(Body):
    """One course of an institution."""

    institution: Institution
    course: CourseId


class PlannedScope(OneOf):
    """Exactly one of these."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"course": {"institution": "PSUNV", "course": "004231"}}]})

    section: SectionPlace | None = None
    course: CoursePlace | None = None
    term: TermPlace | None = None
    tenant: Nothing | None = None

    @property
    def key(self) -> str:
        """The key text of what is meant; empty for the tenant."""
        return keys.join(*getattr(self, self.name).model_dump().values()) if self.tenant is None else ""


class AnnounceRequest(Body):
    """Removals that are expected: where, when, how many at most, and why."""

    scope: PlannedScope
    tenant: Tenant | None = None
    """The consumer's own when absent."""
    begins: Moment = Field(alias="from")
    ends: Later = Field(alias="until")
    most: int = Field(ge=1, lt=2**31, examples=[300])
    reason: Reason

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.begins >= self.ends:
            raise ValueError("from must be before until")
        now = datetime.now(UTC)
        if not (now - timedelta(days=1) < self.begins and now < self.ends < now + timedelta(days=366)):
            raise ValueError("an announced change begins not earlier than yesterday, and ends within a year from now")
        return self


def removal_router(desk: Desk, tenant: str, target: str) -> APIRouter:
    """The routes, for the consumer's own target; `tenant` is meant where a call names none."""
    router = APIRouter(route_class=OperationsRoute, tags=["guard"])
    caller = Depends(desk.caller)

    @router.get("/removals", **operation("removals.read", "Read the state of removals", answers.Removals))
    async def state(actor: str = caller) -> Response:
        """Whether removals go, how many holds are open, and what was announced."""
        return await desk.look(actor, "removals.read", partial(_state, target))

    @router.post(
        "/removals/{what}",
        **operation(
            "removals.switch", "Pause or resume removals", answers.Paused, body=ReasonRequest, missing="call: pause or resume"
        ),
    )
    async def switch(request: Request, what: _Switch, actor: str = caller) -> Response:
        """`pause`: no removal is let through until `resume`."""
        try:
            if what not in ("pause", "resume"):
                raise Refusal(HTTPStatus.NOT_FOUND, "Removals can be paused and resumed", "unknown_call")
            asked = await body(request, ReasonRequest)
        except Refusal as refusal:
            return await desk.refuse(actor, "removals.switch", refusal)
        reason = asked.reason
        return await desk.perform(actor, f"removals.{what}", partial(_switch, target, pause=what == "pause", reason=reason))

    @router.post(
        "/planned-changes",
        **operation(
            "planned_changes.announce",
            "Announce removals",
            answers.Announced,
            status=HTTPStatus.CREATED,
            body=AnnounceRequest,
        ),
    )
    async def announce(request: Request, actor: str = caller) -> Response:
        """Announce removals, so that they are not counted."""
        try:
            asked = await body(request, AnnounceRequest)
        except Refusal as refusal:
            return await desk.refuse(actor, "planned_changes.announce", refusal)
        work = partial(_announce, target, asked.tenant or tenant, asked=asked, actor=actor)
        return await desk.perform(actor, "planned_changes.announce", work)

    @router.post(
        "/planned-changes/{planned}/withdraw",
        **operation(
            "planned_changes.withdraw",
            "Withdraw an announcement",
            answers.AnnouncementWithdrawn,
            missing="planned change that is not over",
        ),
    )
    async def withdraw(planned: _PlannedId, actor: str = caller) -> Response:
        """Take an announcement back."""
        return await desk.perform(actor, "planned_changes.withdraw", partial(_withdraw, target, planned))

    return router


def _state(target: str, connection: Connection) -> Answer:
    reason = holds.paused(connection, target)
    content = {
        "target": target,
        "paused": reason is not None,
        "reason": reason,
        "open_holds": holds.standing(connection, target).holds,
        "planned_changes": [_announced(one) for one in holds.announced(connection, target, LONGEST_PAGE)],
    }
    return json_answer(content, {"target": target})


def _switch(target: str, connection: Connection, *, pause: bool, reason: str) -> Answer:
    holds.pause(connection, target, reason if pause else None)
    return json_answer({"target": target, "paused": pause}, {"target": target, "reason": reason})


def _announce(target: str, tenant: str, connection: Connection, *, asked: AnnounceRequest, actor: str) -> Answer:
    planned = uuid.uuid4()
    scope = asked.scope
    window = (asked.begins, asked.ends)
    holds.announce(connection, target, planned, tenant, scope.name, scope.key, window, asked.most, asked.reason, actor)
    detail = {"planned_change": str(planned), "tenant": tenant, "scope": scope.name, "key": scope.key, "most": asked.most}
    content = {"planned_change": str(planned)}
    return Answer(JSONResponse(content, HTTPStatus.CREATED), detail | {"reason": asked.reason})


def _withdraw(target: str, name: str, connection: Connection) -> Answer:
    planned = uuid_of(name)
    if planned is None or not holds.withdraw(connection, target, planned):
        return not_found("planned change that is not over", {"planned_change": name[:40]})
    return json_answer({"planned_change": str(planned), "withdrawn": True}, {"planned_change": str(planned)})


def _announced(one: Announced) -> dict[str, Any]:
    return {
        "planned_change": str(one.planned),
        "tenant": one.tenant,
        "scope": {one.scope: place(one.scope, one.key)},
        "from": one.from_at,
        "until": one.until_at,
        "most": one.most,
        "used": one.used,
        "reason": one.reason,
        "actor": one.actor,
    }
