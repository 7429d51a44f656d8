"""Array literals say in PostgreSQL what they said in Python, whatever their texts hold."""

from __future__ import annotations

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.kit.postgres import text_array

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)
awkward = st.sampled_from(["", '"', "\\", '\\"', ",", "{", "}", "NULL", " ", '","'])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(texts | awkward | st.none(), max_size=6))
def test_an_array_comes_back_as_it_went(database_url: str, values: list[str | None]) -> None:
    with psycopg.connect(database_url) as connection:
        assert connection.execute("select %s::text[]", [text_array(values)]).fetchone() == (values,)


@pytest.mark.parametrize("values", [["a\0b"], ["a", "b\0"], ["\0", None]])
def test_a_text_that_cannot_be_stored_is_refused_before_it_shifts_the_others(values: list[str | None]) -> None:
    with pytest.raises(psycopg.DataError):
        text_array(values)
