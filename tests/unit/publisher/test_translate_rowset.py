"""The rowset grammar: which action belongs to which row, and what a document may cost."""

from __future__ import annotations

import pytest

from services.publisher.translate.rowset import Limits, Row, Unreadable, parse, rows


def rowset(inner: str) -> list[Row]:
    return list(rows(parse(f"<X><MsgData><Transaction>{inner}</Transaction></MsgData></X>".encode(), Limits())))


def action(letter: str) -> str:
    return f'<PSCAMA class="R"><AUDIT_ACTN>{letter}</AUDIT_ACTN></PSCAMA>'


def actions(inner: str) -> dict[str, str | None]:
    return {row.path.removeprefix("Transaction[1]/"): row.action for row in rowset(inner)}


def test_a_pscama_describes_the_row_before_it() -> None:
    assert actions(f"<A><F>1</F></A>{action('A')}<A><F>2</F></A>{action('D')}") == {"A[1]": "A", "A[2]": "D"}


def test_children_have_their_own_pscama_inside_their_parent() -> None:
    inner = f"<A><F>1</F><B><G>1</G></B>{action('D')}<B><G>2</G></B>{action('')}</A>{action('C')}"
    assert actions(inner) == {"A[1]": "C", "A[1]/B[1]": "D", "A[1]/B[2]": ""}


def test_a_row_without_pscama_has_an_unknown_action() -> None:
    assert actions(f"<A><F>1</F></A><A><F>2</F></A>{action('D')}") == {"A[1]": None, "A[2]": "D"}


def test_two_pscamas_after_flat_records_go_to_the_nearest_row_without_one() -> None:
    assert actions(f"<A><F>1</F></A><B><G>1</G></B>{action('D')}{action('C')}") == {"A[1]": "C", "B[1]": "D"}


def test_a_hand_made_pscama_inside_its_own_row_counts_for_it() -> None:
    assert actions(f"<A><F>1</F>{action('D')}</A>") == {"A[1]": "D"}


def test_a_record_without_children_and_class_is_still_a_row_of_its_transaction() -> None:
    assert [row.record for row in rowset("<A/>")] == ["A"]


def test_parents_come_before_their_children() -> None:
    found = rowset("<A><F>1</F><B><G>1</G></B></A>")
    assert [row.record for row in found] == ["A", "B"]
    assert found[1].parent is found[0]


def test_is_changed_and_types_are_no_fields() -> None:
    root = parse(b'<X><FieldTypes><A class="R"><F type="CHAR"/></A></FieldTypes><MsgData/></X>', Limits())
    assert list(rows(root)) == []


def test_passwords_never_leave_the_parser() -> None:
    assert "secret" not in repr(parse(b"<X><From><Password>secret</Password><User>u</User></From></X>", Limits()))


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("<X><A></X>", "malformed_xml"),
        ("<X>&nbsp;</X>", "malformed_xml"),
        ("<X>a & b</X>", "malformed_xml"),
        ("", "malformed_xml"),
        ('<!DOCTYPE X [<!ENTITY a "aaaa">]><X>&a;</X>', "dtd"),
        ('<!DOCTYPE X SYSTEM "http://example.edu/x.dtd"><X/>', "dtd"),
        ('<?xml version="1.0" encoding="rot13"?><X/>', "unsupported_charset"),
        ("<A>" * 40 + "</A>" * 40, "too_complex"),
        ("<X>" + "<F/>" * 1001 + "</X>", "too_complex"),
        (f"<X><F>{'a' * 2000}</F></X>", "too_complex"),
    ],
)
def test_a_bad_document_is_refused_with_its_reason(document: str, reason: str) -> None:
    with pytest.raises(Unreadable) as caught:
        parse(document.encode(), Limits(elements=1000, text=1000))
    assert caught.value.reason == reason


def test_a_document_that_is_no_rowset_says_so() -> None:
    with pytest.raises(Unreadable) as caught:
        list(rows(parse(b"<X><Y>1</Y></X>", Limits())))
    assert caught.value.reason == "not_a_rowset"
