"""Whatever arrives: a reading or a reject, never an exception; and what was written is read back."""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from services.publisher.translate.canonical import CanonicalContext, Problems
from services.publisher.translate.canonical import translate as translate_canonical
from services.publisher.translate.peoplesoft import translate
from services.publisher.translate.records import STDNT_ENRL
from tests.unit.publisher.rowsets import CONTEXT, HEADERS, NOW, enrollment, message, read, record, school_class

GOOD = message(
    record("STDNT_ENRL", enrollment(GRADING_BASIS_ENRL="AUD")),
    record("CLASS_TBL", school_class(), "C", record("CLASS_INSTR", {"EMPLID": "1"})),
)
CANONICAL = CanonicalContext("main", "events:test", NOW)
_PIECES = rb"""
<X> </X> <MsgData> </MsgData> <Transaction> </Transaction> <![CDATA[ ]]> <A\tclass="R"> </A> <!DOCTYPE\tX> &amp; &x; text
<PSCAMA/> <IBRequest> </IBRequest> <STDNT_ENRL/> <CLASS_INSTR/>
<?xml\tversion="1.0"\tencoding="utf-7"?> <?xml\tversion="1.0"\tencoding="hex"?>
"""
pieces = st.sampled_from([*(piece.replace(b"\\t", b" ") for piece in _PIECES.split()), b"\xef\xbb\xbf", b"\xff\xfe", b"\0"])
headers = st.fixed_dictionaries(
    {},
    optional={
        "content-type": st.text(max_size=40)
        | st.sampled_from(["text/xml; charset=utf-7", "text/xml; charset=hex", "a; charset*=x''y"]),
        "content-encoding": st.text(max_size=10),
        "origtimestamp": st.text(max_size=40) | st.datetimes(timezones=st.timezones()).map(str),
        "from": st.text(max_size=10),
        "operationtype": st.sampled_from(["async", "sync", ""]),
        "datachunkcount": st.text(max_size=3),
    },
)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200) | st.lists(pieces, max_size=30).map(b"".join), headers)
def test_any_bytes_give_a_reading_or_a_reject(body: bytes, headers: dict[str, str]) -> None:
    translate(body, headers, CONTEXT)


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(GOOD)), st.integers(0, 40), st.binary(max_size=8))
def test_a_damaged_message_gives_a_reading_or_a_reject(start: int, length: int, replacement: bytes) -> None:
    translate(GOOD[:start] + replacement + GOOD[start + length :], HEADERS, CONTEXT)


xml_text = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Cn", "Co", "Zl", "Zp"]), min_size=1, max_size=12)
ids = xml_text.map(str.rstrip).filter(bool)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(ids, st.sampled_from("EDW"), st.integers(1, 99999)), max_size=8))
def test_generated_rows_are_read_back(rows: list[tuple[str, str, int]]) -> None:
    fields = [enrollment(EMPLID=emplid, STDNT_ENRL_STATUS=status, CLASS_NBR=f"{number}.00") for emplid, status, number in rows]
    found = read(*(record("STDNT_ENRL", row) for row in fields))
    assert found.rejects == []
    read_back = [(c.key["EMPLID"], c.columns["STDNT_ENRL_STATUS"], int(c.key["CLASS_NBR"])) for c in found.changes]
    assert read_back == rows
    assert all(tuple(change.key) == STDNT_ENRL.key for change in found.changes)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.dates().map(str),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)
members = [
    "kind",
    "institution",
    "term",
    "section",
    "person",
    "status",
    "role",
    "effective_date",
    "occurred_at",
    "sequence",
    "deleted",
]
kinds = ["enrollment", "person", "section", "course", "term"]
submissions = st.dictionaries(st.sampled_from(members), json_values).flatmap(
    lambda item: st.sampled_from(kinds).map(lambda kind: item | {"kind": kind})
)


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=100)
    | (json_values | submissions | st.lists(submissions, max_size=3)).map(lambda value: json.dumps(value).encode())
)
def test_any_json_gives_changes_or_problems_that_can_be_sent(data: bytes) -> None:
    found = translate_canonical(data, CANONICAL)
    if isinstance(found, Problems):
        assert found.items
        for problem in found.items:
            (problem.pointer + problem.detail).encode()
