"""What decodes can be stored: a record that the database refuses would stop its partition instead of itself."""

from __future__ import annotations

import json

import orjson
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from schemas.codec import UndecodableEvent, decode
from services.kit.postgres import text_array
from tests.unit.schemas.factories import FIELDS

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
PRODUCED = orjson.dumps(FIELDS)[:-1]


def stored(url: str, value: bytes) -> None:
    with psycopg.connect(url) as connection:
        connection.execute("select event from unnest(%s::jsonb[]) as event", [text_array([value.decode()])])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(person=st.text(min_size=1, max_size=10), new=values)
def test_every_event_that_decodes_fits_into_jsonb(database_url: str, person: str, new: object) -> None:
    value = json.dumps(FIELDS | {"person": person, "new": new}).encode()
    try:
        decode("enrollment", value)
    except UndecodableEvent:
        return
    stored(database_url, value)


@pytest.mark.parametrize("number", ["1e300", "-0.0", "1E-300", "0." + "1" * 300, "1" * 300])
def test_extreme_numbers_that_decode_fit(database_url: str, number: str) -> None:
    value = PRODUCED + f',"new":{number}}}'.encode()
    assert decode("enrollment", value)
    stored(database_url, value)
