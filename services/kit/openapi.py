"""How both services describe their HTTP surface: an OpenAPI document each, made from the routes and from the models beside them.

Bodies and queries are read after the caller is known (a stranger hears 401 and nothing else), so that FastAPI cannot derive them:
`operation` says for a route what there is, and `App` puts the document together. Examples stand at the fields of the models; that
of a whole model is composed of them. Nothing serves pages for it, which would load their scripts from elsewhere (decision 0167).
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field

Json = dict[str, Any]
API_VERSION = "1"
"""Of what is described, not of the release: another one when a caller has to change."""

_PROBLEM = "application/problem+json"
_REFS = "#/components/schemas/"
_RETRY_AFTER = {"description": "Seconds.", "schema": {"type": "integer", "examples": [5]}}
_MOMENT = "2027-01-11T15:04:05Z"
_NEVER_ANSWERED = ("HTTPValidationError", "ValidationError")
"""FastAPI's own refusal of what it reads; ours read by themselves."""
_DESCRIPTIONS = {
    HTTPStatus.BAD_REQUEST: "The body cannot be read at all; nothing was done.",
    HTTPStatus.UNAUTHORIZED: "Nobody known calls; nothing more is said.",
    HTTPStatus.REQUEST_TIMEOUT: "The body did not arrive in time; nothing was done.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too large; nothing was done.",
    HTTPStatus.UNPROCESSABLE_ENTITY: "Something in the call is not valid: `errors` says what. Nothing was done.",
    HTTPStatus.SERVICE_UNAVAILABLE: "Nothing was done, because something could not be reached. Call again.",
}
_TITLES = {
    HTTPStatus.UNAUTHORIZED: "Unauthorized",
    HTTPStatus.REQUEST_TIMEOUT: "The body did not arrive in time",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The body is too large",
    HTTPStatus.UNPROCESSABLE_ENTITY: "The call is not valid",
    HTTPStatus.SERVICE_UNAVAILABLE: "The ledger did not take the call; nothing was done",
}


class Described(BaseModel):
    """A model of the API: what stands below a field in the code describes it in the document."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True, populate_by_name=True)


class Wrong(Described):
    """One thing that is wrong with a call. It quotes nothing of it."""

    pointer: str | None = Field(default=None, examples=["/reason"])
    """Where in the body, as a JSON pointer (RFC 6901)."""
    parameter: str | None = Field(default=None, examples=["limit"])
    """Which parameter of the query."""
    detail: str = Field(examples=["Field required"])
    """The rule that is broken."""


class Problem(Described):
    """Why a call was not carried out (RFC 9457). Some have further members, which the examples show."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["about:blank"])
    """Says no more than the status."""
    title: str = Field(examples=["The call is not valid"])
    """For people."""
    status: int = Field(ge=400, le=599, examples=[422])
    """The status of the answer."""
    reason: str | None = Field(default=None, examples=["world_changed"])
    """For programs: a closed word."""
    errors: list[Wrong] | None = None
    """Everything that is wrong."""


def operation(
    identity: str,
    summary: str,
    answer: type[BaseModel],
    *,
    status: HTTPStatus = HTTPStatus.OK,
    caller: str = "operator",
    body: type[BaseModel] | Json | None = None,
    query: type[BaseModel] | None = None,
    missing: str | None = None,
    conflicts: Mapping[str, str] | None = None,
    located: bool = False,
    try_again: str | None = None,
) -> Json:
    """Keyword arguments of a route for known callers, in a router's decorator.

    `identity` is the ``operationId``, and the action in the audit. `caller` is how one is known, of `App`'s ways. `body` is a
    model, or the media types of a body that is no JSON. `missing` names what a 404 lacks; `conflicts` the title of a 409 for each
    reason. `located`: the answer has a ``Location``. `try_again` is the title of a 503 that says when.
    """
    responses: dict[int | str, Json] = {status.value: {"model": answer, "description": _first_line(answer)}}
    if located:
        where = {
            "description": "Where to read it.",
            "schema": {"type": "string", "examples": [f"/{identity.split('.', maxsplit=1)[0]}/…"]},
        }
        responses[status.value]["headers"] = {"Location": where}
    refusals = {HTTPStatus.UNAUTHORIZED, HTTPStatus.SERVICE_UNAVAILABLE}
    refusals |= {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.REQUEST_ENTITY_TOO_LARGE} if body else set()
    refusals |= {HTTPStatus.UNPROCESSABLE_ENTITY} if body or query else set()
    responses |= {each.value: refusal(each) for each in sorted(refusals)}
    if try_again:
        responses[503] = refusal(HTTPStatus.SERVICE_UNAVAILABLE, try_again) | {"headers": {"Retry-After": _RETRY_AFTER}}
    if missing:
        responses[404] = _refused(f"There is no such {missing}.", {"missing": _problem(404, f"No such {missing}")})
    if conflicts:
        examples = {reason: _problem(409, title, reason=reason) for reason, title in conflicts.items()}
        responses[409] = _refused("Nothing was done; `reason` says why.", examples)
    extra: Json = {"security": [{caller: []}]}
    if body:
        content = body if isinstance(body, dict) else {"application/json": {"schema": _inline(body)}}
        extra["requestBody"] = {"required": True, "content": content}
    if query:
        extra["parameters"] = _parameters(query)
    return {
        "operation_id": identity,
        "summary": summary,
        "status_code": status.value,
        "responses": responses,
        "openapi_extra": extra,
    }


def refusal(status: HTTPStatus, title: str | None = None) -> Json:
    """A response that is a problem, with its example."""
    members = {"errors": [{"pointer": "/reason", "detail": "Field required"}]} if status.value == 422 else {}
    return _refused(_DESCRIPTIONS[status], {"refused": _problem(status.value, title or _TITLES[status], **members)})


def _refused(description: str, examples: Json) -> Json:
    wrapped = {name: {"value": example} for name, example in examples.items()}
    content = {_PROBLEM: {"schema": {"$ref": f"{_REFS}Problem"}, "examples": wrapped}}
    return {"description": description, "content": content}


def _problem(status: int, title: str, **members: object) -> Json:
    return {"type": "about:blank", "title": title, "status": status, **members}


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").partition("\n")[0]


def _inline(model: type[BaseModel]) -> Json:
    """Its schema, with the models that it needs under ``$defs``: `App.openapi` moves them."""
    return model.model_json_schema(ref_template=f"{_REFS}{{model}}")


def _parameters(query: type[BaseModel]) -> list[Json]:
    schema = query.model_json_schema()
    required = schema.get("required", [])
    found = []
    for name, inner in schema["properties"].items():
        description = inner.pop("description", "")
        inner.pop("title", None)
        found.append({"name": name, "in": "query", "required": name in required, "description": description, "schema": inner})
    return found


class App(FastAPI):
    """A FastAPI whose document says all that `operation` was told, with examples. It serves no page of its own."""

    def __init__(self, *, access: Mapping[str, Json], **more: Any) -> None:
        """`access`: the ways in which a caller is known (security schemes), by name."""
        super().__init__(docs_url=None, redoc_url=None, openapi_url=None, **more)
        self._access = access

    def openapi(self) -> Json:
        """The document; made once."""
        if self.openapi_schema is None:
            self.openapi_schema = self._complete(super().openapi())
        return self.openapi_schema

    def _complete(self, document: Json) -> Json:
        components = document.setdefault("components", {})
        schemas: Json = components.setdefault("schemas", {})
        for name in _NEVER_ANSWERED:
            schemas.pop(name, None)
        components["securitySchemes"] = dict(self._access)
        _take_in(schemas, _inline(Problem))
        for route in _operations(document):
            kept = {status: each for status, each in route["responses"].items() if not _is_fastapis_own(each)}
            route["responses"] = dict(sorted(kept.items()))
            for media in route.get("requestBody", {}).get("content", {}).values():
                if "title" in media["schema"]:
                    media["schema"] = {"$ref": _REFS + _take_in(schemas, media["schema"])}
        _add_examples(document)
        components["schemas"] = dict(sorted(schemas.items()))
        return document


def _operations(document: Json) -> list[Json]:
    return [route for path in document["paths"].values() for route in path.values()]


def _is_fastapis_own(response: Json) -> bool:
    media = response.get("content", {}).get("application/json", {})
    return bool(media.get("schema") == {"$ref": f"{_REFS}{_NEVER_ANSWERED[0]}"})


def _take_in(schemas: Json, schema: Json) -> str:
    """Put an inline schema, and what it needs, among the others; its name. Raises `ValueError` for two models of one name."""
    schema = dict(schema)
    needed = schema.pop("$defs", {}) | {schema["title"]: schema}
    for name, each in needed.items():
        if schemas.setdefault(name, each) != each:
            raise ValueError(f"two models are called {name}")
    return str(schema["title"])


def bearer(description: str) -> Json:
    """The security scheme of a secret in a header."""
    return {"type": "http", "scheme": "bearer", "description": description}


# --- examples ---

_UNKNOWN = object()
"""Nothing says what it could be."""


def _add_examples(document: Json) -> None:
    """To every schema that has a name, composed of those of its fields."""
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        example = _example(schema, schemas)
        if "examples" not in schema and example is not _UNKNOWN:
            schema["examples"] = [example]


def _example(schema: Json, schemas: Json) -> Any:  # noqa: PLR0911  (one line per kind of schema)
    """Of one schema. Of what may be null, what it is when it is not; the example ``None`` says otherwise."""
    if "examples" in schema:
        return schema["examples"][0]
    if "const" in schema:
        return schema["const"]
    if "$ref" in schema:
        return _example(schemas[schema["$ref"].removeprefix(_REFS)], schemas)
    if "enum" in schema:
        return schema["enum"][0]
    for choice in schema.get("anyOf", ()):
        if choice.get("type") != "null":
            return _example(choice, schemas)
    match schema.get("type"):
        case "object" if "properties" in schema:
            return _composed(schema, schemas)
        case "array":
            return [_example(schema["items"], schemas)]
        case "boolean":
            return schema.get("default", True)
        case "string" if schema.get("format") == "date-time":
            return _MOMENT
    return schema.get("default", _UNKNOWN)


def _composed(schema: Json, schemas: Json) -> Json:
    """Of an object: what need not be there, and would be null, is left out."""
    found = {name: _example(inner, schemas) for name, inner in schema["properties"].items()}
    required = schema.get("required", ())
    return {
        name: example for name, example in found.items() if example is not _UNKNOWN and (example is not None or name in required)
    }
