"""``/replays``: plan to open seats again, see what that would change, apply it or not, and see how it turned out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from schemas.topics import Topics
from services.consumer.api import replay_answers
from services.consumer.api.answers import replays as answers
from services.consumer.api.bodies import Body, PageQuery, Sha256
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
    uuid_of,
)
from services.consumer.ledger import replay_plans, replay_report, replays
from services.consumer.ledger.replay_scopes import Offsets, Scope, Times
from services.consumer.ledger.replays import Order, Range, Replay, TooLarge
from services.consumer.replay.log import Log, LogUnavailable
from services.kit.http import problem
from services.kit.openapi import operation
from services.kit.postgres import Connection

_NEWEST = 50
_DIFFERENCES = 100
_ReplayId = Annotated[str, Path(description="Id of the replay.", examples=["6f1c1e9e-2f0b-4f0c-9d0f-7f2b8f6f5a10"])]
_CONFLICTS = {
    "no_finished_plan": "Only a plan that is done can be applied",
    "other_digest": "The plan has another digest",
    "world_changed": "The world has changed since the plan; plan again",
}
_HAS_ENDED = {"has_ended": "The replay has ended by itself"}


class ReplayPlanRequest(Body):
    """What to plan. People are named here, in the body, because URLs are logged along the way."""

    scope: Scope
    verify: bool = False
    """Also read settled seats back from the LMS."""


class ReplayApplyRequest(Body):
    """Which plan is meant: the digest of what the caller has seen."""

    digest: Sha256


@dataclass(frozen=True, slots=True)
class Reach:
    """Whose replays these are, and how large one may be."""

    topics: Topics
    tenant: str
    target: str
    max_records: int


def replay_router(desk: Desk, log: Log, reach: Reach, wake: Callable[[], None]) -> APIRouter:
    """The routes. `wake` tells this process's runner that something was stored or cancelled; it may be called from any thread."""
    router = APIRouter(route_class=OperationsRoute, tags=["replays"])
    caller = Depends(desk.caller)

    @router.post(
        "/replays",
        **operation(
            "replay.plan",
            "Plan a replay",
            answers.Replay,
            status=HTTPStatus.ACCEPTED,
            body=ReplayPlanRequest,
            located=True,
        ),
    )
    async def plan(request: Request, actor: str = caller) -> Response:
        """Find out what opening these seats again would change. A plan changes nothing; it runs on after the answer."""
        try:
            order = await _order(request, log, reach)
        except Refusal as refusal:
            return await desk.refuse(actor, "replay.plan", refusal)
        work = partial(_plan, order=order, actor=actor, max_records=reach.max_records)
        response = await desk.perform(actor, "replay.plan", work)
        wake()
        return response

    @router.post(
        "/replays/{replay}/apply",
        **operation(
            "replay.apply",
            "Carry a plan out",
            answers.Replay,
            status=HTTPStatus.ACCEPTED,
            body=ReplayApplyRequest,
            missing="replay",
            conflicts=_CONFLICTS,
            located=True,
        ),
    )
    async def apply(request: Request, replay: _ReplayId, actor: str = caller) -> Response:
        """Carry a plan out if it still says what would happen; asked twice, the answer is the same replay."""
        try:
            asked = await body(request, ReplayApplyRequest)
        except Refusal as refusal:
            return await desk.refuse(actor, "replay.apply", refusal)
        response = await desk.perform(actor, "replay.apply", partial(_apply, name=replay, digest=asked.digest, actor=actor))
        wake()
        return response

    @router.post(
        "/replays/{replay}/cancel",
        **operation("replay.cancel", "Cancel a replay", answers.Replay, missing="replay", conflicts=_HAS_ENDED),
    )
    async def cancel(replay: _ReplayId, actor: str = caller) -> Response:
        """End a replay or a plan after the batch that is under way; what was done stays done."""
        response = await desk.perform(actor, "replay.cancel", partial(_cancel, name=replay))
        wake()
        return response

    @router.get("/replays", **operation("replay.list", "List replays", answers.ReplayList))
    async def newest(actor: str = caller) -> Response:
        """The newest fifty, plans among them."""
        return await desk.perform(actor, "replay.list", _newest)

    @router.get(
        "/replays/{replay}",
        **operation("replay.read", "Read a replay", answers.ReplayReport, query=PageQuery, missing="replay"),
    )
    async def report(request: Request, replay: _ReplayId, actor: str = caller) -> Response:
        """How far it has come, and a page of what became of each offset or seat."""
        return await _read(desk, request, actor, "replay.read", partial(_report, name=replay))

    @router.get(
        "/replays/{replay}/changes",
        **operation(
            "replay.changes", "Read what a plan would change", answers.ReplayChanges, query=PageQuery, missing="finished plan"
        ),
    )
    async def changes(request: Request, replay: _ReplayId, actor: str = caller) -> Response:
        """A page of what a finished plan would change."""
        return await _read(desk, request, actor, "replay.changes", partial(_changes, name=replay))

    return router


async def _read(desk: Desk, request: Request, actor: str, action: str, work: Callable[..., Answer]) -> Response:
    """A page of something: the numbers behind `after`, which name nobody."""
    try:
        page = query(request, PageQuery)
    except Refusal as refusal:
        return await desk.refuse(actor, action, refusal)
    return await desk.perform(actor, action, partial(work, after=page.after, limit=page.limit))


# --- planning ---


async def _order(request: Request, log: Log, reach: Reach) -> Order:
    """What the caller asks for, checked against the log; raises `Refusal`."""
    asked = await body(request, ReplayPlanRequest)
    scope = asked.scope.at_home(reach.tenant, reach.target)
    ranges: Sequence[Range] = ()
    match scope.asked:
        case Offsets() | Times() as part:
            if reach.topics.kind(part.topic) is None:
                raise _wrong(f"/scope/{scope.name}/topic", "not a topic that carries events", "unknown_topic")
            try:
                ranges = await run_in_threadpool(_ranges, log, part)
            except LogUnavailable as error:
                title = "Kafka does not answer; nothing was done"
                raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, title, "log_unavailable") from error
    return Order(scope, ranges, dry_run=True, verify=asked.verify)


def _ranges(log: Log, asked: Offsets | Times) -> list[Range]:
    if isinstance(asked, Offsets):
        return [_range_of_offsets(log, asked)]
    found = log.between(asked.topic, asked.since, asked.until)
    if not found:
        raise _wrong("/scope/times", "the topic holds no record of these times", "no_records")
    return [Range(asked.topic, held.topic_id, partition, held.low, held.high - 1, held.low) for partition, held in found.items()]


def _range_of_offsets(log: Log, asked: Offsets) -> Range:
    held = log.bounds(asked.topic, asked.partition)
    if held is None:
        raise _wrong("/scope/offsets/partition", "the topic has no such partition", "unknown_partition")
    if asked.first >= held.high:
        raise _wrong("/scope/offsets/from", f"the partition ends before offset {held.high}", "after_the_end")
    last = min(asked.last, held.high - 1)
    return Range(asked.topic, held.topic_id, asked.partition, asked.first, last, asked.first)


def _plan(connection: Connection, order: Order, actor: str, max_records: int) -> Answer:
    # The audit says whose seats were meant: that is what an audit is asked about.
    asked = {"scope": order.scope.told(), "verify": order.verify}
    try:
        replay = replays.create(connection, order, actor, max_records)
    except TooLarge as error:
        detail = f"{error.total} offsets or seats are more than {max_records}; plan parts of it"
        refused = _wrong(f"/scope/{order.scope.name}", detail, "scope_too_large")
        return Answer(refused.response, asked | {"reason": refused.reason}, "refused")
    return _accepted(connection, replay, asked)


def _accepted(connection: Connection, replay: UUID, detail: dict[str, Any]) -> Answer:
    stored = replays.find(connection, replay)
    assert stored is not None  # noqa: S101  (inserted before)
    headers = {"Location": f"/replays/{replay}"}
    accepted = JSONResponse(replay_answers.summary(stored), status_code=HTTPStatus.ACCEPTED, headers=headers)
    return Answer(accepted, detail | {"replay": str(replay)})


# --- applying ---


def _apply(connection: Connection, name: str, digest: str, actor: str) -> Answer:
    """Carry a plan out if it still says what would happen; once, however often it is asked for."""
    plan = _find(connection, name, lock=True)
    if plan is None:
        return not_found("replay", {})
    detail = {"plan": str(plan.replay), "digest": digest}
    if not plan.dry_run or plan.state != "done":
        return _conflict("no_finished_plan", detail)
    if digest != plan.digest:
        return _conflict("other_digest", detail)
    if plan.applied_by is not None:
        return _accepted(connection, plan.applied_by, detail)
    differences = replay_plans.differences(connection, plan, _DIFFERENCES)
    if differences:
        told = replay_answers.differences(differences)
        counted = {which: told[which] for which in ("appeared", "vanished", "changed")}
        return _conflict("world_changed", detail | counted, **told)
    order = Order(plan.scope, plan.ranges, dry_run=False, verify=plan.verify, plan=plan.replay)
    return _accepted(connection, replays.create(connection, order, actor), detail)


def _cancel(connection: Connection, name: str) -> Answer:
    replay = _find(connection, name, lock=True)
    if replay is None:
        return not_found("replay", {})
    detail = {"replay": str(replay.replay)}
    if replay.state in ("done", "failed"):
        return _conflict("has_ended", detail)
    replays.cancel(connection, replay.replay)
    return _told(connection, replay.replay, detail)


def _told(connection: Connection, replay: UUID, detail: dict[str, Any]) -> Answer:
    stored = replays.find(connection, replay)
    assert stored is not None  # noqa: S101  (locked before)
    return json_answer(replay_answers.summary(stored), detail)


def _conflict(reason: str, detail: dict[str, Any], **members: object) -> Answer:
    title = {**_CONFLICTS, **_HAS_ENDED}[reason]
    response = problem(HTTPStatus.CONFLICT, title, reason=reason, **members)
    return Answer(response, detail | {"reason": reason}, "refused")


# --- reading ---


def _newest(connection: Connection) -> Answer:
    listed = replays.newest(connection, _NEWEST)
    return json_answer({"replays": [replay_answers.summary(replay) for replay in listed]}, {})


def _report(connection: Connection, name: str, after: int, limit: int) -> Answer:
    replay = _find(connection, name)
    if replay is None:
        return not_found("replay", {})
    lines = replay_report.lines(connection, replay.replay, after, limit)
    content = replay_answers.summary(replay) | {
        "verdicts": replay_report.counts(connection, replay.replay),
        "lines": [replay_answers.line(line) for line in lines],
        "next_after": lines[-1].line if len(lines) == limit else None,
    }
    return json_answer(content, {"replay": str(replay.replay), "after": after, "limit": limit})


def _changes(connection: Connection, name: str, after: int, limit: int) -> Answer:
    replay = _find(connection, name)
    if replay is None or replay.digest is None:
        return not_found("finished plan", {})
    found = replay_plans.page(connection, replay.replay, after, limit)
    content = {
        "replay": str(replay.replay),
        "digest": replay.digest,
        "total": replay.changes,
        "changes": [replay_answers.change(one.subject) | one.facts for one in found],
        "next_after": found[-1].number if len(found) == limit else None,
    }
    return json_answer(content, {"replay": str(replay.replay), "after": after, "limit": limit})


def _find(connection: Connection, name: str, *, lock: bool = False) -> Replay | None:
    replay = uuid_of(name)
    return replays.find(connection, replay, lock=lock) if replay else None


def _wrong(pointer: str, detail: str, reason: str) -> Refusal:
    return invalid([{"pointer": pointer, "detail": detail}], reason)
