"""From an HTTP answer to what it means: pure, one function, every status.

Bodies and statuses: ``lib/authentication_methods.rb``, ``app/controllers/enrollments_api_controller.rb``,
``app/middleware/request_throttle.rb``, ``config/initializers/active_model_errors.rb``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from services.consumer.targets.port import (
    Concluded,
    Failure,
    NoPermission,
    Refused,
    ServerFault,
    Throttled,
    Unknown,
    Usage,
    WrongShape,
)

_COST, _REMAINING = "x-request-cost", "x-rate-limit-remaining"
_OURS_TO_FIX = {  # the beginning of Canvas's message -> our code; everything else is "other"
    "Invalid role": "invalid_role",
    "Invalid type": "invalid_type",
    "Cannot create an enrollment with this role": "inactive_role",
    "The specified type must match": "role_type_mismatch",
    "Can't create an enrollment without a user": "no_user",
    "enrollment not inactive": "not_inactive",
}
_TAKEN = {"unique_id": "login_taken", "sis_user_id": "sis_id_taken", "sis_source_id": "sis_id_taken"}
_GAVE_UP = frozenset({408, 499, 502, 504, *range(520, 528)})
"""A proxy's words for "no answer in time"; 52x are those of a large content network."""
_REFUSAL = b"Rate Limit Exceeded"
_OUT_OF_SCOPE = "Insufficient scopes on access token."
_CONCLUDED = "Can't add an enrollment to a concluded course"


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete HTTP answer. Headers are looked up in lower case, whatever they were sent in."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """No complete answer came."""

    code: str
    """``timeout``, ``connection`` or ``late``; ``no_address`` (its name means nothing), ``certificate`` (it cannot prove who it
    is) or otherwise ``unreachable``."""
    sent: bool
    """False only if the request certainly never left: no connection could be made, or its time was over."""


@dataclass(frozen=True, slots=True)
class Payload:
    """A 200 with a JSON document; what it says has still to be checked."""

    value: Any
    next_page: str | None = None


@dataclass(frozen=True, slots=True)
class NotFound:
    """Canvas's own 404: some object of the request is missing, it does not say which."""


def usage_of(answer: Answer | NoAnswer) -> Usage:
    """What one request cost; a refused one has no cost header."""
    if isinstance(answer, NoAnswer):
        return Usage(calls=1)
    return Usage(1, _number(answer.headers.get(_COST)), _number(answer.headers.get(_REMAINING)))


def classify(answer: Answer | NoAnswer, *, changes: bool) -> Payload | NotFound | Failure:  # noqa: PLR0911  (one a status)
    """What `answer` means for a request that `changes` something, or only reads."""
    if isinstance(answer, NoAnswer):
        return Unknown(answer.code) if changes and answer.sent else ServerFault(answer.code)
    body = _json(answer)
    match answer.status:
        case 429:
            return Throttled()
        case 403 if body is None and _REFUSAL in answer.body:
            return Throttled()  # text; a permission error is JSON
        case 403 if body is None:
            # A firewall's page, perhaps about this one request: were it a refusal, one such seat would stop the token for ever.
            return WrongShape("forbidden_page")
        case status if changes and status in _GAVE_UP:
            return Unknown(f"http_{status}")  # a gateway gave up waiting; Canvas may still be at it
        case status if status >= 500:
            return ServerFault(f"http_{status}")
        case status if 300 <= status < 400:
            return WrongShape("redirect")
    if body is None:
        return WrongShape("empty" if not answer.body else "not_json")
    return _of_json(answer, body)


def _of_json(answer: Answer, body: Any) -> Payload | NotFound | Failure:
    match answer.status:
        case 200:
            return Payload(body, _next_page(answer.headers.get("link", "")))
        case 401 | 403:
            return NoPermission(_concerns_the_token(answer, body))
        case 404:
            return NotFound() if isinstance(body, dict) and "errors" in body else WrongShape("foreign_404")
        case 400 | 409 | 422:
            return _refusal(body)
        case status:
            return WrongShape(f"http_{status}")


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _json(answer: Answer) -> Any | None:
    """The document, None unless it is declared as JSON and is JSON."""
    if answer.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        return None
    try:
        return orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return None


def _concerns_the_token(answer: Answer, body: Any) -> bool:
    """A bad token is 401 with a challenge. Without one it may be about this request alone: not allowed, with a ``status`` in the
    token's language (``lib/authentication_methods.rb``), or outside of its scopes (``application_controller.rb``)."""
    if answer.status != 401 or "www-authenticate" in answer.headers or not isinstance(body, dict):
        return answer.status == 401
    errors = body.get("errors")
    out_of_scope = isinstance(errors, list) and {"message": _OUT_OF_SCOPE} in errors
    return not out_of_scope and body.get("status") in (None, "unauthenticated")


def _refusal(body: Any) -> Failure:
    texts = [str(body[name]) for name in ("message", "error") if name in body] if isinstance(body, dict) else []
    if any(text.startswith(_CONCLUDED) for text in texts):
        return Concluded()
    for text in texts:
        for beginning, code in _OURS_TO_FIX.items():
            if text.startswith(beginning):
                return Refused(code)
    if not isinstance(body, dict) or "errors" not in body:
        return Refused("other")
    taken = _taken(body["errors"])
    return Refused("validation" if taken is None else _TAKEN.get(taken, "taken"))


def _taken(errors: Any) -> str | None:
    """The attribute whose value belongs to somebody else; new users nest the errors of each of their parts."""
    if isinstance(errors, dict) and _says_taken(errors):
        return str(errors.get("attribute"))
    below = errors.values() if isinstance(errors, dict) else errors if isinstance(errors, list) else ()
    return next((found for found in map(_taken, below) if found is not None), None)


def _says_taken(error: Mapping[str, Any]) -> bool:
    """Only logins say so by the type. What is wrong with the SIS id of a term, course or section is one word, or a sentence in
    the token's language that it is in use (``verify_unique_sis_source_id`` of each model)."""
    kind = error.get("type")
    in_words = isinstance(kind, str) and not kind.isidentifier()
    return kind == "taken" or (error.get("attribute") == "sis_source_id" and in_words)


def _next_page(link: str) -> str | None:
    """The address with ``rel="next"`` of a Link header (RFC 8288, as ``lib/api.rb`` writes it)."""
    for part in link.split(","):
        address, _, parameters = part.partition(";")
        if 'rel="next"' in parameters:
            return address.strip().removeprefix("<").removesuffix(">")
    return None
