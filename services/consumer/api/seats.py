"""``/seats/summary``, ``/dead-letters``: in what states the seats are, and which of them the LMS refuses, by class."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any

from fastapi import APIRouter, Depends, Request, Response
from pydantic import Field

from schemas import keys
from services.consumer.api.answers import seats as answers
from services.consumer.api.bodies import LONGEST_PAGE, PAGE, Body, Id, Moment, PlaceQuery, Query, Target
from services.consumer.api.desk import Answer, Desk, OperationsRoute, Refusal, body, json_answer, query
from services.consumer.ledger import dead_letters, states
from services.consumer.ledger.dead_letters import DeadClass, DeadLetter, Place, Timers
from services.consumer.ledger.states import Summary
from services.kit.openapi import operation
from services.kit.postgres import Connection


class TargetQuery(Query):
    """Of which target."""

    target: Target | None = None
    """The consumer's own when absent."""


class SummaryQuery(TargetQuery, PlaceQuery):
    """Which seats."""


class DeadLettersPlace(Body):
    """Where a page begins: `next_after` of the page before."""

    since: Moment
    seat: Id = Field(examples=["PSUNV-1259-1001/0009001/StudentEnrollment/"])


class DeadLettersRequest(Body):
    """A page of one class. It travels in the body because `after` names a person, and URLs are logged along the way."""

    dead_class: Id = Field(alias="class", examples=["refused:validation"])
    target: Target | None = None
    """The consumer's own when absent."""
    after: DeadLettersPlace | None = None
    limit: int = Field(default=PAGE, ge=1, le=LONGEST_PAGE)


def seat_router(desk: Desk, target: str, timers: Timers) -> APIRouter:
    """The routes; `target` is the consumer's own."""
    router = APIRouter(route_class=OperationsRoute, tags=["seats"])
    caller = Depends(desk.caller)

    @router.get("/seats/summary", **operation("seats.summary", "Count seats by state", answers.SeatSummary, query=SummaryQuery))
    async def summary(request: Request, actor: str = caller) -> Response:
        """All seats of a target by state, or those of an institution or one of its terms."""
        try:
            asked = query(request, SummaryQuery)
        except Refusal as refusal:
            return await desk.refuse(actor, "seats.summary", refusal)
        return await desk.look(actor, "seats.summary", partial(_summary, asked=asked, target=asked.target or target))

    @router.get(
        "/dead-letters",
        **operation("dead_letters.list", "List the classes of dead letters", answers.DeadLetterClasses, query=TargetQuery),
    )
    async def classes(request: Request, actor: str = caller) -> Response:
        """The classes of dead letters, with their number, their age, and when a timer brings them back."""
        try:
            asked = query(request, TargetQuery).target or target
        except Refusal as refusal:
            return await desk.refuse(actor, "dead_letters.list", refusal)
        return await desk.look(actor, "dead_letters.list", partial(_classes, target=asked, timers=timers))

    @router.post(
        "/dead-letters/search",
        **operation("dead_letters.read", "List dead letters of a class", answers.DeadLetterPage, body=DeadLettersRequest),
    )
    async def search(request: Request, actor: str = caller) -> Response:
        """The dead letters of one class, those that died first first."""
        try:
            asked = await body(request, DeadLettersRequest)
        except Refusal as refusal:
            return await desk.refuse(actor, "dead_letters.read", refusal)
        return await desk.perform(actor, "dead_letters.read", partial(_page, asked=asked, target=asked.target or target))

    return router


def _summary(connection: Connection, asked: SummaryQuery, target: str) -> Answer:
    scope = {"target": target, "institution": asked.institution, "term": asked.term}
    lines = states.summary(connection, target, asked.institution, asked.term)
    waiting = states.backlog(lines)
    content = scope | {
        "seats": sum(line.seats for line in lines),
        "backlog": {"seats": waiting.seats, "per_minute": waiting.per_minute, "eta_seconds": waiting.eta_seconds},
        "states": [_line(line) for line in lines],
        "suspect": _beside(sum(line.suspect for line in lines), [line.suspect_oldest_at for line in lines]),
        "intent_open": _beside(sum(line.intent_open for line in lines), [line.intent_oldest_at for line in lines]),
    }
    return json_answer(content, scope)


def _line(line: Summary) -> dict[str, Any]:
    told = {
        "state": line.state,
        "waits_for": line.waits_for,
        "class": line.dead_class,
        "seats": line.seats,
        "oldest_at": line.oldest_at,
        "next_at": line.next_at,
    }
    return {name: value for name, value in told.items() if value is not None}


def _beside(seats: int, oldest: list[datetime | None]) -> dict[str, Any]:
    return {"seats": seats, "oldest_at": min((at for at in oldest if at is not None), default=None)}


def _classes(connection: Connection, target: str, timers: Timers) -> Answer:
    found = dead_letters.classes(connection, target, timers)
    content = {"target": target, "seats": sum(one.seats for one in found), "classes": [_class(one, timers) for one in found]}
    return json_answer(content, {"target": target})


def _class(one: DeadClass, timers: Timers) -> dict[str, Any]:
    timer = timers.of(one.dead_class)
    return {
        "class": one.dead_class,
        "seats": one.seats,
        "oldest_at": one.oldest_at,
        "newest_at": one.newest_at,
        "tried_again_after_seconds": timer.seconds,
        "tried_again_at_most": timer.times,
        "next_at": one.next_at,
        "left_to_people": one.left_to_people,
    }


def _page(connection: Connection, asked: DeadLettersRequest, target: str) -> Answer:
    after = Place(asked.after.since, asked.after.seat) if asked.after else None
    found = dead_letters.page(connection, target, asked.dead_class, after, asked.limit)
    last = found[-1].place._asdict() if len(found) == asked.limit else None
    content = {"target": target, "class": asked.dead_class, "dead_letters": [_letter(one) for one in found], "next_after": last}
    return json_answer(content, {"target": target, "class": asked.dead_class, "seats": len(found)})


def _letter(one: DeadLetter) -> dict[str, Any]:
    institution, term, section = keys.split(one.section)
    return {
        "tenant": one.tenant,
        "person": one.person,
        "section": {"institution": institution, "term": term, "section": section},
        "lms_section": one.lms_section,
        "lms_user": one.lms_user,
        "role": one.role,
        "desired": one.desired,
        "applied": one.applied,
        "version": one.version,
        "dead_since": one.since,
        "unsettled_since": one.unsettled_since,
        "releases": one.releases,
    }
