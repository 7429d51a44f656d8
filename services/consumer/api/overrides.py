"""``/overrides``: a registrar's exceptions, which outrank the student system until their end."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from typing import Any, get_args

import orjson
from fastapi import APIRouter, Depends, Request, Response
from pydantic import AwareDatetime, Field

from schemas import keys
from schemas.events import EnrollmentRole
from services.consumer.api.bodies import Body, Id, Reason, ReasonRequest, SectionPlace
from services.consumer.api.desk import (
    Answer,
    Desk,
    OperationsRoute,
    Refusal,
    body,
    described,
    invalid,
    json_answer,
    not_found,
    number,
)
from services.consumer.ledger import overruling
from services.consumer.ledger.announcing import announce
from services.consumer.ledger.overruling import Asked, Filter, InForce, Over, OverrideState, Refused, Told
from services.consumer.ledger.policies import Policies
from services.consumer.nouns import PersonRef, SeatState
from services.kit.http import problem
from services.kit.postgres import Connection

_LARGEST = 2**63 - 1
_PAGE = 100
_LONGEST_PAGE = 1000


class OverrideRequest(Body):
    """What one seat is to be, until when, and why. People are named here, in the body, because URLs are logged along the way."""

    person: Id
    section: SectionPlace
    role: EnrollmentRole
    """As the SIS calls it; the policy says which role of the LMS that is."""
    gives: SeatState
    until: AwareDatetime
    reason: Reason


class SearchRequest(Body):
    """Whose overrides, or those of which section; and where the page begins."""

    person: Id | None = None
    section: SectionPlace | None = None
    state: OverrideState | None = None
    after: int = Field(default=_LARGEST, ge=1, le=_LARGEST)
    limit: int = Field(default=_PAGE, ge=1, le=_LONGEST_PAGE)


def override_router(desk: Desk, tenant: str, policies: Policies) -> APIRouter:
    """The routes, for the consumer's own tenant."""
    router = APIRouter(route_class=OperationsRoute, tags=["overrides"])
    caller = Depends(desk.caller)

    @router.post("/overrides", status_code=HTTPStatus.CREATED, openapi_extra=described(OverrideRequest))
    async def make(request: Request, actor: str = caller) -> Response:
        """Decide one seat otherwise than the SIS, until an end."""
        try:
            asked = await body(request, OverrideRequest)
        except Refusal as refusal:
            return await desk.refuse(actor, "overrides.make", refusal)
        return await desk.perform(actor, "overrides.make", partial(_make, policies, tenant, asked=asked, actor=actor))

    @router.get("/overrides")
    async def listed(request: Request, actor: str = caller) -> Response:
        """Overrides, the newest first; `?state=` in_force, ended or withdrawn."""
        try:
            asked = SearchRequest(
                state=_state(request),
                after=number(request, "after", default=_LARGEST, least=1, most=_LARGEST),
                limit=number(request, "limit", default=_PAGE, least=1, most=_LONGEST_PAGE),
            )
        except Refusal as refusal:
            return await desk.refuse(actor, "overrides.list", refusal)
        return await desk.perform(actor, "overrides.list", partial(_found, tenant, asked=asked))

    @router.post("/overrides/search", openapi_extra=described(SearchRequest))
    async def search(request: Request, actor: str = caller) -> Response:
        """The same for one person, one section, or both."""
        try:
            asked = await body(request, SearchRequest)
        except Refusal as refusal:
            return await desk.refuse(actor, "overrides.search", refusal)
        return await desk.perform(actor, "overrides.search", partial(_found, tenant, asked=asked))

    @router.get("/overrides/{override}")
    async def one(override: str, actor: str = caller) -> Response:
        """One override."""
        return await desk.perform(actor, "overrides.read", partial(_read, tenant, override))

    @router.post("/overrides/{override}/withdraw", openapi_extra=described(ReasonRequest))
    async def withdraw(request: Request, override: str, actor: str = caller) -> Response:
        """End an override now: the SIS decides the seat again."""
        try:
            asked = await body(request, ReasonRequest)
        except Refusal as refusal:
            return await desk.refuse(actor, "overrides.withdraw", refusal)
        work = partial(_withdraw, policies, tenant, override, actor=actor, reason=asked.reason)
        return await desk.perform(actor, "overrides.withdraw", work)

    return router


def _state(request: Request) -> OverrideState | None:
    known: tuple[OverrideState, ...] = get_args(OverrideState)
    asked = request.query_params.get("state")
    found = next((state for state in known if state == asked), None)
    if asked is not None and found is None:
        raise invalid([{"parameter": "state", "detail": f"one of {', '.join(known)}"}])
    return found


def _make(policies: Policies, tenant: str, connection: Connection, *, asked: OverrideRequest, actor: str) -> Answer:
    # The audit says whose seat was meant, but not the registrar's words: those are with the override.
    detail: dict[str, object] = asked.model_dump(mode="json", exclude={"reason"})
    wanted = Asked(PersonRef(tenant, asked.person), asked.section.key, asked.role, asked.gives, asked.until, asked.reason, actor)
    try:
        made, work = overruling.make(connection, policies, wanted)
    except Refused as refused:
        return Answer(_refusal(refused), detail | {"reason": refused.reason}, "refused")
    announce(connection, work)
    stored = overruling.read(connection, tenant, made)
    assert stored is not None  # noqa: S101  (inserted before)
    headers = {"Location": f"/overrides/{made}"}
    created = Response(orjson.dumps(_told(stored)), HTTPStatus.CREATED, headers, media_type="application/json")
    return Answer(created, detail | {"override": made})


def _refusal(refused: Refused) -> Response:
    if isinstance(refused, InForce):
        title = f"Override {refused.number} decides this seat already: withdraw it first"
        return problem(HTTPStatus.CONFLICT, title, reason=refused.reason, override=refused.number)
    match refused.reason:
        case "no_policy":
            title = "The tenant has no active policy, so nobody gets a seat: apply one first"
            return problem(HTTPStatus.CONFLICT, title, reason=refused.reason)
        case "seat_of_another":
            title = "In the LMS this person is the same user as another person of the student system: override that one's seat"
            return problem(HTTPStatus.CONFLICT, title, reason=refused.reason)
        case "no_seat":
            return invalid([{"pointer": "/role", "detail": "the policy gives this role no seat; name another role"}]).response
        case _:
            wrong = {"pointer": "/until", "detail": f"in the future, and at most {overruling.LONGEST} from now"}
            return invalid([wrong]).response


def _withdraw(policies: Policies, tenant: str, name: str, connection: Connection, *, actor: str, reason: str) -> Answer:
    override = _number(name)
    try:
        work = overruling.withdraw(connection, policies, tenant, override, actor, reason)
    except Over as over:
        title = f"The override is not in force any more: it {_HOW[over.state]}"
        detail = {"override": override, "reason": over.state}
        return Answer(problem(HTTPStatus.CONFLICT, title, reason=over.state), detail, "refused")
    if work is None:
        return not_found("override", {"override": name[:40]})
    announce(connection, work)
    return _read(tenant, name, connection)


_HOW: dict[OverrideState, str] = {"ended": "has ended", "withdrawn": "was withdrawn", "in_force": "is ending now"}


def _read(tenant: str, name: str, connection: Connection) -> Answer:
    found = overruling.read(connection, tenant, _number(name))
    if found is None:
        return not_found("override", {"override": name[:40]})
    return json_answer(_told(found), {"override": found.number})


def _found(tenant: str, connection: Connection, *, asked: SearchRequest) -> Answer:
    wanted = Filter(asked.person, asked.section.key if asked.section else None, asked.state)
    found = overruling.find(connection, tenant, wanted, asked.after, asked.limit)
    last = found[-1].number if len(found) == asked.limit else None
    detail: dict[str, object] = asked.model_dump(mode="json", exclude_none=True, exclude={"after", "limit"})
    return json_answer({"overrides": [_told(one) for one in found], "next_after": last}, detail | {"overrides": len(found)})


def _number(name: str) -> int:
    """Of an override; 0, which none has, for what is no number."""
    return int(name) if name.isdecimal() and len(name) < 19 else 0


def _told(one: Told) -> dict[str, Any]:
    institution, term, section = keys.split(one.section)
    told = {
        "override": one.number,
        "person": one.person,
        "section": {"institution": institution, "term": term, "section": section},
        "role": one.role,
        "gives": one.gives,
        "until": one.ends_at,
        "reason": one.reason,
        "actor": one.actor,
        "made_at": one.made_at,
        "state": one.state,
    }
    if one.state == "withdrawn":
        told["withdrawn"] = {"at": one.withdrawn_at, "actor": one.withdrawn_by, "reason": one.withdrawn_reason}
    return told
