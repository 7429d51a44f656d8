"""Messages as PeopleSoft's Integration Broker writes them: rowset XML, bare or inside an IBRequest document."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from xml.sax.saxutils import escape

from services.sandbox.sis.messages import Message, RowChange

NODE = "PSFT_CS"
_TARGET = "ZZ_LMS"
_DECLARATION = '<?xml version="1.0"?>'


def render(message: Message, stamp: datetime) -> tuple[bytes, dict[str, str]]:
    """Body and HTTP headers of one post; `stamp` is OrigTimeStamp and must carry a zone."""
    document = _document(message)
    content_type = {"content-type": "text/xml; charset=UTF-8"}
    if message.envelope:
        return _envelope(message, document, stamp).encode(), content_type
    headers = {
        "externaloperationname": f"{message.operation}.VERSION_1",
        "operationtype": "async",
        "origtimestamp": timestamp(stamp),
        "from": NODE,
        "to": _TARGET,
        "nonrepudiation": "N",
    }
    return document.encode(), content_type | headers


def timestamp(moment: datetime) -> str:
    """``CCYY-MM-DDTHH:MM:SS.ssssss+hhmm``: the offset is mandatory and has no colon."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f%z")


def _document(message: Message) -> str:
    transactions = "".join(f"<Transaction>{_row(row)}{_control(row.action, full=True)}</Transaction>" for row in message.rows)
    types = _field_types(message.rows)
    return f"{_DECLARATION}<{message.operation}>{types}<MsgData>{transactions}</MsgData></{message.operation}>"


def _row(row: RowChange) -> str:
    children = "".join(_row(child) + _control(child.action) for child in row.children)
    return f'<{row.record} class="R">{_fields(row.fields)}{children}</{row.record}>'


def _fields(fields: dict[str, str]) -> str:
    return "".join(f"<{name}>{escape(value)}</{name}>" if value else f"<{name}/>" for name, value in fields.items())


def _control(action: str, *, full: bool = False) -> str:
    """PSCAMA follows the row that it describes; the one of level 0 carries all its fields."""
    fields = {"AUDIT_ACTN": action}
    if full:
        before = {"LANGUAGE_CD": "ENG"}
        after = {"BASE_LANGUAGE_CD": "ENG", "MSG_SEQ_FLG": "", "PROCESS_INSTANCE": "0", "PUBLISH_RULE_ID": "", "MSGNODENAME": ""}
        fields = before | fields | after
    return f'<PSCAMA class="R">{_fields(fields)}</PSCAMA>'


def _field_types(rows: Iterable[RowChange]) -> str:
    records: dict[str, dict[str, str]] = {}
    _collect(rows, records)
    described = "".join(f'<{record} class="R">{_types(fields)}</{record}>' for record, fields in records.items())
    return f'<FieldTypes>{described}<PSCAMA class="R"><AUDIT_ACTN type="CHAR"/></PSCAMA></FieldTypes>'


def _collect(rows: Iterable[RowChange], records: dict[str, dict[str, str]]) -> None:
    for row in rows:
        records.setdefault(row.record, {}).update(row.fields)
        _collect(row.children, records)


def _types(fields: dict[str, str]) -> str:
    return "".join(f'<{name} type="{_type(name)}"/>' for name in fields)


def _type(name: str) -> str:
    if name.endswith(("_DT", "DATE", "EFFDT")):
        return "DATE"
    return "NUMBER" if name.endswith(("_NBR", "_SEQ", "UNT_TAKEN")) and name != "CATALOG_NBR" else "CHAR"


def _envelope(message: Message, document: str, stamp: datetime) -> str:
    return (
        f"{_DECLARATION}<IBRequest>"
        f"<ExternalOperationName><![CDATA[{message.operation}.VERSION_1]]></ExternalOperationName>"
        "<OperationType>async</OperationType>"
        f"<From><RequestingNode>{NODE}</RequestingNode><Password/><OrigUser>BATCH1</OrigUser><OrigNode>{NODE}</OrigNode>"
        f"<OrigProcess/><OrigTimeStamp>{timestamp(stamp)}</OrigTimeStamp></From>"
        f"<To><FinalDestination/><DestinationNode>{_TARGET}</DestinationNode><SubChannel/></To>"
        "<ContentSections><ContentSection><NonRepudiation/><MessageVersion>VERSION_1</MessageVersion>"
        f"<Data><![CDATA[{document}]]></Data></ContentSection></ContentSections></IBRequest>"
    )
