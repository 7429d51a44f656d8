"""Writers are closed, readers are open, and broken is told apart from newer."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import InvalidEvent, NewerEvent, UndecodableEvent, build, compose, content_hash, decode, encode, state
from tests.unit.schemas.factories import FIELDS, enrollment

storable = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


def changed(**fields: Any) -> bytes:
    return orjson.dumps(FIELDS | fields)


@given(storable, storable, st.dictionaries(storable, storable))
def test_what_is_written_is_read_back(person: str, section: str, codes: dict[str, str]) -> None:
    event = enrollment(person=person, section=section, codes=codes)
    assert decode("enrollment", encode(event)) == event


@given(storable, st.dictionaries(storable, storable), st.datetimes(timezones=st.just(UTC)), st.booleans())
def test_composing_an_event_makes_the_bytes_that_encoding_it_does(
    person: str, codes: dict[str, str], accepted_at: datetime, snapshot: bool
) -> None:
    order = {"channel": "ib:SIS", "position": 1, "as_of_from": accepted_at, "snapshot": snapshot}
    source_row = {"record": "STDNT_ENRL", "key": {"EMPLID": person}, "values": codes, "order": order}
    event = enrollment(
        person=person, codes=codes, accepted_at=accepted_at, effective_date=date(2027, 1, 4), source_rows=[source_row]
    )
    assert compose("enrollment", event.model_dump(exclude_none=True)) == encode(event)


def test_what_is_composed_is_checked() -> None:
    with pytest.raises(InvalidEvent, match="nickname"):
        compose("enrollment", FIELDS | {"nickname": "x"})
    with pytest.raises(InvalidEvent, match="status"):
        compose("enrollment", FIELDS | {"status": "vanished"})


def test_equal_events_have_equal_bytes() -> None:
    assert encode(enrollment(codes={"a": "1", "b": "2"})) == encode(enrollment(codes={"b": "2", "a": "1"}))


def test_absent_values_are_left_out_rather_than_null() -> None:
    assert b"null" not in encode(enrollment())


def test_a_writer_may_not_add_a_field() -> None:
    with pytest.raises(InvalidEvent, match="nickname"):
        build("enrollment", FIELDS | {"nickname": "x"})


def test_a_writer_may_not_add_a_field_further_down() -> None:
    order = {"channel": "c", "sequence": 1}
    with pytest.raises(InvalidEvent, match="source_rows"):
        build("enrollment", FIELDS | {"source_rows": [{"record": "R", "key": {}, "values": {}, "order": order}]})


def test_an_event_that_bypassed_validation_is_not_written() -> None:
    with pytest.raises(InvalidEvent, match="status"):
        encode(enrollment().model_copy(update={"status": "vanished"}))


def test_a_reader_ignores_a_field_it_does_not_know() -> None:
    order = {"channel": "c", "sequence": 1}
    row = {"record": "R", "key": {}, "values": {}, "order": order, "hint": []}
    event = decode("enrollment", changed(grading_basis={"deep": [1]}, source_rows=[row]))
    assert event.version == FIELDS["version"]
    assert b"grading_basis" not in encode(event)
    assert b"sequence" not in encode(event)


def test_a_word_that_only_a_newer_reader_knows_is_parked() -> None:
    with pytest.raises(NewerEvent) as caught:
        decode("enrollment", changed(status="audited", role="mentor"))
    assert caught.value.field == "role, status"


@pytest.mark.parametrize("value", [None, 7, ["enrolled"], True])
def test_something_else_than_a_word_is_broken_not_new(value: object) -> None:
    with pytest.raises(UndecodableEvent) as caught:
        decode("enrollment", changed(status=value))
    assert caught.value.reason == "schema_invalid"


def test_a_new_word_beside_a_broken_field_is_broken() -> None:
    with pytest.raises(UndecodableEvent):
        decode("enrollment", changed(status="audited", version=0))


@pytest.mark.parametrize(
    "fields",
    [
        {"person": 90001},
        {"person": ""},
        {"person": "x" * 256},
        {"person": "9\0"},
        {"codes": {"\0": "x"}},
        {"version": "7"},
        {"version": -1},
        {"version": 2**63},
        {"version": 1.5},
        {"content_hash": "F" * 32},
        {"accepted_at": "2026-09-14T14:42:01"},
        {"accepted_at": 1_789_396_921},
        {"effective_date": "2026-09-31"},
        {"person": "\U0001f393" * 250},
        {"source_rows": [{}]},
    ],
)
def test_a_value_outside_the_contract_is_undecodable(fields: dict[str, Any]) -> None:
    with pytest.raises(UndecodableEvent) as caught:
        decode("enrollment", changed(**fields))
    assert caught.value.reason == "schema_invalid"


@pytest.mark.parametrize("value", [b"", b"{", b"\xff\xfe", b"\x00\x00\x00\x00\x01{}", b'{"tenant":"\\ud800"}', b"[" * 100_000])
def test_bytes_that_are_not_json_are_undecodable(value: bytes) -> None:
    with pytest.raises(UndecodableEvent) as caught:
        decode("enrollment", value)
    assert caught.value.reason == "not_json"


@pytest.mark.parametrize(
    "unknown", [b"NaN", b"-Infinity", b"1e400", b'"\\ud800"', b'"\\u0000"', b'"\\\\\\u0000"', b'{"\\u0000":1}']
)
def test_an_unknown_field_is_ignored_only_if_a_database_can_hold_it(unknown: bytes) -> None:
    """Readers keep the whole value; one that jsonb refuses would stop the partition instead of itself."""
    with pytest.raises(UndecodableEvent):
        decode("enrollment", orjson.dumps(FIELDS)[:-1] + b',"new":' + unknown + b"}")


def test_the_text_backslash_u0000_is_no_nul() -> None:
    assert decode("enrollment", changed(codes={"reason": "\\u0000"}, new="\\u0000"))


@given(st.binary())
def test_no_bytes_raise_anything_else(value: bytes) -> None:
    with pytest.raises((UndecodableEvent, NewerEvent)):
        decode("person", value)


def test_a_tombstone_is_told_apart() -> None:
    with pytest.raises(UndecodableEvent) as caught:
        decode("person", None)
    assert caught.value.reason == "tombstone"


def test_errors_quote_no_data() -> None:
    with pytest.raises(UndecodableEvent) as caught:
        decode("enrollment", changed(person=["0090001"], codes={"0090001": 1}))
    assert "0090001" not in str(caught.value)
    with pytest.raises(InvalidEvent) as refused:
        build("enrollment", FIELDS | {"person": ["0090001"]})
    assert "0090001" not in str(refused.value)


def test_the_hash_ignores_version_times_and_rows() -> None:
    one = enrollment()
    other = enrollment(version=9, accepted_at="2027-01-01T00:00:00Z", occurred_at="2027-01-01T00:00:00Z")
    assert content_hash(state(one)) == content_hash(state(other))


@pytest.mark.parametrize("field", sorted(state(enrollment(effective_date="2026-09-14", codes={"a": "b"}))))
def test_the_hash_sees_every_field_of_the_state(field: str) -> None:
    said = state(enrollment(effective_date="2026-09-14", codes={"a": "b"}))
    assert content_hash(said | {field: "something else"}) != content_hash(said)


@given(st.permutations(["a", "b", "c"]))
def test_the_hash_does_not_depend_on_order(names: list[str]) -> None:
    assert content_hash({name: {"x": name, "w": 1} for name in names}) == content_hash({n: {"w": 1, "x": n} for n in "abc"})


def test_the_hash_does_not_tell_absent_none_and_empty_apart() -> None:
    assert content_hash({"a": "1"}) == content_hash({"a": "1", "b": None, "codes": {}})
    assert content_hash({"a": ""}) != content_hash({})


def test_not_a_number_is_no_position() -> None:
    row = {"record": "R", "key": {}, "values": {}, "order": {"channel": "c", "position": math.nan}}
    with pytest.raises(InvalidEvent):
        build("enrollment", FIELDS | {"source_rows": [row]})
