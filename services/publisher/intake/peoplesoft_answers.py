"""What Integration Broker hears, and how it is described: small well-formed XML, in the shape of PeopleSoft's ping answer."""

from __future__ import annotations

import uuid
from typing import Any
from xml.sax.saxutils import escape

from fastapi import Response

_SHAPE = (
    '<?xml version="1.0"?>\n<IBResponse type="{kind}"><DefaultTitle>{title}</DefaultTitle>'
    "<StatusCode>{code}</StatusCode><TransactionID>{transaction}</TransactionID></IBResponse>\n"
)
_AUTHENTICATE = {"WWW-Authenticate": 'Basic realm="enrollstream"'}
_WRONG_CREDENTIALS, _TRY_AGAIN = "wrong or missing credentials", "try again later"
_TRANSACTION = "8d7f0f0e-53b5-4a5a-8a0e-1f0c9f3b2a77"

EXAMPLE = (
    '<?xml version="1.0"?><ZZ_ENRL_SYNC><FieldTypes/><MsgData><Transaction><STDNT_ENRL class="R"><EMPLID>0090001</EMPLID>'
    "<ACAD_CAREER>UGRD</ACAD_CAREER><INSTITUTION>NORTH</INSTITUTION><STRM>2267</STRM><CLASS_NBR>26191</CLASS_NBR>"
    '<STDNT_ENRL_STATUS>D</STDNT_ENRL_STATUS></STDNT_ENRL><PSCAMA class="R"><AUDIT_ACTN>C</AUDIT_ACTN></PSCAMA>'
    "</Transaction></MsgData></ZZ_ENRL_SYNC>"
)
"""A student drops a class."""


def success(title: str) -> Response:
    """It is durable."""
    return _reply(200, "success", title, 0)


def try_again(after_seconds: int, _reason: str) -> Response:
    """It is not. Integration Broker sends it again, whatever the reason."""
    return _reply(503, "error", _TRY_AGAIN, 10, {"Retry-After": str(after_seconds)})


def unauthorized() -> Response:
    """A person has to act."""
    return _reply(401, "error", _WRONG_CREDENTIALS, 20, _AUTHENTICATE)


def _reply(status: int, kind: str, title: str, code: int, headers: dict[str, str] | None = None) -> Response:
    content = _SHAPE.format(kind=kind, title=escape(title), code=code, transaction=uuid.uuid4())
    return Response(content, status, headers, media_type="text/xml; charset=utf-8")


def _described(description: str, kind: str, title: str, code: int) -> dict[str, Any]:
    example = _SHAPE.format(kind=kind, title=title, code=code, transaction=_TRANSACTION)
    return {"description": description, "content": {"text/xml": {"schema": {"type": "string", "examples": [example]}}}}


def _header(name: str, description: str, example: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string", "examples": [example]}}


_HEADERS = [
    _header("From", "The node that sends; it names the channel. Without it the envelope says it.", "PSFT_CS"),
    _header(
        "OrigTimeStamp",
        "When the message was made, with a zone: of two about one row the later counts. Without it the envelope says it, or else "
        "arrival decides.",
        "2027-01-11T09:04:05.123456-0600",
    ),
    _header("OperationName", "The service operation; one that ends in `_FULLSYNC` is a full extract.", "ZZ_ENRL_SYNC.VERSION_1"),
    _header("ExternalOperationName", "Its alias, which goes first.", "ZZ_ENRL_SYNC.VERSION_1"),
    _header("OperationType", "`ping` only asks whether we are there.", "ping"),
]
"""None is required: a message in an envelope says the same inside."""
_MESSAGE = {"type": "string", "description": "A rowset message.", "examples": [EXAMPLE]}
DESCRIPTION: dict[str, Any] = {
    "operation_id": "intake.peoplesoft",
    "summary": "Deliver a PeopleSoft message",
    "responses": {
        200: _described("Safe: in the mirror and in Kafka, or in quarantine.", "success", "accepted", 0),
        401: _described("The queue stops until a person corrects the credentials.", "error", _WRONG_CREDENTIALS, 20),
        503: _described("Not safe yet: Integration Broker sends it again by itself.", "error", _TRY_AGAIN, 10),
    },
    "openapi_extra": {
        "security": [{"source": []}],
        "parameters": _HEADERS,
        "requestBody": {"required": True, "content": {"text/xml": {"schema": _MESSAGE}}},
    },
}
"""Keyword arguments of the route."""
