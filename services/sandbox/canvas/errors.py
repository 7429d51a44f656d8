"""Refusals with the exact status and body of the real thing (the bodies: ``lib/authentication_methods.rb``, ``lib/api.rb``)."""

from __future__ import annotations

from typing import Any

CHALLENGE = {"WWW-Authenticate": 'Bearer realm="canvas-lms"'}


class Refusal(Exception):
    """Ends the handling of a request with `status` and the JSON `body`; nothing was changed."""

    def __init__(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.body = body
        self.headers = headers or {}


def not_found() -> Refusal:
    """Any failed lookup; the body does not say what was missing."""
    return Refusal(404, {"errors": [{"message": "The specified resource does not exist."}]})


def message(*texts: str) -> Refusal:
    """400 with the texts joined, as the enrollment checks do."""
    return Refusal(400, {"message": ", ".join(texts)})


def error(text: str) -> Refusal:
    """400 as reactivate, accept and reject do."""
    return Refusal(400, {"error": text})


def bad_request() -> Refusal:
    """400 from a parameter the framework itself refuses."""
    return Refusal(400, {"errors": [{"message": "An error occurred.", "error_code": "bad_request"}]})


def invalid(attribute: str, text: str, kind: str | None = None) -> Refusal:
    """400 from a model's validation; one that gives only a text has that for a type, too
    (``config/initializers/active_model_errors.rb#format_error_message``)."""
    return Refusal(400, {"errors": {attribute: [{"attribute": attribute, "type": kind or text, "message": text}]}})


def sis_id_taken(sis_id: str) -> Refusal:
    """400 in the words that courses, sections, terms and accounts share. Only logins say that the type is ``taken``."""
    return invalid("sis_source_id", f'SIS ID "{sis_id}" is already in use')


def insufficient_scopes() -> Refusal:
    """401 for an endpoint that a scoped developer key leaves out; without a challenge (``application_controller.rb``)."""
    return Refusal(401, {"errors": [{"message": "Insufficient scopes on access token."}]})


def crash() -> Refusal:
    """500 as the real thing answers to an exception nobody caught."""
    body = {"errors": [{"message": "An error occurred.", "error_code": "internal_server_error"}], "error_report_id": 1}
    return Refusal(500, body)


def no_manage_sis() -> Refusal:
    """401, even where other refusals are 403 (``app/controllers/sections_controller.rb#update``)."""
    return Refusal(401, {"message": "You must have manage_sis permission to update sis attributes"})


def unauthenticated(text: str | None = None) -> Refusal:
    """401: with `text` the token is bad, without one there was none."""
    if text:
        return Refusal(401, {"errors": [{"message": text}]}, CHALLENGE)
    return Refusal(401, {"status": "unauthenticated", "errors": [{"message": "user authorization required"}]}, CHALLENGE)


def unauthorized(status: int) -> Refusal:
    """Authenticated, but not allowed: 403, or 401 where the feature ``api_auth_error_updates`` is off."""
    return Refusal(status, {"status": "unauthorized", "errors": [{"message": "user not authorized to perform that action"}]})
