"""``/overrides``: a registrar's exceptions, which outrank the student system until their end."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Path, Request, Response
from pydantic import Field

from schemas import keys
from schemas.events import EnrollmentRole
from services.consumer.api.answers import overrides as answers
from services.consumer.api.bodies import (
    LARGEST,
    LONGEST_PAGE,
    PAGE,
    Body,
    Later,
    NewestFirstQuery,
    PersonId,
    Reason,
    ReasonRequest,
    SectionPlace,
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
    query,
)
from services.consumer.ledger import overruling
from services.consumer.ledger.announcing import announce
from services.consumer.ledger.overruling import Asked, Filter, InForce, Over, OverrideState, Refused, Told
from services.consumer.ledger.policies import Policies
from services.consumer.nouns import PersonRef, SeatState
from services.kit.http import problem
from services.kit.openapi import operation
from services.kit.postgres import Connection

_Number = Annotated[str, Path(description="Number of the override.", examples=["88"])]
_REFUSALS = {
    "no_policy": "The tenant has no active policy, so nobody gets a seat: apply one first",
    "seat_of_another": "In the LMS this person is the same user as another of the student system: override that one's seat",
}
_HOW: dict[OverrideState, str] = {"ended": "has ended", "withdrawn": "was withdrawn", "in_force": "is ending now"}
_OVER: Mapping[str, str] = {state: f"The override is not in force any more: it {how}" for state, how in _HOW.items()}


class OverridesQuery(NewestFirstQuery):
    """Which overrides."""

    state: OverrideState | None = None
    """All when absent."""


class OverrideRequest(Body):
    """What one seat is to be, until when, and why. People are named here, in the body, because URLs are logged along the way."""

    person: PersonId
    section: SectionPlace
    role: EnrollmentRole
    """As the SIS calls it; the policy says which role of the LMS that is."""
    gives: SeatState
    until: Later
    reason: Reason


class SearchRequest(Body):
    """Whose overrides, or those of which section; and where the page begins."""

    person: PersonId | None = None
    section: SectionPlace | None = None
    state: OverrideState | None = None
    after: int = Field(default=LARGEST, ge=1, le=LARGEST, examples=[100])
    """Where the page begins: `next_after` of the page before."""
    limit: int = Field(default=PAGE, ge=1, le=LONGEST_PAGE)


def override_router(desk: Desk, tenant: str, policies: Policies) -> APIRouter:
    """The routes, for the consumer's own tenant."""
    router = APIRouter(route_class=OperationsRoute, tags=["overrides"])
    caller = Depends(desk.caller)

    @router.post(
        "/overrides",
        **operation(
            "overrides.make",
            "Make an override",
            answers.Override,
            status=HTTPStatus.CREATED,
            body=OverrideRequest,
            conflicts={"in_force": "Override 88 decides this seat already: withdraw it first", **_REFUSALS},
            located=True,
        ),
    )
    async def make(request: Request, actor: str = caller) -> Response:
        """Decide one seat otherwise than the SIS, until an end."""
        try:
            asked = await body(request, OverrideRequest)
        except Refusal as refusal:
            return await desk.refuse(actor, "overrides.make", refusal)
        return await desk.perform(actor, "overrides.make", partial(_make, policies, tenant, asked=asked, actor=actor))

    @router.get("/overrides", **operation("overrides.list", "List overrides", answers.OverridePage, query=OverridesQuery))
    async def listed(request: Request, actor: str = caller) -> Response:
        """Overrides, the newest first; `?state=` in_force, ended or withdrawn."""
        try:
            asked = SearchRequest(**query(request, OverridesQuery).model_dump())
        except Refusal as refusal:
            return await desk.refuse(actor, "overrides.list", refusal)
        return await desk.perform(actor, "overrides.list", partial(_found, tenant, asked=asked))

    @router.post(
        "/overrides/search",
        **operation("overrides.search", "Find the overrides of a person or a section", answers.OverridePage, body=SearchRequest),
    )
    async def search(request: Request, actor: str = caller) -> Response:
        """The same for one person, one section, or both."""
        try:
            asked = await body(request, SearchRequest)
        except Refusal as refusal:
            return await desk.refuse(actor, "overrides.search", refusal)
        return await desk.perform(actor, "overrides.search", partial(_found, tenant, asked=asked))

    @router.get("/overrides/{override}", **operation("overrides.read", "Read an override", answers.Override, missing="override"))
    async def one(override: _Number, actor: str = caller) -> Response:
        """One override."""
        return await desk.perform(actor, "overrides.read", partial(_read, tenant, override))

    @router.post(
        "/overrides/{override}/withdraw",
        **operation(
            "overrides.withdraw",
            "Withdraw an override",
            answers.Override,
            body=ReasonRequest,
            missing="override",
            conflicts=_OVER,
        ),
    )
    async def withdraw(request: Request, override: _Number, actor: str = caller) -> Response:
        """End an override now: the SIS decides the seat again."""
        try:
            asked = await body(request, ReasonRequest)
        except Refusal as refusal:
            return await desk.refuse(actor, "overrides.withdraw", refusal)
        work = partial(_withdraw, policies, tenant, override, actor=actor, reason=asked.reason)
        return await desk.perform(actor, "overrides.withdraw", work)

    return router


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
    if refused.reason in _REFUSALS:
        return problem(HTTPStatus.CONFLICT, _REFUSALS[refused.reason], reason=refused.reason)
    if refused.reason == "no_seat":
        return invalid([{"pointer": "/role", "detail": "the policy gives this role no seat; name another role"}]).response
    return invalid([{"pointer": "/until", "detail": f"in the future, and at most {overruling.LONGEST} from now"}]).response


def _withdraw(policies: Policies, tenant: str, name: str, connection: Connection, *, actor: str, reason: str) -> Answer:
    override = _number(name)
    try:
        work = overruling.withdraw(connection, policies, tenant, override, actor, reason)
    except Over as over:
        detail = {"override": override, "reason": over.state}
        return Answer(problem(HTTPStatus.CONFLICT, _OVER[over.state], reason=over.state), detail, "refused")
    if work is None:
        return not_found("override", {"override": name[:40]})
    announce(connection, work)
    return _read(tenant, name, connection)


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
