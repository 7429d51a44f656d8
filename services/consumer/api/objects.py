"""``/objects``: what is made in the LMS, how far that is, and why."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from schemas import keys
from services.consumer.api.desk import Answer, Desk, OperationsRoute, Refusal, invalid, json_answer, number
from services.consumer.ledger.policies import Policies
from services.consumer.nouns import ObjectKind
from services.consumer.provision import report
from services.consumer.provision.report import KINDS, STATES, Listed
from services.kit.postgres import Connection

_LARGEST = 2**63 - 1
_PAGE = 100
_LONGEST_PAGE = 1000


def object_router(desk: Desk, policies: Policies, supported: Collection[ObjectKind]) -> APIRouter:
    """The routes, for the consumer's own target and the kinds of objects that it can make."""
    router = APIRouter(route_class=OperationsRoute, tags=["objects"])
    caller = Depends(desk.caller)

    @router.get("/objects/summary")
    async def summary(actor: str = caller) -> Response:
        """What is made, and how many are in which state for which reason."""
        return await desk.perform(actor, "objects.summary", partial(_summary, policies, supported))

    @router.get("/objects")
    async def listed(request: Request, actor: str = caller) -> Response:
        """A page at a time: all of them, or those of a kind or in a state."""
        try:
            kind, state = _one_of(request, "kind", KINDS), _one_of(request, "state", STATES)
            after = number(request, "after", default=0, least=0, most=_LARGEST - 1)
            limit = number(request, "limit", default=_PAGE, least=1, most=_LONGEST_PAGE)
        except Refusal as refusal:
            return await desk.refuse(actor, "objects.list", refusal)
        work = partial(_listed, policies.target, kind=kind, state=state, after=after, limit=limit)
        return await desk.perform(actor, "objects.list", work)

    return router


def _one_of(request: Request, name: str, known: Collection[str]) -> Any:
    """A word of the query, None without it; raises `Refusal`."""
    given = request.query_params.get(name)
    if given is not None and given not in known:
        raise invalid([{"parameter": name, "detail": f"one of {', '.join(known)}"}])
    return given


def _summary(policies: Policies, supported: Collection[ObjectKind], connection: Connection) -> Answer:
    active = policies.active(connection).values()
    made = frozenset[ObjectKind]().union(*(one.policy.provision.kinds for one in active))
    kinds = {kind: _mode(kind in made, kind in supported) for kind in KINDS}
    found = [one._asdict() for one in report.counts(connection, policies.target)]
    return json_answer({"target": policies.target, "made": kinds, "objects": found}, {"target": policies.target})


def _mode(made: bool, supported: bool) -> str:
    if not made:
        return "off"
    return "on" if supported else "not_supported"


def _listed(target: str, connection: Connection, *, kind: Any, state: Any, after: int, limit: int) -> Answer:
    found = report.page(connection, target, kind, state, after, limit)
    last = found[-1].number if len(found) == limit else None
    content = {"target": target, "objects": [_shown(one) for one in found], "next_after": last}
    return json_answer(content, {"target": target, "objects": len(found)})


def _shown(one: Listed) -> dict[str, Any]:
    told = one._asdict()
    if one.section is not None:
        told["section"] = dict(zip(("institution", "term", "section"), keys.split(one.section), strict=True))
    return {name: value for name, value in told.items() if value not in (None, [])}
