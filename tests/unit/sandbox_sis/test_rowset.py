"""The invented SIS writes what PeopleSoft writes."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from xml.etree.ElementTree import Element

from defusedxml import ElementTree

from services.sandbox.sis.messages import Message, class_row, enrollment_row
from services.sandbox.sis.rowset import render, timestamp
from services.sandbox.sis.school import Enrollment, EnrollmentKey, Instructor, SchoolClass

STAMP = datetime(2026, 11, 23, 8, 15, 30, 7, tzinfo=timezone(timedelta(hours=-6)))
ROW = enrollment_row(Enrollment(EnrollmentKey("9000001", "UGRD", "26101"), "E", "ENRL", added="2027-01-04"), "A")


def message(*, envelope: bool = False) -> Message:
    return Message(0, "ZZ_ENRL_SYNC", (ROW,), 0.0, 0.0, envelope)


def within(body: bytes, path: str) -> Element:
    found = ElementTree.fromstring(body).find(path)
    assert found is not None
    return found


def test_a_timestamp_has_microseconds_and_an_offset_without_a_colon() -> None:
    assert timestamp(STAMP) == "2026-11-23T08:15:30.000007-0600"


def test_a_bare_message_carries_its_envelope_in_headers() -> None:
    body, headers = render(message(), STAMP)
    assert headers["origtimestamp"] == timestamp(STAMP)
    assert headers["from"] == "PSFT_CS"
    assert headers["externaloperationname"] == "ZZ_ENRL_SYNC.VERSION_1"
    assert ElementTree.fromstring(body).tag == "ZZ_ENRL_SYNC"


def test_the_last_element_of_a_transaction_says_what_happened_to_its_row() -> None:
    body, _ = render(message(), STAMP)
    record, control = within(body, "MsgData/Transaction")
    assert record.tag == "STDNT_ENRL"
    assert record.findtext("EMPLID") == "9000001"
    assert control.tag == "PSCAMA"
    assert control.findtext("AUDIT_ACTN") == "A"


def test_child_rows_nest_and_are_followed_by_their_own_action() -> None:
    teachers = [Instructor(1, 1, "9900001", "PI"), Instructor(1, 2, "", "SI")]
    school_class = SchoolClass("26101", "009001", "001", "GEOL", " 1000", instructors=teachers)
    body, _ = render(Message(0, "ZZ_CLASS_SYNC", (class_row(school_class, "", {0: "C"}),), 0.0, 0.0), STAMP)
    record = within(body, "MsgData/Transaction/CLASS_TBL")
    nested = [child for child in record if child.get("class") == "R"]
    assert [child.tag for child in nested] == ["CLASS_INSTR", "PSCAMA", "CLASS_INSTR", "PSCAMA"]
    assert [child.findtext("AUDIT_ACTN") for child in nested[1::2]] == ["C", ""]


def test_an_envelope_carries_the_whole_document_as_text_and_no_integration_broker_headers() -> None:
    body, headers = render(message(envelope=True), STAMP)
    request = ElementTree.fromstring(body)
    assert "origtimestamp" not in headers
    assert request.findtext("From/OrigTimeStamp") == timestamp(STAMP)
    inner = ElementTree.fromstring(request.findtext("ContentSections/ContentSection/Data") or "")
    assert inner.tag == "ZZ_ENRL_SYNC"
