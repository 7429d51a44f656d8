"""``/trace``: why a person has, or has not, a seat in a section."""

from __future__ import annotations

from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from services.consumer.api.desk import Answer, Desk, OperationsRoute, Refusal, body, described, json_answer
from services.consumer.trace import Subject, trace
from services.kit.postgres import Connection

_Id = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00]+$")]


class SectionRequest(BaseModel):
    """A section, by the ids of the SIS."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    institution: _Id
    term: _Id
    section: _Id


class TraceRequest(BaseModel):
    """A person and a section, by the ids of the SIS. They travel in the body because URLs are logged along the way."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    tenant: _Id | None = None
    """The consumer's own when absent."""
    person: _Id
    section: SectionRequest


def trace_router(desk: Desk, tenant: str) -> APIRouter:
    """The route."""
    router = APIRouter(route_class=OperationsRoute, tags=["trace"])
    caller = Depends(desk.caller)

    @router.post("/trace", openapi_extra=described(TraceRequest))
    async def look_up(request: Request, actor: str = caller) -> Response:
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
