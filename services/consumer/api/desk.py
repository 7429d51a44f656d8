"""What every operations route shares: the caller is known, the call is one audited transaction, a refusal is a problem."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import orjson
import psycopg
import structlog
from fastapi import Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from services.consumer.ledger import audit, database
from services.consumer.metrics import Metrics
from services.kit.credentials import Callers, CredentialFileError
from services.kit.http import BodyTooLarge, BodyTooSlow, problem, read_body
from services.kit.postgres import Connection

log = structlog.get_logger()

_BODY_BYTES = 16 * 1024
_BODY_SECONDS = 5
_STATEMENT_SECONDS = 30
_Model = TypeVar("_Model", bound=BaseModel)


class Refusal(Exception):
    """The call is not carried out. `reason` is a closed code for audit and metrics; the response quotes nothing of the call."""

    def __init__(self, status: HTTPStatus, title: str, reason: str, **members: object) -> None:
        super().__init__(reason)
        self.reason = reason
        self.response = problem(status, title, **members)


class Answer(NamedTuple):
    """The response of a call, and what the audit row says about it."""

    response: Response
    detail: Mapping[str, object]
    outcome: audit.Outcome = "done"


class OperationsRoute(APIRoute):
    """Turns a `Refusal` into its response, and lets no answer be stored on the way."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            try:
                response = await handle(request)
            except Refusal as refusal:
                response = refusal.response
            response.headers["Cache-Control"] = "no-store"
            return response

        return guarded


class Desk:
    """Where operators call. Each call is one transaction with exactly one audit row; without the row nothing happens, and
    nobody's record is shown."""

    def __init__(self, callers: Callers | None, database_url: str, metrics: Metrics) -> None:
        """Without `callers` everybody is refused."""
        self._callers = callers
        self._database_url = database_url
        self._metrics = metrics

    def caller(self, request: Request) -> str:
        """A dependency: the name behind the bearer token. Refuses with 401, or 503 while the credentials cannot be read."""
        presented = request.headers.get("authorization", "")
        try:
            known = self._callers.identify(presented) if self._callers and presented.lower().startswith("bearer ") else None
        except CredentialFileError as error:
            log.error("credentials_unreadable", path=request.url.path, exc_info=error)
            self._count("authenticate", "unavailable")
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, "Nobody can be identified now", "credentials") from error
        if known is None:
            self._count("authenticate", "refused")
            refusal = Refusal(HTTPStatus.UNAUTHORIZED, "Unauthorized", "unauthenticated")
            refusal.response.headers["WWW-Authenticate"] = "Bearer"
            raise refusal
        return known

    async def perform(self, actor: str, action: str, work: Callable[[Connection], Answer]) -> Response:
        """Run `work` and the audit row in one transaction, in a thread. 503, and no effect, when the ledger refuses either."""
        return await self._respond(self._in_one_transaction, actor, action, work)

    async def look(self, actor: str, action: str, work: Callable[[Connection], Answer]) -> Response:
        """The same for a `work` that only reads and shows nobody: answered even when just the audit row cannot be written, as
        on a full disk, because then operators have to see how things stand. The log says that it was."""
        return await self._respond(self._before_its_row, actor, action, work)

    async def _respond(
        self,
        carry_out: Callable[[str, str, Callable[[Connection], Answer]], Answer],
        actor: str,
        action: str,
        work: Callable[[Connection], Answer],
    ) -> Response:
        try:
            answer = await run_in_threadpool(carry_out, actor, action, work)
        except psycopg.Error as error:
            log.error("operation_not_audited", action=action, exc_info=error)
            self._count(action, "unavailable")
            return problem(HTTPStatus.SERVICE_UNAVAILABLE, "The ledger did not take the call; nothing was done")
        self._count(action, answer.outcome)
        return answer.response

    async def refuse(self, actor: str, action: str, refusal: Refusal) -> Response:
        """Audit a refused call."""
        return await self.perform(actor, action, lambda _: Answer(refusal.response, {"reason": refusal.reason}, "refused"))

    def _in_one_transaction(self, actor: str, action: str, work: Callable[[Connection], Answer]) -> Answer:
        with database.connect(self._database_url, statement_timeout_seconds=_STATEMENT_SECONDS) as connection:
            with connection.transaction():
                answer = work(connection)
                audit.record(connection, actor, action, answer.outcome, answer.detail)
            return answer

    def _before_its_row(self, actor: str, action: str, work: Callable[[Connection], Answer]) -> Answer:
        with database.connect(self._database_url, statement_timeout_seconds=_STATEMENT_SECONDS) as connection:
            with connection.transaction():
                connection.execute("set transaction read only")
                answer = work(connection)
            try:
                audit.record(connection, actor, action, answer.outcome, answer.detail)
            except psycopg.Error as error:
                log.error("read_not_audited", action=action, exc_info=error)
            return answer

    def _count(self, action: str, result: str) -> None:
        self._metrics.operator_actions.labels(action, result).inc()


async def body(request: Request, model: type[_Model]) -> _Model:
    """The request's JSON as `model`; refuses with 413, 408 or 422, naming the fields that are wrong but no values."""
    text = await raw_body(request, _BODY_BYTES)
    try:
        return model.model_validate_json(text)
    except ValidationError as error:
        raise invalid([_named(problem) for problem in error.errors(include_input=False, include_url=False)]) from error


async def raw_body(request: Request, limit_bytes: int) -> bytes:
    """The request's body; refuses with 413 or 408."""
    try:
        return await read_body(request, limit_bytes, _BODY_SECONDS)
    except BodyTooLarge as error:
        raise Refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The body is too large", "body_too_large") from error
    except BodyTooSlow as error:
        raise Refusal(HTTPStatus.REQUEST_TIMEOUT, "The body did not arrive in time", "body_too_slow") from error


def query(request: Request, model: type[_Model]) -> _Model:
    """The parameters of the request's query as `model`; refuses with 422, naming those that are wrong but no values."""
    known = {name: value for name, value in request.query_params.items() if name in model.model_fields}
    try:
        return model.model_validate(known)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)
        raise invalid([{"parameter": str(one["loc"][0]) if one["loc"] else "", "detail": one["msg"]} for one in found]) from error


def uuid_of(text: str) -> UUID | None:
    """An id of ours in a path; None for what is none, which names nothing."""
    try:
        return UUID(text)
    except ValueError:
        return None


def invalid(errors: list[dict[str, str]], reason: str = "invalid") -> Refusal:
    """A validation problem; each error has a JSON `pointer` into the body (or names a query parameter) and a `detail`."""
    return Refusal(HTTPStatus.UNPROCESSABLE_ENTITY, "The call is not valid", reason, errors=errors)


def not_found(what: str, detail: Mapping[str, object]) -> Answer:
    """The answer for a thing that the ledger does not have."""
    return Answer(problem(HTTPStatus.NOT_FOUND, f"No such {what}"), detail, "not_found")


def _named(problem: ErrorDetails) -> dict[str, str]:
    if problem["type"] == "extra_forbidden":
        # The name of an unknown field is the caller's own text.
        return {"pointer": _pointer(problem["loc"][:-1]), "detail": "a field that this call does not have"}
    return {"pointer": _pointer(problem["loc"]), "detail": problem["msg"]}


def _pointer(location: tuple[int | str, ...]) -> str:
    return "".join(f"/{part}" for part in location)


def json_answer(content: object, detail: Mapping[str, object]) -> Answer:
    """200 with a JSON body; times are written in ISO 8601."""
    return Answer(Response(orjson.dumps(content), media_type="application/json"), detail)
