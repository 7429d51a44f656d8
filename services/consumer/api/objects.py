"""``/objects``: what is made in the LMS, how far that is, and why."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from schemas import keys
from services.consumer.api.answers import objects as answers
from services.consumer.api.bodies import PageQuery
from services.consumer.api.desk import Answer, Desk, OperationsRoute, Refusal, json_answer, query
from services.consumer.ledger.policies import Policies
from services.consumer.nouns import ObjectKind
from services.consumer.provision import report
from services.consumer.provision.report import KINDS, Listed
from services.consumer.provision.steps import State
from services.kit.openapi import operation
from services.kit.postgres import Connection


class ObjectsQuery(PageQuery):
    """Which objects."""

    kind: ObjectKind | None = None
    """Of all kinds when absent."""
    state: State | None = None
    """In all states when absent."""


def object_router(desk: Desk, policies: Policies, supported: Collection[ObjectKind]) -> APIRouter:
    """The routes, for the consumer's own target and the kinds of objects that it can make."""
    router = APIRouter(route_class=OperationsRoute, tags=["objects"])
    caller = Depends(desk.caller)

    @router.get("/objects/summary", **operation("objects.summary", "Count objects by state", answers.ObjectSummary))
    async def summary(actor: str = caller) -> Response:
        """What is made, and how many are in which state for which reason."""
        return await desk.perform(actor, "objects.summary", partial(_summary, policies, supported))

    @router.get("/objects", **operation("objects.list", "List objects", answers.ObjectPage, query=ObjectsQuery))
    async def listed(request: Request, actor: str = caller) -> Response:
        """A page at a time: all of them, or those of a kind or in a state."""
        try:
            asked = query(request, ObjectsQuery)
        except Refusal as refusal:
            return await desk.refuse(actor, "objects.list", refusal)
        return await desk.perform(actor, "objects.list", partial(_listed, policies.target, asked=asked))

    return router


def _summary(policies: Policies, supported: Collection[ObjectKind], connection: Connection) -> Answer:
    active = policies.active(connection).values()
    made = frozenset[ObjectKind]().union(*(one.policy.provision.kinds for one in active))
    kinds = {kind: _mode(kind in made, kind in supported) for kind in KINDS}
    found = [one._asdict() for one in report.counts(connection, policies.target)]
    return json_answer({"target": policies.target, "made": kinds, "objects": found}, {"target": policies.target})


def _mode(made: bool, supported: bool) -> answers.Mode:
    if not made:
        return "off"
    return "on" if supported else "not_supported"


def _listed(target: str, connection: Connection, *, asked: ObjectsQuery) -> Answer:
    found = report.page(connection, target, asked.kind, asked.state, asked.after, asked.limit)
    last = found[-1].number if len(found) == asked.limit else None
    content = {"target": target, "objects": [_shown(one) for one in found], "next_after": last}
    return json_answer(content, {"target": target, "objects": len(found)})


def _shown(one: Listed) -> dict[str, Any]:
    told = one._asdict()
    if one.section is not None:
        told["section"] = dict(zip(("institution", "term", "section"), keys.split(one.section), strict=True))
    return {name: value for name, value in told.items() if value not in (None, [])}
