"""The OpenAPI documents are complete, valid, full of examples that are true, and kept in docs/openapi as the code has them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi.routing import APIRoute
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import BaseRoute

from services.publisher.intake.peoplesoft_answers import EXAMPLE
from tests.openapi import FOLDER, SECRET, Operation, Promise, apps, operations, text
from tests.unit.publisher.intake_support import Intake

APPS = apps()
DOCUMENTS = {name: app.openapi() for name, app in APPS.items()}
OPERATIONS = [(name, operation) for name, document in DOCUMENTS.items() for operation in operations(document)]
_HIDDEN = {"/openapi.json"}
_OF_HTTP = {"authorization", "content-encoding", "content-length", "content-type", "datachunkcount"}
"""Headers that say how a body travels; the last one is of messages in parts, which are not taken."""
_OPEN = {"process"}
"""Tags of routes that anybody may call."""

each_service = pytest.mark.parametrize("name", DOCUMENTS)
each_operation = pytest.mark.parametrize(
    ("name", "operation"), OPERATIONS, ids=[f"{name} {operation}" for name, operation in OPERATIONS]
)


@each_service
def test_the_document_is_valid(name: str) -> None:
    assert [error.message for error in OpenAPIV31SpecValidator(DOCUMENTS[name]).iter_errors()] == []


@each_service
def test_every_route_is_described(name: str) -> None:
    routes = {(method.lower(), route.path) for route in _routes(APPS[name].routes) for method in route.methods or ()}
    described = {(operation.method, operation.path) for operation in operations(DOCUMENTS[name])}
    assert routes - described == {("get", path) for path in _HIDDEN}
    assert described <= routes


def _routes(routes: Iterable[BaseRoute]) -> Iterator[APIRoute]:
    """Those of the routers that are included as well."""
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        else:
            yield from _routes(route.original_router.routes if hasattr(route, "original_router") else ())


@each_service
def test_no_two_operations_have_one_name(name: str) -> None:
    identities = [operation.told["operationId"] for operation in operations(DOCUMENTS[name])]
    assert len(set(identities)) == len(identities)


def test_every_header_that_orders_or_judges_a_delivery_is_described() -> None:
    publisher = Path(__file__).parents[2] / "services" / "publisher"
    read = {name for path in publisher.rglob("*.py") for name in re.findall(r'headers\.get\("([a-z-]+)"', path.read_text())}
    told = [parameter for operation in operations(DOCUMENTS["publisher"]) for parameter in operation.told.get("parameters", ())]
    described = {parameter["name"].lower() for parameter in told if parameter["in"] == "header"}
    assert {"from", "origtimestamp"} <= read
    assert described == (read - _OF_HTTP) | {"content-digest"}


@each_operation
def test_an_operation_says_what_it_is(name: str, operation: Operation) -> None:
    told = operation.told
    assert told["summary"]
    assert told["description"]
    assert told["tags"]
    assert bool(told.get("security")) == (not _OPEN & set(told["tags"]))
    for parameter in told.get("parameters", ()):
        schema = parameter["schema"]
        assert parameter["description"], parameter["name"]
        assert schema.get("examples") or "default" in schema or "enum" in schema or "anyOf" in schema, parameter["name"]


@each_operation
def test_every_body_has_an_example_that_is_true(name: str, operation: Operation) -> None:
    promise = Promise(DOCUMENTS[name])
    contents = [operation.told.get("requestBody", {}).get("content", {})]
    contents += [response.get("content", {}) for response in operation.told["responses"].values()]
    assert all(contents[1:])
    for content in contents:
        for kind, media in content.items():
            examples = _examples(media, DOCUMENTS[name])
            assert examples, f"no example of {kind}"
            for example in examples:
                assert promise.errors(media["schema"], example) == []


def _examples(media: dict[str, Any], document: dict[str, Any]) -> list[Any]:
    schema = media["schema"]
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return [each["value"] for each in media.get("examples", {}).values()] or schema.get("examples", [])


@each_operation
def test_what_goes_wrong_is_a_problem_to_known_callers(name: str, operation: Operation) -> None:
    if "process" in operation.told["tags"] or operation.path == "/intake/peoplesoft":
        return  # conditions, and what Integration Broker reads
    refusals = {status: response for status, response in operation.told["responses"].items() if int(status) >= 400}
    assert {"401", "503"} <= set(refusals)
    for response in refusals.values():
        assert list(response["content"]) == ["application/problem+json"]
        assert response["content"]["application/problem+json"]["schema"] == {"$ref": "#/components/schemas/Problem"}


@each_service
def test_every_model_has_an_example_that_is_true(name: str) -> None:
    promise = Promise(DOCUMENTS[name])
    for model, schema in DOCUMENTS[name]["components"]["schemas"].items():
        assert schema.get("examples"), model
        for example in schema["examples"]:
            assert promise.errors({"$ref": f"#/components/schemas/{model}"}, example) == [], model


@each_service
def test_the_kept_document_is_the_one_of_the_code(name: str) -> None:
    kept = (FOLDER / f"{name}.json").read_text()
    assert kept == text(DOCUMENTS[name]), "run `python -m tests.openapi`, and look at what changed for callers"


@each_service
async def test_it_is_served_to_known_callers_only(name: str) -> None:
    transport = httpx.ASGITransport(APPS[name])
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as http:
        assert (await http.get("/openapi.json")).status_code == 401
        assert (await http.get("/openapi.json", headers={"Authorization": "Bearer other"})).status_code == 401
        served = await http.get("/openapi.json", headers={"Authorization": f"Bearer {SECRET}"})
        assert served.json() == DOCUMENTS[name]
        for page in ("/docs", "/redoc"):
            assert (await http.get(page)).status_code == 404


async def test_the_message_of_the_example_is_taken() -> None:
    intake = Intake()
    async with intake.client() as http:
        answer = await http.post("/intake/peoplesoft", content=EXAMPLE)
    Promise(DOCUMENTS["publisher"]).check("post", "/intake/peoplesoft", answer)
    assert intake.requests("peoplesoft", "accepted") == 1
