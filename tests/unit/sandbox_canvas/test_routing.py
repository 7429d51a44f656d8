"""Paths and parameters as Rails reads them."""

from __future__ import annotations

import pytest

from services.sandbox.canvas.call import Answer, Call
from services.sandbox.canvas.errors import Refusal
from services.sandbox.canvas.parameters import boolean, merged, moment, nested, texts
from services.sandbox.canvas.routing import Route, Router


def handler(_call: Call) -> Answer:
    return Answer(None)


ROUTER = Router(
    [
        Route("GET", "sections/:section/enrollments", "enrollments.list", handler),
        Route("GET", "sections/:section", "sections.get", handler),
    ]
)


@pytest.mark.parametrize(
    ("raw_path", "section"),
    [
        ("/api/v1/sections/17/enrollments", "17"),
        ("/api/v1/sections/sis_section_id:S-1/enrollments", "sis_section_id:S-1"),
        ("/api/v1/sections/sis_section_id:a%2Fb%3F%20c.d/enrollments", "sis_section_id:a/b? c.d"),
        ("/api/v1/sections/sis_section_id:%C3%A9/enrollments", "sis_section_id:é"),
        ("/api/v1/sections/sis_section_id:S-1.json", "sis_section_id:S-1"),
        ("/api/v1/sections/sis_section_id:S-1.json/enrollments", None),
        ("/api/v1/sections/sis_section_id:a/b/enrollments", None),
        ("/api/v1/sections//enrollments", None),
        ("/api/v2/sections/17", None),
        ("/sections/17", None),
    ],
)
def test_a_path_means_a_route_and_its_decoded_ids(raw_path: str, section: str | None) -> None:
    match = ROUTER.match("GET", raw_path)
    assert (match.path["section"] if match else None) == section


def test_another_method_is_another_route() -> None:
    assert ROUTER.match("POST", "/api/v1/sections/17") is None


def test_brackets_make_a_tree() -> None:
    pairs = [
        ("enrollment[user_id]", "1"),
        ("state[]", "a"),
        ("state[]", "b"),
        ("a[b][c]", "2"),
        ("a[b][d][]", "3"),
        ("plain", "4"),
    ]
    assert nested(pairs) == {
        "enrollment": {"user_id": "1"},
        "state": ["a", "b"],
        "a": {"b": {"c": "2", "d": ["3"]}},
        "plain": "4",
    }


def test_form_and_json_bodies_read_alike() -> None:
    form = merged([], "application/x-www-form-urlencoded", b"enrollment%5Buser_id%5D=1&enrollment[notify]=false")
    json = merged([], "application/json; charset=utf-8", b'{"enrollment": {"user_id": "1", "notify": "false"}}')
    assert form == json == {"enrollment": {"user_id": "1", "notify": "false"}}


def test_broken_json_is_a_bad_request() -> None:
    with pytest.raises(Refusal) as caught:
        merged([], "application/json", b'{"enrollment":')
    assert caught.value.status == 400


@pytest.mark.parametrize("body", [{}, {"state": "x"}, {"state": ["x", "y"]}])
def test_one_value_and_many_read_alike(body: dict[str, object]) -> None:
    assert texts(body, "state") == (["x"] if body.get("state") == "x" else body.get("state", []))


@pytest.mark.parametrize(
    ("value", "truth"),
    [(None, False), ("", False), ("0", False), ("false", False), (False, False), ("True", True), ("on", True), (True, True)],
)
def test_booleans_come_in_many_words(value: object, truth: bool) -> None:
    assert boolean(value) is truth


def test_a_date_without_a_zone_is_utc_and_nonsense_is_none() -> None:
    assert moment("2026-01-31T08:00:00") == moment("2026-01-31T09:00:00+01:00")
    assert moment("yesterday") is None
