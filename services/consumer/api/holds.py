"""``/holds``: removals, and access by re-used numbers, that need a person."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from schemas import keys
from services.consumer.api.answers import holds as answers
from services.consumer.api.bodies import LARGEST, Body, NewestFirstQuery, PageQuery, Reason, ReasonRequest
from services.consumer.api.desk import Answer, Desk, OperationsRoute, Refusal, body, json_answer, not_found, query
from services.consumer.api.places import place
from services.consumer.guard import holds
from services.consumer.guard.holds import Awaited, Hold, Member, Over, SamePerson, UnknownSnapshot
from services.consumer.ledger.policies import Policies
from services.kit.http import problem
from services.kit.openapi import operation
from services.kit.postgres import Connection

_HoldNumber = Annotated[str, Path(description="Number of the hold.", examples=["17"])]
_OVER: Mapping[str, str] = {
    state: f"The hold is not open any more: it was {state}" for state in ("approved", "discarded", "emptied")
}
_UNKNOWN_SNAPSHOT = "Nothing with this number is in the hold: read it again"
_SAME_PERSON = "You have approved it already: so many removals need a second person"


class HoldsQuery(NewestFirstQuery):
    """Which holds."""

    state: Literal["open", "all"] = "open"
    """The open ones, or all."""


class ApproveRequest(Body):
    """What was seen, and why it may go."""

    snapshot: int = Field(ge=1, le=LARGEST, examples=[4711])
    """Of the hold when it was looked at: what came later stays held."""
    reason: Reason


def hold_router(desk: Desk, policies: Policies) -> APIRouter:
    """The routes, for the consumer's own target."""
    router = APIRouter(route_class=OperationsRoute, tags=["guard"])
    caller = Depends(desk.caller)
    target = policies.target

    @router.get("/holds", **operation("holds.list", "List holds", answers.HoldPage, query=HoldsQuery))
    async def listed(request: Request, actor: str = caller) -> Response:
        """Holds, the newest first: the open ones, or all of them with `?state=all`."""
        try:
            asked = query(request, HoldsQuery)
        except Refusal as refusal:
            return await desk.refuse(actor, "holds.list", refusal)
        return await desk.look(actor, "holds.list", partial(_listed, target, asked=asked))

    @router.get("/holds/{hold}", **operation("holds.read", "Read a hold", answers.HoldDetail, query=PageQuery, missing="hold"))
    async def one(request: Request, hold: _HoldNumber, actor: str = caller) -> Response:
        """One hold, and a page of what is in it."""
        try:
            page = query(request, PageQuery)
        except Refusal as refusal:
            return await desk.refuse(actor, "holds.read", refusal)
        return await desk.perform(actor, "holds.read", partial(_read, target, hold, page=page))

    approving = operation(
        "holds.approve",
        "Approve a hold",
        answers.Approved,
        body=ApproveRequest,
        missing="hold",
        conflicts={**_OVER, "unknown_snapshot": _UNKNOWN_SNAPSHOT, "same_person": _SAME_PERSON},
    )
    approving["responses"][202] = {"model": answers.Awaited, "description": "It takes a second person."}

    @router.post("/holds/{hold}/approve", **approving)
    async def approve(request: Request, hold: _HoldNumber, actor: str = caller) -> Response:
        """Let the removals of a snapshot go."""
        try:
            asked = await body(request, ApproveRequest)
        except Refusal as refusal:
            return await desk.refuse(actor, "holds.approve", refusal)
        return await desk.perform(actor, "holds.approve", partial(_approve, policies, hold, asked=asked, actor=actor))

    @router.post(
        "/holds/{hold}/discard",
        **operation("holds.discard", "Discard a hold", answers.Discarded, body=ReasonRequest, missing="hold", conflicts=_OVER),
    )
    async def discard(request: Request, hold: _HoldNumber, actor: str = caller) -> Response:
        """Say no: the removals stay held until the student system takes them back, or somebody approves them after all."""
        try:
            asked = await body(request, ReasonRequest)
        except Refusal as refusal:
            return await desk.refuse(actor, "holds.discard", refusal)
        return await desk.perform(actor, "holds.discard", partial(_discard, target, hold, reason=asked.reason))

    return router


def _listed(target: str, connection: Connection, *, asked: HoldsQuery) -> Answer:
    found = holds.find(connection, target, undecided=asked.state == "open", after=asked.after, limit=asked.limit)
    last = found[-1].hold if len(found) == asked.limit else None
    return json_answer({"target": target, "holds": [_told(one) for one in found], "next_after": last}, {"target": target})


def _read(target: str, name: str, connection: Connection, *, page: PageQuery) -> Answer:
    hold = holds.read(connection, target, _number(name))
    if hold is None:
        return not_found("hold", {"hold": name[:40]})
    found = holds.members(connection, target, hold.hold, page.after, page.limit)
    last = found[-1].number if len(found) == page.limit else None
    content = _told(hold) | {"members": [_member(one) for one in found], "next_after": last}
    return json_answer(content, {"hold": hold.hold, "members": len(found)})


def _approve(policies: Policies, name: str, connection: Connection, *, asked: ApproveRequest, actor: str) -> Answer:
    number = _number(name)
    try:
        done = holds.approve(connection, policies, number, asked.snapshot, actor)
    except Over as over:
        return _over(number, over)
    except UnknownSnapshot:
        return _conflict(number, _UNKNOWN_SNAPSHOT, "unknown_snapshot")
    except SamePerson:
        return _conflict(number, _SAME_PERSON, "same_person")
    if done is None:
        return not_found("hold", {"hold": name[:40]})
    detail = {"hold": number, "snapshot": asked.snapshot, "reason": asked.reason}
    if isinstance(done, Awaited):
        content = {"hold": number, "awaits": "a second person", "until": done.until.isoformat()}
        return Answer(JSONResponse(content, HTTPStatus.ACCEPTED), detail | {"awaits": "a second person"})
    return json_answer({"hold": number, **done._asdict()}, detail | done._asdict())


def _discard(target: str, name: str, connection: Connection, *, reason: str) -> Answer:
    number = _number(name)
    try:
        hold = holds.discard(connection, target, number)
    except Over as over:
        return _over(number, over)
    if hold is None:
        return not_found("hold", {"hold": name[:40]})
    return json_answer({"hold": number, "state": "discarded", "held": hold.held}, {"hold": number, "reason": reason})


def _over(hold: int, over: Over) -> Answer:
    return _conflict(hold, _OVER[over.state], over.state)


def _conflict(hold: int, title: str, reason: str) -> Answer:
    return Answer(problem(HTTPStatus.CONFLICT, title, reason=reason), {"hold": hold, "reason": reason}, "refused")


def _number(name: str) -> int:
    """Of a hold; 0, which none has, for what is no number."""
    return int(name) if name.isdecimal() and len(name) < 19 else 0


def _told(hold: Hold) -> dict[str, Any]:
    return {
        "hold": hold.hold,
        "tenant": hold.tenant,
        "scope": hold.scope,
        "place": place(hold.scope, hold.key),
        "cause": _sentence(hold),
        "removals": hold.removals,
        "active": hold.active,
        "gained": hold.gained,
        "limit": hold.allowed,
        "window": hold.window,
        "state": hold.state,
        "opened_at": hold.opened_at,
        "closed_at": hold.closed_at,
        "held": hold.held,
        "approved": hold.approved,
        "courses": {"was": hold.was_course, "is": hold.is_course} if hold.was_course else None,
        "snapshot": hold.snapshot,
        "first_approval": _first(hold),
    }


def _first(hold: Hold) -> dict[str, Any] | None:
    """Of two that it takes; null when nobody waits for a second person."""
    if hold.first_actor is None:
        return None
    return {"actor": hold.first_actor, "snapshot": hold.first_snapshot, "until": hold.first_lapses_at}


_WINDOWS: Mapping[str | None, str] = {"quarter_hour": "15 minutes", "day": "24 hours"}


def _sentence(hold: Hold) -> str:
    """The cause, for a person."""
    within = _WINDOWS.get(hold.window)
    match hold.scope:
        case "reused_section":
            return (
                f"The section's number stood for a class of {hold.was_course} and now stands for one of {hold.is_course}: "
                f"so far {hold.held} would get into what may still be the old class's section, where {hold.active} have access."
            )
        case "cancelled_section":
            return f"The class was cancelled, and has {hold.removals} members: {hold.allowed} go without asking."
        case "cancelled_term":
            return (
                f"Classes of the term with {hold.removals} members were cancelled within {within}: "
                f"{hold.allowed} go without asking."
            )
        case "source":
            return (
                f"{hold.removals} removals within {within} that one source sent, of {hold.active} active seats in all; "
                f"the limit is {hold.allowed}."
            )
    gained = f" Meanwhile {hold.gained} were given: has an id been renamed?" if hold.gained * 2 > hold.removals else ""
    return (
        f"{hold.removals} removals within {within} from a {hold.scope} with {hold.active} active seats; "
        f"the limit is {hold.allowed}.{gained}"
    )


def _member(one: Member) -> dict[str, Any]:
    institution, term, section = keys.split(one.section)
    return {
        "number": one.number,
        "tenant": one.tenant,
        "person": one.person,
        "section": {"institution": institution, "term": term, "section": section},
        "role": one.role,
        "desired": one.desired,
        "held_since": one.held_since,
    }
