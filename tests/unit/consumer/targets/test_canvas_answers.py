"""What each answer of Canvas means; bodies as Canvas writes them."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.consumer.targets.canvas.addressing import by_sis_id
from services.consumer.targets.canvas.answers import Answer, NoAnswer, NotFound, Payload, classify, usage_of
from services.consumer.targets.canvas.rows import Row
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

JSON = {"content-type": "application/json; charset=utf-8", "x-request-cost": "0.1", "x-rate-limit-remaining": "599.9"}
TEXT = {"content-type": "text/plain"}
HTML = {"content-type": "text/html; charset=utf-8", "x-request-cost": "0.1"}
CHALLENGED = JSON | {"www-authenticate": 'Bearer realm="canvas-lms"'}
SCOPES = "Insufficient scopes on access token."
NOT_ALLOWED = {"status": "unauthorized", "errors": [{"message": "user not authorized to perform that action"}]}


def answer(status: int, body: object, headers: dict[str, str] | None = None) -> Answer:
    return Answer(status, headers or JSON, body if isinstance(body, bytes) else orjson.dumps(body))


TAKEN = {"unique_id": [{"attribute": "unique_id", "type": "taken", "message": "in use"}]}
IN_USE = 'La SIS ID "S-1" ya est\u00e1 en uso'
ID_TAKEN = [{"attribute": "sis_user_id", "type": "taken", "message": IN_USE}]
ID_TOO_LONG = [{"attribute": "sis_source_id", "type": "too_long", "message": "too_long"}]
TABLE: list[tuple[str, Answer | NoAnswer, Payload | NotFound | Failure]] = [
    ("done", answer(200, {"id": 1}), Payload({"id": 1})),
    ("empty list", answer(200, []), Payload([])),
    ("maintenance page", answer(200, b"<html>", HTML), WrongShape("not_json")),
    ("login after single sign-on", answer(302, b"", {"location": "https://login.example.edu"}), WrongShape("redirect")),
    ("empty body", answer(200, b""), WrongShape("empty")),
    ("half a document", answer(200, b'{"id": 1, "user'), WrongShape("not_json")),
    ("json that is not declared", answer(200, {"id": 1}, TEXT), WrongShape("not_json")),
    ("created, which Canvas never says", answer(201, {"id": 1}), WrongShape("http_201")),
    ("missing", answer(404, {"errors": [{"message": "The specified resource does not exist."}]}), NotFound()),
    ("a proxy's 404", answer(404, b"<html>", HTML), WrongShape("not_json")),
    ("somebody's 404", answer(404, {"detail": "no"}), WrongShape("foreign_404")),
    ("throttled 403", answer(403, b"403 Forbidden (Rate Limit Exceeded)\n", TEXT), Throttled()),
    ("throttled 429", answer(429, b"429 Too Many Requests (Rate Limit Exceeded)\n", TEXT), Throttled()),
    ("a firewall's page", answer(403, b"<html>Request blocked", HTML), WrongShape("forbidden_page")),
    ("a bare 403", answer(403, b"", TEXT), WrongShape("forbidden_page")),
    ("throttled in json", answer(429, {"errors": []}), Throttled()),
    ("not allowed", answer(403, NOT_ALLOWED), NoPermission(whole_token=False)),
    ("not allowed, older", answer(401, NOT_ALLOWED), NoPermission(whole_token=False)),
    (
        "not allowed, in the token's language",
        answer(401, NOT_ALLOWED | {"status": "no autorizado"}),
        NoPermission(whole_token=False),
    ),
    ("out of scope", answer(401, {"errors": [{"message": SCOPES}]}), NoPermission(whole_token=False)),
    ("challenged in another language", answer(401, {"status": "?", "errors": []}, CHALLENGED), NoPermission(whole_token=True)),
    ("somebody's 401", answer(401, {"detail": "no"}), NoPermission(whole_token=True)),
    ("bad token", answer(401, {"errors": [{"message": "Invalid access token."}]}), NoPermission(whole_token=True)),
    ("no login", answer(401, {"status": "unauthenticated", "errors": []}), NoPermission(whole_token=True)),
    ("concluded", answer(400, {"message": "Can't add an enrollment to a concluded course."}), Concluded()),
    ("role gone", answer(400, {"message": "Invalid role"}), Refused("invalid_role")),
    ("validation", answer(400, {"errors": {"user_id": [{"attribute": "user_id", "message": "x"}]}}), Refused("validation")),
    ("login taken", answer(400, {"errors": {"user": {}, "pseudonym": TAKEN}}), Refused("login_taken")),
    (
        "id taken",
        answer(400, {"errors": {"sis_source_id": [{"attribute": "sis_source_id", "type": IN_USE}]}}),
        Refused("sis_id_taken"),
    ),
    ("id of a login taken", answer(400, {"errors": {"sis_user_id": ID_TAKEN}}), Refused("sis_id_taken")),
    ("id too long", answer(400, {"errors": {"sis_source_id": ID_TOO_LONG}}), Refused("validation")),
    ("not inactive", answer(400, {"error": "enrollment not inactive"}), Refused("not_inactive")),
    ("some other 400", answer(400, {"message": "?"}), Refused("other")),
    ("crash", answer(500, {"errors": []}), ServerFault("http_500")),
    ("away", answer(503, b"", TEXT), ServerFault("http_503")),
    ("no connection", NoAnswer("unreachable", sent=False), ServerFault("unreachable")),
]


@pytest.mark.parametrize(("given_", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
@pytest.mark.parametrize("changes", [True, False], ids=["change", "read"])
def test_an_answer_has_one_meaning(given_: Answer | NoAnswer, expected: object, changes: bool) -> None:
    assert classify(given_, changes=changes) == expected


@pytest.mark.parametrize(
    "lost",
    [
        NoAnswer("timeout", sent=True),
        NoAnswer("connection", sent=True),
        answer(502, b"", TEXT),
        answer(504, b"", HTML),
        answer(524, b"", HTML),
    ],
)
def test_a_lost_answer_leaves_a_change_unknown_and_fails_a_read(lost: Answer | NoAnswer) -> None:
    assert isinstance(classify(lost, changes=True), Unknown)
    assert isinstance(classify(lost, changes=False), ServerFault)


@given(st.integers(200, 599), st.binary(max_size=40), st.sampled_from([JSON, TEXT, HTML, {}]), st.booleans())
def test_no_answer_whatsoever_breaks_the_reading_and_only_json_in_a_200_is_taken(
    status: int, body: bytes, headers: dict[str, str], changes: bool
) -> None:
    meaning = classify(Answer(status, headers, body), changes=changes)
    assert not isinstance(meaning, Payload) or (status == 200 and headers is JSON)


def test_costs_are_read_from_the_headers_and_absent_on_a_refusal() -> None:
    assert usage_of(answer(200, [])) == Usage(1, 0.1, 599.9)
    assert usage_of(answer(403, b"", {"x-rate-limit-remaining": "13.67"})) == Usage(1, None, 13.67)
    assert usage_of(answer(403, b"", {"x-rate-limit-remaining": "much"})) == Usage(1, None, None)
    assert usage_of(answer(403, b"", {"x-rate-limit-remaining": "inf"})) == Usage(1, None, None)


def test_the_next_page_is_the_link_that_says_so() -> None:
    link = '<https://c/api/v1/x?page=first>; rel="current",<https://c/api/v1/x?page=bookmark:a>; rel="next"'
    page = classify(answer(200, [], JSON | {"link": link}), changes=False)
    assert isinstance(page, Payload)
    assert page.next_page == "https://c/api/v1/x?page=bookmark:a"


def test_an_odd_sis_id_is_addressed_in_hexadecimal() -> None:
    assert by_sis_id("user", "0012_a-B") == "sis_user_id:0012_a-B"
    assert by_sis_id("section", "A/1") == "hex:sis_section_id:412f31"


@given(st.text(min_size=1))
def test_an_address_needs_no_escaping_and_loses_nothing(sis_id: str) -> None:
    address = by_sis_id("user", sis_id)
    form, _, value = address.rpartition(":")
    assert address.isascii()
    assert not set(address) & set("/?#.% ")
    assert (bytes.fromhex(value).decode() if form.startswith("hex:") else value) == sis_id


@pytest.mark.parametrize("value", [None, [], "x", 1, {}, {"id": 1}, {"id": 1, "user_id": 2, "course_id": 3}])
def test_what_is_not_an_enrollment_is_not_read_as_one(value: object) -> None:
    assert Row.parse(value) is None
