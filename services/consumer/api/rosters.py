"""``/comparisons``, ``/differences``, ``/agreement``: the ledger against the rosters of the LMS."""

from __future__ import annotations

import uuid
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import JSONResponse
from pydantic import ConfigDict, Field

from schemas import keys
from services.consumer.api.answers import rosters as answers
from services.consumer.api.bodies import Body, Nothing, OneOf, PageQuery, SectionPlace, SectionQuery, TermPlace
from services.consumer.api.desk import (
    Answer,
    Desk,
    OperationsRoute,
    Refusal,
    body,
    json_answer,
    not_found,
    query,
    uuid_of,
)
from services.consumer.ledger.policies import Policies
from services.consumer.rosters import agreement, findings, runs
from services.consumer.rosters.agreement import Agreement
from services.consumer.rosters.comparing import Kind
from services.consumer.rosters.findings import Count, Filter, Finding
from services.consumer.rosters.runs import AlreadyRunning, Run, Scope
from services.kit.http import problem
from services.kit.openapi import operation
from services.kit.postgres import Connection

_UNREAD = 100
_NEWEST = 50
_RunId = Annotated[str, Path(description="Id of the comparison.", examples=["0d5c3f3e-7a5e-4c0c-8a52-3d3d5a3d7e10"])]
_RUNNING = "Another comparison is running: wait for its end, or cancel it"
_OVER = "The comparison is over"


class DifferencesQuery(SectionQuery, PageQuery):
    """Which differences."""

    kind: Kind | None = None
    """All when absent."""
    goes_within_days: int | None = Field(default=None, ge=0, le=366, examples=[7])
    """Only members whom nobody gave and whose enrollment the policy has go by then."""


class CompareScope(OneOf):
    """Exactly one of these."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"term": {"institution": "PSUNV", "term": "1259"}}]})

    section: SectionPlace | None = None
    term: TermPlace | None = None
    everything: Nothing | None = None

    @property
    def scope(self) -> Scope:
        """As the ledger has it."""
        return Scope(**getattr(self, self.name).model_dump())


class CompareRequest(Body):
    """What to compare, and whether differences are repaired."""

    scope: CompareScope
    repair: bool = False
    """As the policy's `drift` says, in live terms; otherwise differences are only told."""


def roster_router(desk: Desk, policies: Policies) -> APIRouter:
    """The routes, for the consumer's own target."""
    router = APIRouter(route_class=OperationsRoute, tags=["rosters"])
    caller = Depends(desk.caller)
    target = policies.target

    @router.post(
        "/comparisons",
        **operation(
            "comparisons.start",
            "Compare rosters",
            answers.ComparisonStarted,
            status=HTTPStatus.ACCEPTED,
            body=CompareRequest,
            conflicts={"already_running": _RUNNING},
        ),
    )
    async def start(request: Request, actor: str = caller) -> Response:
        """Compare the rosters of a section, a term or everything with the ledger."""
        try:
            asked = await body(request, CompareRequest)
        except Refusal as refusal:
            return await desk.refuse(actor, "comparisons.start", refusal)
        return await desk.perform(actor, "comparisons.start", partial(_start, policies, asked=asked, actor=actor))

    @router.get("/comparisons", **operation("comparisons.list", "List comparisons", answers.ComparisonList))
    async def listed(actor: str = caller) -> Response:
        """The newest fifty."""
        return await desk.look(actor, "comparisons.list", partial(_listed, target))

    @router.get(
        "/comparisons/{run}", **operation("comparisons.read", "Read a comparison", answers.ComparisonDetail, missing="comparison")
    )
    async def one(run: _RunId, actor: str = caller) -> Response:
        """How far it is, and what it found."""
        return await desk.look(actor, "comparisons.read", partial(_one, target, run))

    @router.post(
        "/comparisons/{run}/cancel",
        **operation(
            "comparisons.cancel",
            "Cancel a comparison",
            answers.ComparisonCancelled,
            missing="comparison",
            conflicts={"over": _OVER},
        ),
    )
    async def cancel(run: _RunId, actor: str = caller) -> Response:
        """End it before its time; what was found stays."""
        return await desk.perform(actor, "comparisons.cancel", partial(_cancel, target, run))

    @router.get(
        "/differences", **operation("differences.list", "List differences", answers.DifferencePage, query=DifferencesQuery)
    )
    async def differences(request: Request, actor: str = caller) -> Response:
        """What stands, a page at a time: all of it, or that of an institution, a term, a section, a kind; or what goes soon."""
        try:
            asked = query(request, DifferencesQuery)
        except Refusal as refusal:
            return await desk.refuse(actor, "differences.list", refusal)
        return await desk.perform(actor, "differences.list", partial(_differences, policies, asked=asked))

    @router.get("/agreement", **operation("agreement.read", "Read the agreement", answers.AgreementReport, query=SectionQuery))
    async def agreed(request: Request, actor: str = caller) -> Response:
        """Term by term: how many seats are as they should be, and what the others are."""
        try:
            scope = _scope(query(request, SectionQuery))
        except Refusal as refusal:
            return await desk.refuse(actor, "agreement.read", refusal)
        return await desk.look(actor, "agreement.read", partial(_agreement, target, scope=scope))

    return router


def _scope(asked: SectionQuery) -> Scope:
    return Scope(asked.institution, asked.term, asked.section)


def _start(policies: Policies, connection: Connection, *, asked: CompareRequest, actor: str) -> Answer:
    run, scope = uuid.uuid4(), asked.scope.scope
    try:
        sections = runs.start(connection, policies.target, run, scope, policies, actor, repair=asked.repair)
    except AlreadyRunning as other:
        response = problem(HTTPStatus.CONFLICT, _RUNNING, reason="already_running", comparison=str(other.run))
        return Answer(response, {"reason": "already_running"}, "refused")
    content = {"comparison": str(run), "sections": sections}
    detail = content | {"scope": scope.as_json(), "repair": asked.repair}
    return Answer(JSONResponse(content, HTTPStatus.ACCEPTED), detail)


def _listed(target: str, connection: Connection) -> Answer:
    found = [_run(one) for one in runs.find(connection, target, _NEWEST)]
    return json_answer({"target": target, "comparisons": found}, {"target": target})


def _one(target: str, name: str, connection: Connection) -> Answer:
    run = uuid_of(name)
    found = runs.read(connection, target, run) if run else None
    if found is None:
        return not_found("comparison", {"comparison": name[:40]})
    unread = [{"section": section, "code": code} for section, code in runs.failed(connection, target, found.run, _UNREAD)]
    return json_answer(_run(found) | {"failed_sections": unread}, {"comparison": str(found.run)})


def _cancel(target: str, name: str, connection: Connection) -> Answer:
    run = uuid_of(name)
    if run is None or runs.read(connection, target, run) is None:
        return not_found("comparison", {"comparison": name[:40]})
    detail = {"comparison": str(run)}
    if not runs.cancel(connection, target, run):
        return Answer(problem(HTTPStatus.CONFLICT, _OVER, reason="over"), detail | {"reason": "over"}, "refused")
    return json_answer(detail | {"state": "cancelled"}, detail)


def _run(one: Run) -> dict[str, Any]:
    told = one._asdict()
    del told["run"]
    scope: dict[str, Any] = dict(one.scope) or {"everything": {}}
    return {"comparison": str(one.run)} | told | {"scope": scope}


def _differences(policies: Policies, connection: Connection, *, asked: DifferencesQuery) -> Answer:
    target, wanted = policies.target, Filter(_scope(asked).prefix, asked.kind, asked.goes_within_days)
    found = findings.page(connection, policies, wanted, asked.after, asked.limit)
    last = found[-1].number if len(found) == asked.limit else None
    content = {"target": target, "differences": [_finding(one) for one in found], "next_after": last}
    return json_answer(content, {"target": target, "differences": len(found)})


def _finding(one: Finding) -> dict[str, Any]:
    institution, term, section = keys.split(one.section)
    told = one._asdict() | {"section": {"institution": institution, "term": term, "section": section}}
    return {name: value for name, value in told.items() if value is not None}


def _agreement(target: str, connection: Connection, *, scope: Scope) -> Answer:
    terms = {one.term: _term(one) for one in agreement.by_term(connection, target, scope.prefix)}
    for count in findings.counts(connection, target, scope.prefix):
        if count.term in terms:
            terms[count.term]["differences"].append(_count(count))
    return json_answer({"target": target, "terms": list(terms.values())}, {"target": target})


def _term(one: Agreement) -> dict[str, Any]:
    return one._asdict() | {"term": dict(zip(("institution", "term"), keys.split(one.term), strict=True)), "differences": []}


def _count(one: Count) -> dict[str, Any]:
    return {"kind": one.kind, "changed_by_somebody": one.confirmed, "count": one.findings, "oldest_at": one.oldest_at}
