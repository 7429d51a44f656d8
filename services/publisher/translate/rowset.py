"""The rowset message format of PeopleSoft: hardened XML parsing, and rows paired with their actions. Knows no record.

Grammar (PeopleTools, "Understanding PeopleSoft Rowset-Based Message Format")::

    <AnyName><FieldTypes/><MsgData><Transaction>
        <REC class="R"> fields, child records each followed by its PSCAMA </REC>  <PSCAMA class="R"/>
    </Transaction>...</MsgData></AnyName>

Names are matched without their namespace; FieldTypes is optional and ignored, and so is the attribute IsChanged (a hint that
senders leave out).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from xml.etree.ElementTree import ParseError

from defusedxml.common import DefusedXmlException, DTDForbidden
from defusedxml.ElementTree import DefusedXMLParser

PSCAMA = "PSCAMA"
_SECRETS = frozenset({"Password", "password", "PASSWORD"})
_WRAPPERS = frozenset({"Data"})


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
    """The root of a document; raises `Unreadable`. `encoding` outranks the XML declaration."""
    builder = _Builder(limits)
    try:
        parser = DefusedXMLParser(target=builder, encoding=encoding, forbid_dtd=True)
        # The hardened parser, but without ElementTree's own layer between expat and us: that halves the time of a large message.
        parser.parser.StartElementHandler = builder.start
        parser.parser.EndElementHandler = builder.end
        parser.feed(document)
        root = parser.close()
    except DTDForbidden as error:
        raise Unreadable("dtd", "document type declarations are refused") from error
    except DefusedXmlException as error:
        raise Unreadable("dtd", "entities and external references are refused") from error
    except ParseError as error:
        line, column = error.position
        raise Unreadable("malformed_xml", f"line {line}, column {column}") from error
    except Unreadable:
        raise
    except (LookupError, ValueError) as error:
        raise Unreadable("unsupported_charset", "the declared encoding is not supported") from error
    assert isinstance(root, Node)  # noqa: S101  (what _Builder.close returns)
    return root


class _Builder:
    """Parser target: folds leaves into their parent at once, so that a field costs a dictionary entry and not an element."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._elements = 0
        self._local_names: dict[str, str] = {}
        self._names: list[str] = []
        self._nodes: list[Node | None] = []
        """Parallel to the names: the element's node, None as long as it may turn out to be a field."""
        self._text: list[str] = []
        self._length = 0
        self._root: Node | None = None

    def start(self, tag: str, attributes: Sequence[str]) -> None:
        self._elements += 1
        if self._elements > self._limits.elements:
            raise Unreadable("too_complex", f"more than {self._limits.elements} elements")
        if len(self._names) >= self._limits.depth:
            raise Unreadable("too_complex", f"nested deeper than {self._limits.depth}")
        name = self._local_names.get(tag)
        if name is None:
            name = self._local_names[tag] = tag.rpartition("}")[2]
        if self._nodes and self._nodes[-1] is None:
            self._nodes[-1] = Node(self._names[-1])
        is_record = name == PSCAMA or _is_record(attributes) or (bool(self._names) and self._names[-1] == "Transaction")
        self._names.append(name)
        self._nodes.append(Node(name) if is_record else None)
        self._text.clear()
        self._length = 0

    def data(self, text: str) -> None:
        self._text.append(text)
        self._length += len(text)
        if self._length > self._limits.text and len(self._names) > 1 and self._names[-1] not in _WRAPPERS:
            raise Unreadable("too_complex", f"a field longer than {self._limits.text}")

    def end(self, _tag: str) -> None:
        name, node = self._names.pop(), self._nodes.pop()
        if not self._names:
            self._root = node or Node(name, text="".join(self._text))
        else:
            parent = self._nodes[-1]
            assert parent is not None  # noqa: S101  (made when its first child began)
            if node is not None:
                parent.children.append(node)
            elif name not in _SECRETS:
                parent.fields[name] = "".join(self._text)
        self._text.clear()
        self._length = 0

    def close(self) -> Node:
        assert self._root is not None  # noqa: S101  (expat refuses a document without a root)
        return self._root


def _is_record(attributes: Sequence[str]) -> bool:
    """``class="R"`` marks a record; expat hands attributes over as name, value, name, value."""
    return "R" in attributes and ("class", "R") in zip(attributes[::2], attributes[1::2], strict=True)


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
    """The rows directly below `container`, each followed by the rows below itself."""
    counts: dict[str, int] = {}
    level: list[tuple[Row, Node]] = []
    for node in container.children:
        if node.name == PSCAMA:
            _pair(node, [row for row, _ in level], parent)
            continue
        counts[node.name] = counts.get(node.name, 0) + 1
        place = f"{path}/{node.name}[{counts[node.name]}]"
        level.append((Row(node.name, node.fields, parent, place, transaction), node))
    for row, node in level:
        # A PSCAMA inside the row that no child claims belongs to the row itself, unless a following sibling says otherwise;
        # children are therefore paired before their parent is handed out.
        below = list(_level(node, row, row.path, transaction))
        yield row
        yield from below


def _pair(pscama: Node, before: list[Row], enclosing: Row | None) -> None:
    """A PSCAMA follows the row that it describes: the nearest one before it that has none yet."""
    candidates = [*([enclosing] if enclosing else []), *before]
    row = next((row for row in reversed(candidates) if row.action is None), None)
    if row is not None:
        row.action = pscama.fields.get("AUDIT_ACTN", "").strip().upper()
        row.boundary = pscama.fields.get("MSG_SEQ_FLG", "").strip().upper() in {"H", "T"}
