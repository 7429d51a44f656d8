"""``/trace``: why a person has, or has not, a seat in a section."""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Depends, Request, Response

from services.consumer.api.answers.traces import Trace
from services.consumer.api.bodies import Body, PersonId, SectionPlace, Tenant
from services.consumer.api.desk import Answer, Desk, OperationsRoute, Refusal, body, json_answer
from services.consumer.trace import Subject, trace
from services.kit.openapi import operation
from services.kit.postgres import Connection


class TraceRequest(Body):
    """A person and a section, by the ids of the SIS. They travel in the body because URLs are logged along the way."""

    tenant: Tenant | None = None
    """The consumer's own when absent."""
    person: PersonId
    section: SectionPlace


def trace_router(desk: Desk, tenant: str) -> APIRouter:
    """The route."""
    router = APIRouter(route_class=OperationsRoute, tags=["trace"])
    caller = Depends(desk.caller)

    @router.post("/trace", **operation("trace", "Trace a person in a section", Trace, body=TraceRequest))
    async def look_up(request: Request, actor: str = caller) -> Response:
        """Why the person has, or has not, a seat in the section: everything that the ledger knows, and how things stand."""
        try:
            asked = await body(request, TraceRequest)
        except Refusal as refusal:
            return await desk.refuse(actor, "trace", refusal)
        section = asked.section
        subject = Subject(asked.tenant or tenant, asked.person, section.institution, section.term, section.section)
        return await desk.perform(actor, "trace", partial(_look_up, subject=subject))

    return router


def _look_up(connection: Connection, subject: Subject) -> Answer:
    # Whose record was looked at belongs into the audit.
    return json_answer(trace(connection, subject), subject.named())
