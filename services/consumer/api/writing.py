"""``/writing``: which terms are live, and which in shadow."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus

from fastapi import APIRouter, Depends, Request, Response

from schemas import keys
from services.consumer.api.answers import rosters as answers
from services.consumer.api.bodies import Body, Reason, TermPlace
from services.consumer.api.desk import Answer, Desk, OperationsRoute, Refusal, body, json_answer
from services.consumer.ledger import writing
from services.consumer.ledger.writing import ALL_TERMS, Compared, NotCompared, Switch
from services.consumer.rosters.runs import Scope
from services.kit.http import problem
from services.kit.openapi import operation
from services.kit.postgres import Connection

_NOT_COMPARED = "Compare the rosters first (POST /comparisons): what would be written now is not what anybody has seen"


class SwitchRequest(Body):
    """Where to write from now on, or no longer."""

    term: TermPlace | None = None
    """Every term that has no word of its own when absent."""
    live: bool
    reason: Reason
    uncompared: bool = False
    """Go live although the rosters were not compared within the last day."""


def writing_router(desk: Desk, target: str) -> APIRouter:
    """The routes, for the consumer's own target."""
    router = APIRouter(route_class=OperationsRoute, tags=["writing"])
    caller = Depends(desk.caller)

    @router.get("/writing", **operation("writing.read", "Read which terms are live", answers.Writing))
    async def listed(actor: str = caller) -> Response:
        """What was said of each term, and of all others."""
        return await desk.look(actor, "writing.read", partial(_listed, target))

    @router.post(
        "/writing",
        **operation(
            "writing.switch",
            "Switch a term live or into shadow",
            answers.Switched,
            body=SwitchRequest,
            conflicts={"not_compared": _NOT_COMPARED},
        ),
    )
    async def switch(request: Request, actor: str = caller) -> Response:
        """Switch a term, or all that have no word of their own, live or into shadow."""
        try:
            asked = await body(request, SwitchRequest)
        except Refusal as refusal:
            return await desk.refuse(actor, "writing.switch", refusal)
        action = "writing.live" if asked.live else "writing.shadow"
        return await desk.perform(actor, action, partial(_switch, target, asked=asked, actor=actor))

    return router


def _listed(target: str, connection: Connection) -> Answer:
    said = {one.term: _told(one) for one in writing.listed(connection, target)}
    others = said.pop(ALL_TERMS, {"live": True})
    return json_answer({"target": target, "terms": list(said.values()), "all_others": others}, {"target": target})


def _told(one: Switch) -> dict[str, object]:
    told = {"live": one.live, "reason": one.reason, "actor": one.actor, "since": one.since}
    return (
        told if one.term == ALL_TERMS else {"term": dict(zip(("institution", "term"), keys.split(one.term), strict=True))} | told
    )


def _switch(target: str, connection: Connection, *, asked: SwitchRequest, actor: str) -> Answer:
    term = keys.join(asked.term.institution, asked.term.term) if asked.term else ALL_TERMS
    detail = {"target": target, "term": term, "live": asked.live, "reason": asked.reason}
    if not asked.live:
        writing.shadow(connection, target, term, asked.reason, actor)
        return json_answer({"live": False}, detail)
    scope = Scope(asked.term.institution, asked.term.term) if asked.term else Scope()
    compared = None if asked.uncompared else Compared(scope.as_json(), scope.prefix)
    try:
        released = writing.go_live(connection, target, term, asked.reason, actor, compared=compared)
    except NotCompared:
        return Answer(
            problem(HTTPStatus.CONFLICT, _NOT_COMPARED, reason="not_compared"), detail | {"refused": "not_compared"}, "refused"
        )
    return json_answer({"live": True, "released": released._asdict()}, detail | released._asdict())
