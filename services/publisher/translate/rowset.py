"""The rowset message format of PeopleSoft: hardened XML parsing, and rows paired with their actions. Knows no record.

Grammar (PeopleTools, "Understanding PeopleSoft Rowset-Based Message Format")::

    <AnyName><FieldTypes/><MsgData><Transaction>
        <REC class="R"> fields, child records each followed by its PSCAMA </REC>  <PSCAMA class="R"/>
    </Transaction>...</MsgData></AnyName>

Names are matched without their namespace; FieldTypes is optional and ignored, and so is the attribute IsChanged (a hint that
senders leave out).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from lxml import etree

PSCAMA = "PSCAMA"
_ACTION, _PLACE = "AUDIT_ACTN", "MSG_SEQ_FLG"
_ACTION_FIELDS = frozenset({_ACTION, _PLACE})
"""All that is read of a PSCAMA."""
_FIELD_TYPES = "FieldTypes"
_SECRETS = frozenset({"Password", "password", "PASSWORD"})
_WRAPPERS = frozenset({"Data"})
_TOO_MUCH = frozenset({etree.ErrorTypes.ERR_INTERNAL_ERROR, etree.ErrorTypes.ERR_RESOURCE_LIMIT})
_CHARSETS = frozenset({etree.ErrorTypes.ERR_UNSUPPORTED_ENCODING, etree.ErrorTypes.ERR_UNKNOWN_ENCODING})
"""libxml2's codes, see ``xmlerror.h``."""


class Unreadable(ValueError):
    """The message as a whole cannot be used. `reason` is a closed code, `detail` quotes nothing of the message."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Limits:
    """What one document may cost us."""

    depth: int = 32
    elements: int = 500_000
    text: int = 65_536
    """Characters of one field; a wrapped document is bounded by the body's own limit."""


@dataclass(slots=True)
class Node:
    """An element that is not a plain field: its leaves by local name, and its other children in document order."""

    name: str
    fields: dict[str, str] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)
    text: str = ""
    """Only of an element without children; a whole document when it was wrapped in CDATA."""

    def child(self, name: str) -> Node | None:
        """The first child called `name`."""
        return next((node for node in self.children if node.name == name), None)


@dataclass(slots=True)
class Row:
    """One record of a rowset with the action of its PSCAMA."""

    record: str
    fields: Mapping[str, str]
    parent: Row | None
    path: str
    """Where it stands, for example ``Transaction[2]/CLASS_TBL[1]/CLASS_INSTR[2]``."""
    transaction: int
    action: str | None = None
    """The letter, "" for blank (nothing changed on this row), None when the message does not say."""
    boundary: bool = False
    """True when the PSCAMA marks the header or trailer of a full extract."""


def parse(document: bytes, limits: Limits, encoding: str | None = None) -> Node:
    """The root of a document; raises `Unreadable`. `encoding` outranks the XML declaration.

    libxml2 refuses by itself what no message needs: more than 256 levels, a text of 10 MB, anything from the network. It builds
    its tree before we see it, so the number of elements is bounded beforehand, by the brackets.
    """
    if document.count(b"<") > 2 * limits.elements:
        raise Unreadable("too_complex", f"more than {limits.elements} elements")
    try:
        parser = etree.XMLParser(
            encoding=encoding,
            resolve_entities=False,
            load_dtd=False,
            no_network=True,
            huge_tree=False,
            remove_comments=True,
            remove_pis=True,
        )
        root = etree.fromstring(document, parser)
    except etree.XMLSyntaxError as error:
        raise _unreadable(error) from error
    except (LookupError, ValueError) as error:
        raise Unreadable("unsupported_charset", "the declared encoding is not supported") from error
    if root.getroottree().docinfo.internalDTD is not None:
        raise Unreadable("dtd", "document type declarations are refused")
    return _Reader(limits).read(root)


def _unreadable(error: etree.XMLSyntaxError) -> Unreadable:
    if error.code in _TOO_MUCH:
        return Unreadable("too_complex", "nested too deeply, or a text that is too long")
    if error.code in _CHARSETS:
        return Unreadable("unsupported_charset", "the declared encoding is not supported")
    line, column = error.position
    return Unreadable("malformed_xml", f"line {line}, column {column}")


class _Reader:
    """Folds leaves into their parent at once, so that a field costs a dictionary entry and not a node."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._elements = 0

    def read(self, root: etree._Element) -> Node:
        """The root and everything below it; raises `Unreadable` at a limit."""
        node = Node(_local_name(root.tag), text=root.text or "" if len(root) == 0 else "")
        self._fill(node, root, 1)
        return node

    def _fill(self, node: Node, element: etree._Element, depth: int) -> None:
        """Children come before the text of a parent in no rowset; whatever text surrounds them is blank."""
        fields, holds_rows, longest = node.fields, node.name == "Transaction", self._limits.text
        self._count(element, depth)
        for child in element:
            name = child.tag
            if name[0] == "{":
                name = _local_name(name)
            if name == PSCAMA:
                node.children.append(self._action(child))
                continue
            text = child.text or ""
            # Asking for an attribute is dear; a record without fields has no text either.
            if len(child) or holds_rows or ((not text or text.isspace()) and child.get("class") == "R"):
                if name != _FIELD_TYPES:
                    below = Node(name)
                    self._fill(below, child, depth + 1)
                    node.children.append(below)
            elif name not in _SECRETS:
                if len(text) > longest and name not in _WRAPPERS:
                    raise Unreadable("too_complex", f"a field longer than {longest}")
                fields[name] = text

    def _action(self, element: etree._Element) -> Node:
        """Every row has a PSCAMA, and most of its fields say nothing that we ask for."""
        node = Node(PSCAMA)
        self._elements += len(element) + 1
        for child in element:
            name = child.tag
            if name[0] == "{":
                name = _local_name(name)
            if name in _ACTION_FIELDS:
                node.fields[name] = child.text or ""
        return node

    def _count(self, element: etree._Element, depth: int) -> None:
        limits = self._limits
        self._elements += len(element) + 1
        if self._elements > limits.elements:
            raise Unreadable("too_complex", f"more than {limits.elements} elements")
        if depth >= limits.depth and len(element):
            raise Unreadable("too_complex", f"nested deeper than {limits.depth}")


def _local_name(tag: str) -> str:
    return tag.rpartition("}")[2]


def rows(root: Node) -> Iterator[Row]:
    """The rows of a rowset, parents before children, in document order; raises `Unreadable` when it is not a rowset."""
    data = root if root.name == "MsgData" else root.child("MsgData")
    if data is None:
        if "MsgData" in root.fields:
            return  # <MsgData/>: a message without rows
        raise Unreadable("not_a_rowset", "no MsgData element below the root")
    transactions = (node for node in data.children if node.name == "Transaction")
    for number, transaction in enumerate(transactions, start=1):
        yield from _level(transaction, None, f"Transaction[{number}]", number)


def _level(container: Node, parent: Row | None, path: str, transaction: int) -> Iterator[Row]:
    """The rows directly below `container`, each followed by the rows below itself.

    A PSCAMA follows the row that it describes: the nearest one before it that has none yet. One inside a row that no child
    claims belongs to the row itself, unless a following sibling says otherwise; children are therefore paired before their
    parent is handed out.
    """
    counts: dict[str, int] = {}
    level: list[tuple[Row, Node]] = []
    unpaired = [parent] if parent is not None and parent.action is None else []
    for node in container.children:
        if node.name == PSCAMA:
            if unpaired:
                _pair(node, unpaired.pop())
            continue
        number = counts[node.name] = counts.get(node.name, 0) + 1
        row = Row(node.name, node.fields, parent, f"{path}/{node.name}[{number}]", transaction)
        unpaired.append(row)
        level.append((row, node))
    for row, node in level:
        if not node.children:
            yield row
            continue
        below = list(_level(node, row, row.path, transaction))
        yield row
        yield from below


def _pair(pscama: Node, row: Row) -> None:
    row.action = pscama.fields.get(_ACTION, "").strip().upper()
    row.boundary = pscama.fields.get(_PLACE, "").strip().upper() in {"H", "T"}
