"""The description of both services' HTTP surfaces: what is written to docs/openapi, and what real answers are held to.

``python -m tests.openapi`` writes the files anew; tests/contract/test_openapi.py fails while they are not what the code says.
"""

from __future__ import annotations

import copy
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from jsonschema import Draft202012Validator
from pydantic import SecretStr

from services.consumer import app as consumer_app
from services.consumer import bootstrap as consumer_bootstrap
from services.consumer.settings import Settings as ConsumerSettings
from services.kit.kafka import KafkaSettings
from services.kit.openapi import App
from services.publisher import app as publisher_app
from services.publisher import bootstrap as publisher_bootstrap
from services.publisher.settings import Settings as PublisherSettings

FOLDER = Path(__file__).parents[1] / "docs" / "openapi"
SECRET = "ops-secret"
Json = dict[str, Any]


def apps() -> dict[str, App]:
    """Both services' real surfaces by name, over nothing: whatever a route would ask is not there. `SECRET` is an operator's."""
    kafka = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    nowhere = SecretStr("postgresql://nobody@127.0.0.1:1/none")
    credentials = Path(tempfile.mkdtemp(prefix="enrollstream-openapi-")) / "credentials"
    credentials.write_text(f"ops:{SECRET}\n")
    consumer = ConsumerSettings(
        database_url=nowhere,
        canvas_url="http://127.0.0.1:1",
        canvas_token_file=credentials,
        operations_credentials_file=credentials,
    )
    publisher = PublisherSettings(
        database_url=nowhere, intake_credentials_file=credentials, operations_credentials_file=credentials
    )
    return {
        "consumer": consumer_app.create_app(consumer_bootstrap.consumer(consumer, kafka)),
        "publisher": publisher_app.create_app(publisher_bootstrap.publisher(publisher, kafka)),
    }


class Operation(NamedTuple):
    """One route of a document."""

    method: str
    path: str
    told: Json

    def __str__(self) -> str:
        return f"{self.method.upper()} {self.path}"


def operations(document: Json) -> Iterator[Operation]:
    """All of them."""
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            yield Operation(method, path, told)


class Promise:
    """A document, as something that can be broken."""

    def __init__(self, document: Json) -> None:
        self._document = document
        self._strict = {"components": {"schemas": _closed(document["components"]["schemas"])}}

    def errors(self, schema: Json, value: object) -> list[str]:
        """What is wrong with a value. So are members that a schema does not name, unless it says that there may be more."""
        validator = Draft202012Validator(schema | self._strict, format_checker=Draft202012Validator.FORMAT_CHECKER)
        return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(value)]

    def check(self, method: str, path: str, answer: httpx.Response) -> None:
        """Raise `AssertionError` unless the answer, and the body that it accepted, are as described. No route is no matter."""
        operation = self._operation(method, path)
        if operation is None:
            return
        told = operation.told["responses"].get(str(answer.status_code))
        assert told is not None, f"{operation} answers {answer.status_code}, which is not described"
        kind = answer.headers["content-type"].partition(";")[0]
        assert kind in told["content"], f"{operation} answers {kind}, which is not described"
        if not kind.endswith("json"):
            return
        body = answer.json()
        wrong = self.errors(told["content"][kind]["schema"], body)
        assert not wrong, f"{operation} answers {answer.status_code} otherwise than described: {wrong}"
        if answer.status_code == 409:
            assert body["reason"] in told["content"][kind]["examples"], f"{operation}: {body['reason']} is not described"
        if answer.is_success:
            self._check_body(operation, answer.request)
        for name in told.get("headers", {}):
            assert name in answer.headers, f"{operation} has no {name}"

    def _check_body(self, operation: Operation, request: httpx.Request) -> None:
        schema = operation.told.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
        if schema:
            wrong = self.errors(schema, json.loads(request.content))
            assert not wrong, f"{operation} accepts what is not described: {wrong}"

    def _operation(self, method: str, path: str) -> Operation | None:
        for operation in operations(self._document):
            pattern = re.sub(r"\{\w+\}", "[^/]+", operation.path)
            if operation.method == method.lower() and re.fullmatch(pattern, path.partition("?")[0]):
                return operation
        return None


def _closed(schemas: Json) -> Json:
    """The same, with nothing else allowed where they do not say that there may be more."""
    closed = copy.deepcopy(schemas)
    for schema in closed.values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return closed


def text(document: Json) -> str:
    """As it is kept."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    for name, app in apps().items():
        (FOLDER / f"{name}.json").write_text(text(app.openapi()))


if __name__ == "__main__":
    main()
