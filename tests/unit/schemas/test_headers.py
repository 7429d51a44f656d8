"""The CloudEvents Kafka binding in binary mode, and the trace context."""

from __future__ import annotations

import re
from datetime import datetime

from schemas.headers import CONTENT_TYPE, event_headers, header, new_traceparent
from tests.unit.schemas.factories import enrollment

EVENT = enrollment(content_hash="a" * 32)


def made(traceparent: str | None = None) -> dict[str, str]:
    return event_headers("enrollment", EVENT.version, EVENT.content_hash, EVENT.accepted_at, "/enrollstream/main", traceparent)


HEADERS = made()
SENT: list[tuple[str, bytes | str | None]] = [*HEADERS.items()]


def test_the_required_attributes_of_cloudevents_are_there() -> None:
    assert header(SENT, "ce_specversion") == "1.0"
    assert header(SENT, "ce_type") == "org.enrollstream.enrollment.v1"
    assert header(SENT, "ce_source") == "/enrollstream/main"
    assert header(SENT, "ce_id") == f"enrollment-{EVENT.version}-{'a' * 32}"


def test_binary_mode_names_the_type_of_the_value() -> None:
    """A content type of ``application/cloudevents…`` would announce structured mode."""
    assert header(SENT, "content-type") == CONTENT_TYPE == "application/json"
    assert header(SENT, "ce_dataschema") == "urn:enrollstream:enrollment:v1"


def test_the_time_has_a_zone() -> None:
    time = header(SENT, "ce_time")
    assert time is not None
    assert datetime.fromisoformat(time) == EVENT.accepted_at


def test_the_same_event_published_twice_has_the_same_id() -> None:
    assert made()["ce_id"] == HEADERS["ce_id"]


def test_no_header_names_a_person() -> None:
    assert all(EVENT.person not in value for value in HEADERS.values())


def test_header_names_fit_the_binding() -> None:
    assert all(re.fullmatch(r"ce_[a-z0-9]+|content-type|traceparent", name) for name in HEADERS)


def test_a_given_trace_context_is_passed_on() -> None:
    given = new_traceparent()
    assert made(given)["traceparent"] == given


def test_a_new_trace_context_is_valid() -> None:
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", new_traceparent())


def test_reading_a_header_takes_the_first_and_survives_rubbish() -> None:
    assert header([("a", b"1"), ("a", b"2")], "a") == "1"
    assert header([("a", None), ("a", "text")], "a") == "text"
    assert header([("a", b"\xff")], "a") == "�"
    assert header(None, "a") is None
