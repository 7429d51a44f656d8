"""What surrounds a rowset: headers, character sets, envelopes, and forms that we recognise and do not read."""

from __future__ import annotations

import base64
import gzip
import time
import zlib

import pytest

from services.publisher.translate.envelope import Envelope, open_envelope, without_passwords
from services.publisher.translate.rowset import Limits, Unreadable
from tests.unit.publisher.rowsets import enrollment, message, record

ROWSET = message(record("STDNT_ENRL", enrollment()))


def opened(body: bytes, **headers: str) -> Envelope:
    return open_envelope(body, {name.replace("_", "-"): value for name, value in headers.items()}, Limits())


def request(data: str, origin: str = "<From><RequestingNode>PSFT_CS</RequestingNode></From>", kind: str = "async") -> bytes:
    section = f"<ContentSections><ContentSection><Data>{data}</Data></ContentSection></ContentSections>"
    return f"<IBRequest><OperationType>{kind}</OperationType>{origin}{section}</IBRequest>".encode()


def refused(body: bytes, **headers: str) -> str:
    with pytest.raises(Unreadable) as caught:
        opened(body, **headers)
    return caught.value.reason


def test_headers_say_who_sent_it_when() -> None:
    envelope = opened(
        ROWSET, **{"from": "PSFT_CS", "origtimestamp": "2026-11-23T08:15:30.000000-0600", "externaloperationname": "ZZ.V1"}
    )
    assert (envelope.sender, envelope.operation) == ("PSFT_CS", "ZZ.V1")
    assert envelope.sent_at is not None
    assert envelope.sent_at.isoformat() == "2026-11-23T08:15:30-06:00"


def test_the_envelope_says_it_when_the_headers_do_not() -> None:
    origin = "<From><RequestingNode>PSFT_HR</RequestingNode><OrigTimeStamp>2026-11-23T08:15:30.5+0000</OrigTimeStamp></From>"
    envelope = opened(request(f"<![CDATA[{ROWSET.decode()}]]>", origin))
    assert envelope.sender == "PSFT_HR"
    assert envelope.sent_at is not None
    assert [document.name for document in envelope.documents] == ["ZZ_SYNC"]


def test_headers_outrank_the_envelope() -> None:
    assert opened(request("<![CDATA[<X/>]]>"), **{"from": "OTHER"}).sender == "OTHER"


@pytest.mark.parametrize("text", ["2026-11-23T08:15:30", "yesterday", "", "2026-13-01T00:00:00+0000"])
def test_a_time_without_zone_or_sense_is_no_time(text: str) -> None:
    assert opened(ROWSET, origtimestamp=text).sent_at is None


def test_a_sender_that_is_no_node_name_is_unknown() -> None:
    assert opened(ROWSET, **{"from": "a b\n"}).sender == "unknown"


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b"", {}),
        (b" \r\n", {}),
        (ROWSET, {"operationtype": "Ping"}),
        (request("", kind="ping"), {}),
    ],
)
def test_every_form_of_ping_is_a_ping(body: bytes, headers: dict[str, str]) -> None:
    assert opened(body, **headers).ping


def test_data_may_hold_elements_instead_of_text() -> None:
    assert [document.name for document in opened(request("<ZZ_SYNC><MsgData/></ZZ_SYNC>")).documents] == ["ZZ_SYNC"]


def test_a_document_wrapped_in_cdata_stands_for_itself() -> None:
    wrapped = b'<?xml version="1.0"?><![CDATA[' + ROWSET + b"]]>"
    inside = b"<Wrapper><![CDATA[" + ROWSET + b"]]></Wrapper>"
    assert opened(wrapped).documents == opened(inside).documents == opened(ROWSET).documents


def test_a_bad_section_does_not_stop_the_others() -> None:
    sections = (
        "<ContentSection><Data>&lt;X&gt;</Data></ContentSection><ContentSection><Data><Y><Z>1</Z></Y></Data></ContentSection>"
    )
    envelope = opened(f"<IBRequest><ContentSections>{sections}</ContentSections></IBRequest>".encode())
    assert [reject.reason for reject in envelope.rejects] == ["malformed_xml"]
    assert [document.name for document in envelope.documents] == ["Y"]


NAME = "Zoë"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (f"<X><F>{NAME}</F></X>".encode(), "text/xml"),
        (f"<X><F>{NAME}</F></X>".encode("utf-8-sig"), "text/xml; charset=utf-16"),
        (f"<X><F>{NAME}</F></X>".encode("utf-16"), "text/xml"),
        (f"<X><F>{NAME}</F></X>".encode("latin-1"), "text/xml; charset=ISO-8859-1"),
        (f'<?xml version="1.0" encoding="ISO-8859-1"?><X><F>{NAME}</F></X>'.encode("latin-1"), ""),
        (f'<?xml version="1.0" encoding="windows-1252"?><X><F>{NAME}</F></X>'.encode("cp1252"), ""),
        (f'<?xml version="1.0" encoding="ISO-8859-1"?><X><F>{NAME}</F></X>'.encode(), "text/xml; charset=UTF-8"),
        (f" \n<?xml version='1.0'?><X><F>{NAME}</F></X>".encode(), ""),
    ],
)
def test_character_sets_are_honoured(body: bytes, content_type: str) -> None:
    (document,) = opened(body, content_type=content_type).documents
    assert document.fields == {"F": NAME}


def test_an_inner_document_may_declare_any_encoding() -> None:
    inner = f'<?xml version="1.0" encoding="UTF-16"?><X><F>{NAME}</F></X>'
    assert opened(request(f"<![CDATA[{inner}]]>")).documents[0].fields == {"F": NAME}


@pytest.mark.parametrize(
    ("body", "headers", "reason"),
    [
        (b"<e:Envelope xmlns:e='http://schemas.xmlsoap.org/soap/envelope/'/>", {}, "soap"),
        (ROWSET, {"datachunkcount": "3"}, "segmented"),
        (b"--b\r\nContent-ID: IBInfo\r\n\r\n", {}, "multipart"),
        (b"--b", {"content_type": "multipart/related; boundary=b"}, "multipart"),
        (gzip.compress(ROWSET), {}, "compressed"),
        (zlib.compress(ROWSET), {}, "compressed"),
        (base64.b64encode(zlib.compress(ROWSET)), {}, "compressed"),
        (ROWSET, {"content_encoding": "deflate"}, "compressed"),
        (ROWSET, {"content_type": "text/xml; charset=rot13"}, "unsupported_charset"),
        (b"<X>\xe9</X>", {"content_type": "text/xml; charset=utf-8"}, "malformed_xml"),
        (b"<X>\xe9</X>", {"content_type": "text/xml; charset=us-ascii"}, "malformed_xml"),
        (b'[{"UM_IDENTIFIER": "STDNT_ENRL"}]', {}, "malformed_xml"),
    ],
)
def test_what_we_do_not_read_is_named(body: bytes, headers: dict[str, str], reason: str) -> None:
    assert refused(body, **headers) == reason


def test_documents_cannot_be_wrapped_without_end() -> None:
    document = "<X/>"
    for _ in range(5):
        document = "<W>" + document.replace("&", "&amp;").replace("<", "&lt;") + "</W>"
    assert refused(document.encode()) == "too_complex"


@pytest.mark.parametrize("secret", [b"hunter2", b"<![CDATA[hun<ter2]]>"])
def test_passwords_are_cut_out_of_what_is_kept(secret: bytes) -> None:
    kept = without_passwords(b"<From><Password>" + secret + b"</Password><User>u</User>")
    assert kept == b"<From><Password></Password><User>u</User>"


def test_cutting_passwords_takes_linear_time() -> None:
    begun = time.perf_counter()
    without_passwords(b"<Password>" * 200_000)
    assert time.perf_counter() - begun < 5
