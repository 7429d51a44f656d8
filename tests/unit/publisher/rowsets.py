"""Rowset messages for tests, written the plain way."""

from __future__ import annotations

from datetime import UTC, datetime
from xml.sax.saxutils import escape
from zoneinfo import ZoneInfo

from schemas.events import OrderToken
from services.publisher.changes import Change, MirrorRow
from services.publisher.translate.peoplesoft import Message, PeopleSoftContext, translate
from services.publisher.translate.records import Record

NOW = datetime(2026, 11, 24, 3, 30, tzinfo=UTC)
"""Still the evening of the 23rd in Chicago."""
CONTEXT = PeopleSoftContext("main", NOW, ZoneInfo("America/Chicago"))
HEADERS = {"from": "PSFT_CS", "origtimestamp": "2026-11-23T21:15:30.000000-0600"}


def record(name: str, fields: dict[str, str], action: str | None = "A", below: str = "") -> str:
    """A record followed by its PSCAMA; without one when `action` is None."""
    inner = "".join(f"<{field}>{escape(value)}</{field}>" for field, value in fields.items())
    control = "" if action is None else f'<PSCAMA class="R"><AUDIT_ACTN>{action}</AUDIT_ACTN></PSCAMA>'
    return f'<{name} class="R">{inner}{below}</{name}>{control}'


def message(*records: str, name: str = "ZZ_SYNC") -> bytes:
    """One transaction per record."""
    transactions = "".join(f"<Transaction>{text}</Transaction>" for text in records)
    return f'<?xml version="1.0"?><{name}><MsgData>{transactions}</MsgData></{name}>'.encode()


def read(*records: str, headers: dict[str, str] | None = None, context: PeopleSoftContext = CONTEXT) -> Message:
    return translate(message(*records), HEADERS if headers is None else headers, context)


def enrollment(**fields: str) -> dict[str, str]:
    """A STDNT_ENRL row of an enrolled student; fields override."""
    row = {"EMPLID": "0090001", "ACAD_CAREER": "UGRD", "INSTITUTION": "NORTH", "STRM": "2267", "CLASS_NBR": "26191"}
    return row | {"STDNT_ENRL_STATUS": "E", "ENRL_STATUS_REASON": "ENRL"} | fields


def class_key(**fields: str) -> dict[str, str]:
    key = {"CRSE_ID": "009390", "CRSE_OFFER_NBR": "1", "STRM": "2267", "SESSION_CODE": "001", "CLASS_SECTION": "001"}
    return key | fields


def school_class(**fields: str) -> dict[str, str]:
    return class_key() | {"INSTITUTION": "NORTH", "CLASS_NBR": "26191", "CLASS_STAT": "A"} | fields


def instructor(person: str = "0080007", role: str = "PI", meeting: str = "1", sequence: str = "1") -> dict[str, str]:
    return {"CLASS_MTG_NBR": meeting, "INSTR_ASSIGN_SEQ": sequence, "EMPLID": person, "INSTR_ROLE": role}


def laid_over(changes: list[Change]) -> list[MirrorRow]:
    """What the mirror holds after these changes, in their order: a column that a change omits stays."""
    rows: dict[tuple[str, str], MirrorRow] = {}
    for change in changes:
        before = rows.get((change.record, change.row_key))
        columns = (before.columns if before else {}) | change.columns
        row = MirrorRow(change.record, change.key, columns, change.deleted, change.order)
        rows[change.record, change.row_key] = row
    return list(rows.values())


def mirror_row(spec: Record, key: tuple[str, ...], deleted: bool = False, **columns: str) -> MirrorRow:
    """A row of the mirror by its record's specification."""
    return MirrorRow(spec.name, dict(zip(spec.key, key, strict=True)), columns, deleted, OrderToken(channel="test"))
