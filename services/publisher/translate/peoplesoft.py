"""PeopleSoft rowset messages to source rows. Pure: bytes in, changes and rejects out.

One bad row is one reject; the rest of the message goes on. Actions (PSCAMA ``AUDIT_ACTN``) of Integration Broker messages:

- ``A``, ``C``, ``N``, blank or absent: the row as it is now. Blank means unchanged, which is state as well.
- ``D``: the row is gone.
- ``O``: the values before a ``C``; ignored.
- ``K``: the row before its key changed; the old key is gone, unless an ``N`` of the same message has it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo

from schemas.events import OrderToken
from schemas.keys import MAX_KEY_LENGTH, join
from services.publisher.changes import Change, Reject, Translation
from services.publisher.translate.dialect import Dialect
from services.publisher.translate.envelope import Envelope, open_envelope
from services.publisher.translate.fields import Fields, RowRefused
from services.publisher.translate.peoplesoft_records import Draft, Reading, reader_of
from services.publisher.translate.records import CLASS_KEY, CLASS_TBL, PEOPLESOFT
from services.publisher.translate.rowset import Limits, Row, Unreadable, rows

CLOCK_TOLERANCE = timedelta(hours=24)
"""A timestamp further in the future is a broken clock; taken as a position, it would outrank every later message."""
MAX_REJECTS = 500

LATE_COMMIT = timedelta(minutes=15)
"""A full extract may have read a row this long before it was sent."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STATE = frozenset({None, "", "A", "C", "N"})
_INHERITED = frozenset({"D", "O", "K"})
_FULL_EXTRACT = re.compile(r"_FULLSYNC(\.|$)", re.IGNORECASE)
_MOST_PER_CHARACTER = 12
"""Letters of a key's text for one of an id: four bytes of UTF-8, percent-encoded."""
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_$#]{1,30}")


@dataclass(frozen=True, slots=True)
class PeopleSoftContext:
    """What a message does not say itself."""

    tenant: str
    received_at: datetime
    site_timezone: tzinfo
    limits: Limits = field(default_factory=Limits)
    dialect: Dialect = field(default_factory=Dialect)


@dataclass(frozen=True, slots=True)
class Message(Translation):
    """What one delivery says, and who said it."""

    channel: str = "ib:unknown"
    ping: bool = False
    """The gateway only asked whether we are there."""


def translate(body: bytes, headers: Mapping[str, str], context: PeopleSoftContext) -> Message:
    """Read one delivery; header names are lower case. Never raises for anything that a body or a header can hold."""
    try:
        envelope = open_envelope(body, headers, context.limits)
    except Unreadable as error:
        return Message(rejects=[Reject(error.reason, error.detail)])
    message = Message(channel=f"ib:{envelope.sender}", ping=envelope.ping, rejects=list(envelope.rejects))
    if envelope.ping:
        return message
    order = _order(envelope, context)
    found: list[Row] = []
    for document in envelope.documents:
        try:
            found += rows(document)
        except Unreadable as error:
            message.rejects.append(Reject(error.reason, error.detail))
    _Rowset(found, order, context).read_into(message)
    message.rejects[:] = _bounded(message.rejects)
    return message


def _order(envelope: Envelope, context: PeopleSoftContext) -> OrderToken:
    """OrigTimeStamp is the position; without a usable one the row has none and arrival decides.

    Of a full extract it says when the row was sent, not when it was read: a change sent in between is newer. Extracts are
    therefore a channel of their own, and against a change their time counts as an interval.
    """
    channel, sent_at = f"ib:{envelope.sender}", envelope.sent_at
    operation = envelope.operation or next((document.name for document in envelope.documents), "")
    snapshot = bool(_FULL_EXTRACT.search(operation))
    if snapshot:
        channel += ":extract"
    if sent_at is None or not _EPOCH < sent_at < context.received_at + CLOCK_TOLERANCE:
        return OrderToken(channel=channel, snapshot=snapshot)
    as_of_from = sent_at - LATE_COMMIT if snapshot else sent_at
    position = (sent_at - _EPOCH) // timedelta(microseconds=1)
    return OrderToken(channel=channel, position=position, as_of_from=as_of_from, as_of_to=sent_at, snapshot=snapshot)


class _Rowset:
    """One pass over the rows of a message."""

    def __init__(self, found: list[Row], order: OrderToken, context: PeopleSoftContext) -> None:
        self._rows = found
        self._order = order
        self._context = context
        self._today = (order.as_of_to or context.received_at).astimezone(context.site_timezone).date()
        self._fields: dict[int, Fields] = {}
        self._records = [context.dialect.record(row.record) for row in found]
        self._classes: dict[int, list[Fields]] = {}
        for row, record in zip(found, self._records, strict=True):
            fields = self._fields_of(row, record)
            if record == CLASS_TBL.name:
                self._classes.setdefault(row.transaction, []).append(fields)

    def read_into(self, message: Message) -> None:
        """Append what the rows say, in document order: a later element is newer."""
        unknown: Counter[str] = Counter()
        drafts: list[tuple[str | None, Draft]] = []
        readings: dict[str | None, Reading] = {}
        for row, record in zip(self._rows, self._records, strict=True):
            fields = self._fields[id(row)]
            if record not in PEOPLESOFT:
                unknown[_printable(record)] += record not in self._context.dialect.ignored_records
                continue
            try:
                drafts += self._read(row, record, fields, readings)
            except RowRefused as refusal:
                message.rejects.append(self._reject(row, record, fields, refusal))
        message.changes.extend(self._changes(drafts))
        message.rejects.extend(Reject("unknown_record", f"{record}: {count} rows") for record, count in unknown.items() if count)

    def _read(self, row: Row, record: str, fields: Fields, readings: dict[str | None, Reading]) -> list[tuple[str | None, Draft]]:
        action = _action(row)
        if action not in _STATE and action not in _INHERITED:
            raise RowRefused("unknown_action", "AUDIT_ACTN")
        if action == "O" or fields.blank:
            return []
        if action not in readings:
            readings[action] = self._reading(action)
        drafts = [(action, draft) for draft in reader_of(record)(fields, readings[action])]
        for _, draft in drafts:
            if _too_long(draft):
                raise RowRefused("bad_value", "key")
        return drafts

    def _reading(self, action: str | None) -> Reading:
        """The same for all rows with this action."""
        return Reading(
            tenant=self._context.tenant,
            today=self._today,
            dialect=self._context.dialect,
            deletion=action in {"D", "K"},
            unchanged=action == "",
            owner=self._owner,
        )

    def _changes(self, drafts: list[tuple[str | None, Draft]]) -> list[Change]:
        """All but the ``K`` of keys that an ``N`` of this message has: two rows swapped numbers, or an update in disguise."""
        renamed = {_identity(draft) for action, draft in drafts if action == "N"}
        return [self._change(draft) for action, draft in drafts if action != "K" or _identity(draft) not in renamed]

    def _change(self, draft: Draft) -> Change:
        return Change(self._context.tenant, draft.record.name, draft.key, draft.columns, draft.entity, self._order, draft.deleted)

    def _reject(self, row: Row, record: str, fields: Fields, refusal: RowRefused) -> Reject:
        spec = PEOPLESOFT[record]
        return Reject(refusal.reason, f"{_printable_path(row.path)}: {refusal.field}", fields.redacted(spec.key + spec.stored))

    def _owner(self, fields: Fields) -> Fields | None:
        """The class of the same transaction whose key does not contradict the row's; None when several classes might be meant."""
        matching = [candidate for candidate in self._classes.get(fields.row.transaction, []) if _agree(candidate, fields)]
        meant = {(candidate.text("INSTITUTION"), candidate.text("CLASS_NBR")) for candidate in matching}
        return matching[0] if len(meant) == 1 else None

    def _fields_of(self, row: Row, record: str) -> Fields:
        """Parents come before their children, so the parent's are known."""
        parent = self._fields[id(row.parent)] if row.parent is not None else None
        fields = Fields(row, self._context.dialect.field_names(record), parent)
        self._fields[id(row)] = fields
        return fields


def _bounded(rejects: list[Reject]) -> list[Reject]:
    """A message that is wrong throughout must not cost a database row for each of its rows."""
    if len(rejects) <= MAX_REJECTS:
        return rejects
    return [*rejects[:MAX_REJECTS], Reject("too_many_rejects", f"{len(rejects) - MAX_REJECTS} further parts")]


def _action(row: Row) -> str | None:
    """The row's own action; below a row that is gone or a before-image, a row without one shares its parent's fate."""
    if row.action or row.parent is None:
        return row.action
    inherited = _action(row.parent)
    return inherited if inherited in _INHERITED else row.action


def _agree(one: Fields, other: Fields) -> bool:
    pairs = ((one.text(name), other.text(name)) for name in CLASS_KEY)
    return all(mine == theirs for mine, theirs in pairs if mine is not None and theirs is not None)


def _too_long(draft: Draft) -> bool:
    """Ids that no database index can hold."""
    if draft.entity is not None and len(draft.entity.key) > MAX_KEY_LENGTH:
        return True
    longest = _MOST_PER_CHARACTER * sum(map(len, draft.key.values())) + len(draft.key)
    return longest > MAX_KEY_LENGTH and len(join(*draft.key.values())) > MAX_KEY_LENGTH


def _identity(draft: Draft) -> tuple[str, str]:
    return draft.record.name, join(*draft.key.values())


def _printable(name: str) -> str:
    """A record's name for logs and operators; anything that does not look like one is not repeated."""
    return name if _PLAIN_NAME.fullmatch(name) else "(not a record name)"


def _printable_path(path: str) -> str:
    return "/".join(part if _PLAIN_NAME.fullmatch(part.partition("[")[0]) else "(...)" for part in path.split("/"))
