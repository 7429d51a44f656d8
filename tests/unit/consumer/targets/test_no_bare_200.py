"""No status confirms anything: whatever Canvas's body is turned into, only one that says what was asked counts."""

from __future__ import annotations

import asyncio
import copy
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from services.consumer.nouns import Seat
from services.consumer.targets.canvas.client import CanvasClient
from services.consumer.targets.canvas.target import CanvasTarget
from services.consumer.targets.port import Done, Observation, Presence
from services.kit.credentials import SecretFile
from tests.httpx_wire import HttpxWire

SEAT = Seat("canvas", "main", "p1", "U/1/S-1", None, "S-1", "p1", "StudentEnrollment", "StudentEnrollment")
ROW: dict[str, Any] = {
    "id": 5,
    "user_id": 11,
    "course_id": 3,
    "course_section_id": 22,
    "type": "StudentEnrollment",
    "role": "StudentEnrollment",
    "enrollment_state": "active",
    "associated_user_id": None,
    "sis_user_id": "p1",
    "sis_section_id": "S-1",
    "sis_import_id": None,
}
OBJECTS = {"/api/v1/users/sis_user_id:p1": 11, "/api/v1/sections/sis_section_id:S-1": 22}

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(0, 30)
    | st.sampled_from(["", "p1", "p2", "S-1", "S-2", "active", "deleted", "5", "11"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(sorted(ROW)), inner, max_size=3),
    max_leaves=4,
)


@st.composite
def mutations(draw: st.DrawFn) -> Callable[[Any], bytes]:
    """A way to change a document: fields dropped or replaced, the whole replaced, wrapped or cut off. Who and where are told by
    two fields each, so these are often changed together."""
    together = st.sampled_from([("user_id", "sis_user_id"), ("course_section_id", "sis_section_id"), ("type", "role")])
    fields = [draw(together | st.tuples(st.sampled_from(sorted(ROW)))) for _ in range(draw(st.integers(0, 2)))]
    edits = [(field, draw(st.just(...) | json_values)) for several in fields for field in several]
    shape = draw(st.sampled_from(["kept", "kept", "kept", "kept", "listed", "nested", "replaced", "cut"]))
    other, cut = draw(json_values), draw(st.integers(0, 400))

    def mutate(document: Any) -> bytes:
        changed = copy.deepcopy(document)
        row = changed[0] if isinstance(changed, list) else changed
        for field, value in edits:
            row.pop(field, None) if value is ... else row.__setitem__(field, value)
        body = {"listed": [changed], "nested": {"enrollment": changed}, "replaced": other}.get(shape, changed)
        text = orjson.dumps(body)
        return text[:cut] if shape == "cut" else text

    return mutate


def shows(row: Any, state: str) -> bool:
    """Whether a row is about our person, section and role, in this state. Written apart from the code under test."""
    if not isinstance(row, dict) or any(name not in row for name in ("id", "user_id", "course_id", "course_section_id")):
        return False
    person = row.get("sis_user_id") == "p1" or str(row["user_id"]) == "11"
    section = row.get("sis_section_id") == "S-1" or str(row["course_section_id"]) == "22"
    role = (row.get("type"), row.get("role"), row.get("associated_user_id")) == ("StudentEnrollment", "StudentEnrollment", None)
    return person and section and role and row.get("enrollment_state") == state


def parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


def answered(body: bytes, ask: Callable[[CanvasTarget], Any]) -> Any:
    """What the target makes of this body, sent with status 200; objects that it looks up are as they should be."""

    def handle(request: httpx.Request) -> httpx.Response:
        found = OBJECTS.get(request.url.path)
        content = body if found is None else orjson.dumps({"id": found})
        return httpx.Response(200, content=content, headers={"content-type": "application/json"})

    async def run() -> Any:
        with tempfile.NamedTemporaryFile("w") as token:
            token.write("secret")
            token.flush()
            client = CanvasClient("https://canvas.test", SecretFile(Path(token.name)), HttpxWire(httpx.MockTransport(handle)))
            target = CanvasTarget(client, "self", 5)
            try:
                return await ask(target)
            finally:
                await target.close()

    return asyncio.run(run())


def test_the_unchanged_bodies_do_confirm() -> None:
    """Or else the properties below would hold of a target that confirms nothing."""
    active, gone = orjson.dumps(ROW), orjson.dumps(ROW | {"enrollment_state": "deleted"})
    assert isinstance(answered(active, lambda it: it.write(SEAT, "active", Observation("absent"))), Done)
    assert isinstance(answered(gone, lambda it: it.write(SEAT, "deleted", Observation("active", "5", "3"))), Done)
    assert answered(orjson.dumps([ROW]), lambda it: it.read(SEAT)) == Observation("active", "5", "3")


@settings(max_examples=150, deadline=None)
@given(mutations())
def test_an_add_is_done_only_if_the_body_shows_it(mutate: Callable[[Any], bytes]) -> None:
    body = mutate(ROW)
    outcome = answered(body, lambda it: it.write(SEAT, "active", Observation("absent")))
    if isinstance(outcome, Done) and outcome.observation.state == "active":
        assert shows(parsed(body), "active")


@settings(max_examples=150, deadline=None)
@given(mutations())
def test_a_removal_is_done_only_if_the_body_shows_the_same_row_gone(mutate: Callable[[Any], bytes]) -> None:
    body = mutate(ROW | {"enrollment_state": "deleted"})
    outcome = answered(body, lambda it: it.write(SEAT, "deleted", Observation("active", "5", "3")))
    if isinstance(outcome, Done) and outcome.observation.state in ("deleted", "absent"):
        assert shows(parsed(body), "deleted")
        assert str(parsed(body)["id"]) == "5"


@settings(max_examples=150, deadline=None)
@given(mutations())
def test_a_read_believes_only_rows_of_the_seat_and_misses_none(mutate: Callable[[Any], bytes]) -> None:
    body = mutate([ROW])
    seen = answered(body, lambda it: it.read(SEAT))
    rows = parsed(body)
    if isinstance(seen, Observation) and seen.state == "absent":
        assert isinstance(rows, list)
        assert not any(shows(row, "active") for row in rows)
    elif isinstance(seen, Observation) and seen.state == "active":
        assert any(shows(row, "active") for row in rows)


@settings(max_examples=60, deadline=None)
@given(json_values)
def test_an_object_is_there_only_if_the_body_is_one(value: Any) -> None:
    found = answered(orjson.dumps(value), lambda it: it.probe("user", "somebody"))
    if isinstance(found, Presence):
        assert found.exists
        assert "id" in value
