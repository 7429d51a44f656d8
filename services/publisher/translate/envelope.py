"""What surrounds a rowset: HTTP headers, character sets, the IBRequest envelope and documents wrapped in CDATA.

Headers outrank the envelope. SOAP, segments and compressed or multipart bodies are recognised so that quarantine can name them.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.message import Message as MimeMessage
from functools import lru_cache

from services.publisher.changes import Reject
from services.publisher.translate.rowset import Limits, Node, Unreadable, parse

_CODECS = frozenset({"utf-8", "ascii", "iso8859-1", "iso8859-15", "cp1252", "utf-16", "utf-16-le", "utf-16-be"})
"""What a Content-Type may name; a codec outside this list might not be a text encoding at all."""
_BOMS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_NODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_CDATA_DOCUMENT = re.compile(rb"\A(?:<\?xml[^>]{0,200}\?>)?\s*<!\[CDATA\[(.*)\]\]>\s*\Z", re.DOTALL)
_BASE64_HEAD = re.compile(rb"[A-Za-z0-9+/=\r\n]{16,}\Z")
_PASSWORD = re.compile(
    rb"(<(?:\w{1,40}:)?password\b[^>]{0,200}>)(?:<!\[CDATA\[.{0,1000}?\]\]>|[^<]{0,1000})(?=</)", re.DOTALL | re.IGNORECASE
)
_NESTING = 3


@dataclass(frozen=True, slots=True)
class Envelope:
    """One delivery, opened."""

    operation: str = ""
    """For example ``ZZ_ENRL_SYNC.VERSION_1``; any text, often an alias."""
    sender: str = "unknown"
    """The node that sent it; safe to use in a channel's name."""
    sent_at: datetime | None = None
    """OrigTimeStamp; None when absent, unreadable or without a zone."""
    ping: bool = False
    documents: list[Node] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    """Content sections that are no documents; the other sections go on."""


def open_envelope(body: bytes, headers: Mapping[str, str], limits: Limits) -> Envelope:
    """Find the documents of a delivery and who sent them when; raises `Unreadable`. Header names are lower case."""
    operation = headers.get("externaloperationname", headers.get("operationname", ""))
    if _is_ping(headers.get("operationtype")) or not body.strip():
        return Envelope(operation, _sender(headers.get("from")), ping=True)
    _refuse_transport_forms(body, headers)
    root = _unwrapped(_parse_outer(body, headers.get("content-type", ""), limits), limits)
    if root.name == "Envelope":
        raise Unreadable("soap", "SOAP is not supported yet; send the bare rowset")
    if root.name != "IBRequest":
        sent_at = _timestamp(headers.get("origtimestamp"))
        return Envelope(operation, _sender(headers.get("from")), sent_at, documents=[root])
    return _open_request(root, headers, limits)


def without_passwords(body: bytes) -> bytes:
    """The body with the content of Password elements removed; applied before any copy is kept."""
    return _PASSWORD.sub(rb"\1", body)


def _open_request(request: Node, headers: Mapping[str, str], limits: Limits) -> Envelope:
    origin = request.child("From")
    stated = origin.fields if origin else {}
    documents, rejects = [], []
    sections = request.child("ContentSections")
    numbered = enumerate((node for node in (sections.children if sections else []) if node.name == "ContentSection"), start=1)
    for number, section in numbered:
        try:
            documents += _section_documents(section, limits)
        except Unreadable as error:
            rejects.append(Reject(error.reason, f"ContentSection[{number}]: {error.detail}"))
    return Envelope(
        operation=headers.get("externaloperationname") or request.fields.get("ExternalOperationName", "").strip(),
        sender=_sender(headers.get("from") or stated.get("RequestingNode") or stated.get("OrigNode")),
        sent_at=_timestamp(headers.get("origtimestamp") or stated.get("OrigTimeStamp")),
        ping=_is_ping(request.fields.get("OperationType")),
        documents=documents,
        rejects=rejects,
    )


def _section_documents(section: Node, limits: Limits) -> list[Node]:
    """The document in ``Data``: as text (CDATA or escaped), or as elements."""
    text = section.fields.get("Data", "")
    if text.strip():
        return [_unwrapped(_parse_text(text, limits), limits)]
    data = section.child("Data")
    return list(data.children) if data else []


def _unwrapped(root: Node, limits: Limits) -> Node:
    """An element that holds a whole second document as its text stands for that document."""
    for _ in range(_NESTING):
        if root.children or root.fields or not root.text.lstrip().startswith("<"):
            return root
        root = _parse_text(root.text, limits)
    raise Unreadable("too_complex", f"documents wrapped more than {_NESTING} times")


def _parse_text(text: str, limits: Limits) -> Node:
    # The text was decoded already, so what its declaration says about an encoding no longer holds.
    return parse(text.strip().encode("utf-8", "replace"), limits, encoding="utf-8")


def _parse_outer(body: bytes, content_type: str, limits: Limits) -> Node:
    # Blanks before the XML declaration are malformed by the letter and common in hand-made messages.
    document, encoding = body.lstrip(b" \t\r\n"), None
    charset = _charset(content_type)
    if charset is not None and not body.startswith(_BOMS):  # RFC 7303, section 3: BOM, then charset, then declaration
        document, encoding = _as_utf8(document, charset), "utf-8"
    wrapped = _CDATA_DOCUMENT.match(document)
    return parse(wrapped[1].strip() if wrapped else document, limits, encoding)


@lru_cache(maxsize=32)
def _charset(content_type: str) -> str | None:
    header = MimeMessage()
    header["content-type"] = content_type.replace("\r", " ").replace("\n", " ")
    return header.get_content_charset()


def _as_utf8(document: bytes, charset: str) -> bytes:
    try:
        codec = codecs.lookup(charset).name
    except (LookupError, ValueError):
        codec = ""
    if codec not in _CODECS:
        raise Unreadable("unsupported_charset", "the charset of the Content-Type is not supported")
    if codec == "utf-8":
        return document
    try:
        return document.decode(codec).encode()
    except UnicodeError as error:
        raise Unreadable("malformed_xml", "the bytes do not fit the charset of the Content-Type") from error


def _refuse_transport_forms(body: bytes, headers: Mapping[str, str]) -> None:
    """Forms that are left for later, each with a reason of its own."""
    if headers.get("datachunkcount", "").strip() not in {"", "0", "1"}:
        raise Unreadable("segmented", "segmented messages are not supported yet")
    head = body[:4096].lstrip()
    if headers.get("content-type", "").lower().startswith("multipart/") or b"content-id: ibinfo" in head.lower():
        raise Unreadable("multipart", "the gateway's internal MIME format is not supported")
    encoded = headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}
    if encoded or head.startswith((b"\x1f\x8b", b"x\x9c")) or (not head.startswith(b"<") and _BASE64_HEAD.match(head)):
        raise Unreadable("compressed", "compressed messages are not supported yet; set sendUncompressed=Y on the node")


def _is_ping(operation_type: str | None) -> bool:
    return (operation_type or "").strip().lower() == "ping"


def _sender(node: str | None) -> str:
    name = (node or "").strip()
    return name if _NODE.fullmatch(name) else "unknown"


def _timestamp(text: str | None) -> datetime | None:
    """PeopleSoft's ``CCYY-MM-DDTHH:MM:SS.ssssss+hhmm``; a time without a zone orders nothing, so it counts as absent."""
    try:
        moment = datetime.fromisoformat((text or "").strip())
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None
