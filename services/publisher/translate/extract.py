"""Full extracts in CSV to source rows. Pure: lines in, what each of them says out.

The first line names the columns, the last is ``TRAILER,<rows>``: only a query that came to its end writes it, so that a file that
was cut off anywhere on its way is told from a whole one. What is wrong with the extract as a whole is `ExtractRefused`; a line
that cannot be used is a reject, and still says that somebody is there.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Protocol

from schemas.events import OrderToken
from schemas.keys import MAX_KEY_LENGTH, EntityKind, RoleFamily
from services.publisher.changes import Change, Reject, natural_key
from services.publisher.translate import canonical, records
from services.publisher.translate.canonical import CanonicalContext
from services.publisher.translate.dialect import Dialect
from services.publisher.translate.fields import Fields, RowRefused
from services.publisher.translate.peoplesoft import LATE_COMMIT
from services.publisher.translate.peoplesoft_records import Reading, reader_of
from services.publisher.translate.records import Record
from services.publisher.translate.rowset import Row

TRAILER = "TRAILER"
_LONGEST_ROW = 1024 * 1024
"""Characters."""
_COUNT = re.compile(r"[0-9]{1,18}")
_NAMED = 20
"""Columns that a refusal names: for people."""
_COLUMN_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_$#]{0,63}")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""What began before is no time: many programs send year 1 for it."""
_FAMILIES: tuple[RoleFamily, ...] = ("learner", "staff")


class ExtractRefused(ValueError):
    """The extract as a whole cannot be used. `reason` is a closed code; `detail` is for people and quotes no value of a row."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of extract."""

    record: Record
    """Each line is one row of it, and may say something about another record as well."""
    entity: EntityKind
    place: tuple[str, str]
    """The columns that hold institution and term."""
    required: tuple[str, ...]
    """Columns that membership hangs on: without one of them the lines would say something else than is meant."""
    optional: tuple[str, ...] = ()
    """Further columns that are read. All others are ignored."""
    companion: Record | None = None
    """What a line says beside its own record, under the same key."""


KINDS: dict[str, Kind] = {
    "STDNT_ENRL": Kind(
        records.STDNT_ENRL,
        "enrollment",
        ("INSTITUTION", "STRM"),
        (*records.STDNT_ENRL.key, "STDNT_ENRL_STATUS", "ENRL_STATUS_REASON", "ENRL_ADD_DT", "ENRL_DROP_DT"),
        ("STATUS_DT", "CRSE_GRADE_OFF", "GRADING_BASIS_ENRL"),
    ),
    "CLASS_TBL": Kind(
        records.CLASS_TBL,
        "section",
        ("INSTITUTION", "STRM"),
        (*records.CLASS_TBL.key, "INSTITUTION", "CLASS_NBR", "CLASS_STAT"),
        ("SSR_COMPONENT", "CANCEL_DT", "SUBJECT", "CATALOG_NBR"),
        companion=records.CLASS_COURSE,
    ),
    "CLASS_INSTR": Kind(
        records.CLASS_INSTR,
        "enrollment",
        ("INSTITUTION", "STRM"),
        (*records.CLASS_INSTR.key, "INSTITUTION", "CLASS_NBR", "EMPLID", "INSTR_ROLE"),
    ),
    "enrollment": Kind(
        records.CANONICAL_ENROLLMENT,
        "enrollment",
        ("institution", "term"),
        ("institution", "term", "section", "person", "status", "role"),
        ("role_family", "effective_date"),
    ),
    "section": Kind(
        records.CANONICAL_SECTION,
        "section",
        ("institution", "term"),
        ("institution", "term", "section", "status"),
        ("course", "session", "component", "effective_date"),
    ),
}
"""By the name under which an extract is delivered."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an extract claims to be: all rows of one kind, of one term of one institution, between two instants."""

    tenant: str
    caller: str
    kind: str
    """A key of `KINDS`."""
    institution: str
    term: str
    started_at: datetime
    """When its query began: what was committed before, less the late-commit margin, is in it."""
    ended_at: datetime
    received_at: datetime

    @property
    def channel(self) -> str:
        """Extracts of one caller are one channel, whose positions are the beginnings of their queries."""
        return f"snapshot:{self.caller}"

    @property
    def order(self) -> OrderToken:
        """Of every row: the extract may show a row as it was up to the late-commit margin before it began, or as it ended."""
        return OrderToken(
            channel=self.channel,
            position=(self.started_at - EPOCH) // timedelta(microseconds=1),
            as_of_from=self.started_at - LATE_COMMIT,
            as_of_to=self.ended_at,
            snapshot=True,
        )


@dataclass(frozen=True, slots=True)
class Site:
    """What the lines do not say themselves."""

    timezone: tzinfo
    dialect: Dialect = field(default_factory=Dialect)


@dataclass(frozen=True, slots=True)
class Line:
    """What one line says."""

    changes: Sequence[Change] = ()
    reject: Reject | None = None
    """Why it cannot be used."""
    keys: Sequence[str] = ()
    """Of a line that cannot be used: the rows that it may be about. None at all: it may be about any row."""


def read(text: Iterable[str], manifest: Manifest, site: Site) -> Iterator[Line]:
    """Every line between header and trailer. Raises `ExtractRefused`, at its end too: use nothing before that."""
    yield from _lines(_cells(text), KINDS[manifest.kind], manifest, site)


def _cells(text: Iterable[str]) -> Iterator[list[str]]:
    """Row by row. Cells in quotes may hold line ends, so that a row is bounded here as well as its lines are."""
    of_row = 0

    def lines() -> Iterator[str]:
        nonlocal of_row
        for number, line in enumerate(_decoded(text), 1):
            of_row += len(line)
            if of_row > _LONGEST_ROW:
                raise ExtractRefused(
                    "malformed_csv", f"a row of more than {_LONGEST_ROW} characters ends nowhere before line {number}"
                )
            yield line

    cells = csv.reader(lines(), strict=True)
    try:
        for row in cells:
            of_row = 0
            yield row
    except csv.Error as error:
        raise ExtractRefused(
            "malformed_csv", f"no CSV after line {cells.line_num}: a quote is not closed, or stands amid text"
        ) from error


def _decoded(text: Iterable[str]) -> Iterator[str]:
    number = 0
    try:
        for number, line in enumerate(text, 1):
            if "\0" in line:
                raise ExtractRefused("wrong_encoding", f"line {number} holds NUL characters; is it UTF-16? Send UTF-8")
            yield line
    except UnicodeDecodeError as error:
        raise ExtractRefused("wrong_encoding", f"not UTF-8 after line {number}") from error


def _lines(cells: Iterator[list[str]], kind: Kind, manifest: Manifest, site: Site) -> Iterator[Line]:
    header = next((row for row in cells if row), None)
    if header is None:
        raise ExtractRefused("empty", "the file has no line")
    names = _names(header, kind, site.dialect)
    reader = _reader(kind, manifest, site)
    count, counted = 0, None
    for row in cells:
        if not row:
            continue
        if counted is not None:
            raise ExtractRefused("malformed_csv", "lines follow the trailer")
        if row[0] == TRAILER and len(row) == 2:
            counted = row[1].strip()
            continue
        count += 1
        yield _line(row, names, reader, manifest, count)
    if not count:
        raise ExtractRefused("empty", "the extract holds no row; a term without anybody is a query that found nothing")
    if counted is None:
        raise ExtractRefused("truncated", f"the file ends after {count} rows without a trailer")
    if counted != str(count):
        told = counted if _COUNT.fullmatch(counted) else "no number"
        raise ExtractRefused("count_mismatch", f"the trailer says {told}, the file holds {count} rows")


def _names(header: Sequence[str], kind: Kind, dialect: Dialect) -> list[str]:
    """The header by delivered names. Where no column of ours is in it, it may be a row of data: then nothing of it is told."""
    aliases = dialect.field_names(kind.record.name)
    names = [aliases.get(cell.strip(), cell.strip()) for cell in header]
    missing = [name for name in kind.required if name not in names]
    if len(missing) == len(kind.required):
        raise ExtractRefused("no_header", f"the first line names none of the columns {', '.join(kind.required)}")
    if missing:
        unknown = [name for name in names if name not in kind.required + kind.optional and _COLUMN_NAME.fullmatch(name)]
        renamed = f"; not known: {', '.join(unknown[:_NAMED])}: has a column been renamed?" if unknown else ""
        raise ExtractRefused("missing_columns", f"without {', '.join(missing)}{renamed}")
    twice = sorted({name for name in kind.required + kind.optional if names.count(name) > 1})
    if twice:
        raise ExtractRefused("doubled_columns", f"{', '.join(twice)} twice")
    return names


def _line(row: Sequence[str], names: Sequence[str], reader: _Reader, manifest: Manifest, number: int) -> Line:
    if len(row) != len(names):
        return Line(reject=Reject("malformed_line", f"row {number}: {len(row)} cells under {len(names)} columns"))
    values = dict(zip(names, row, strict=True))
    try:
        _refuse_elsewhere(reader.place(values), manifest, number)
        changes = [replace(change, order=manifest.order) for change in reader.changes(values)]
        if any(max(len(change.row_key), len(change.entity.key) if change.entity else 0) > MAX_KEY_LENGTH for change in changes):
            raise RowRefused("bad_value", "key")
        return Line(changes)
    except RowRefused as refusal:
        reject = Reject(refusal.reason, f"row {number}: {refusal.field}", reader.redacted(values))
        return Line(reject=reject, keys=reader.keys(values))


def _refuse_elsewhere(place: tuple[str, str], manifest: Manifest, number: int) -> None:
    """A row of another term says that the query's filter is not what the sender believes."""
    if all(place) and place != (manifest.institution, manifest.term):
        raise ExtractRefused("other_scope", f"row {number} is of another institution or term than the extract claims to be")


# --- the two ways to write a row -------------------------------------------------------------------------------------


class _Reader(Protocol):
    def place(self, values: Mapping[str, str]) -> tuple[str, str]:
        """Institution and term; blank where the row does not say. Raises `RowRefused`."""

    def changes(self, values: Mapping[str, str]) -> list[Change]:
        """What the row says; raises `RowRefused`."""

    def keys(self, values: Mapping[str, str]) -> list[str]:
        """The natural keys that a row may have which cannot be used."""

    def redacted(self, values: Mapping[str, str]) -> dict[str, str]:
        """The allow-listed columns."""


def _reader(kind: Kind, manifest: Manifest, site: Site) -> _Reader:
    is_canonical = kind.record.name.startswith("canonical.")
    return _Canonical(kind, manifest) if is_canonical else _PeopleSoft(kind, manifest, site)


class _PeopleSoft:
    def __init__(self, kind: Kind, manifest: Manifest, site: Site) -> None:
        self._kind = kind
        self._tenant = manifest.tenant
        self._order = manifest.order
        today = manifest.started_at.astimezone(site.timezone).date()
        self._reading = Reading(manifest.tenant, today, site.dialect, deletion=False)

    def place(self, values: Mapping[str, str]) -> tuple[str, str]:
        fields = self._fields(values)
        institution, term = (fields.text(name) or "" for name in self._kind.place)
        return institution, term

    def changes(self, values: Mapping[str, str]) -> list[Change]:
        drafts = reader_of(self._kind.record.name)(self._fields(values), self._reading)
        return [
            Change(self._tenant, draft.record.name, draft.key, draft.columns, draft.entity, self._order, draft.deleted)
            for draft in drafts
        ]

    def keys(self, values: Mapping[str, str]) -> list[str]:
        try:
            return [natural_key(self._fields(values).key(self._kind.record))]
        except RowRefused:
            return []

    def redacted(self, values: Mapping[str, str]) -> dict[str, str]:
        return self._fields(values).redacted(self._kind.record.key + self._kind.record.stored)

    @staticmethod
    def _fields(values: Mapping[str, str]) -> Fields:
        return Fields(Row("", values, None, "", 0), {}, None)


class _Canonical:
    def __init__(self, kind: Kind, manifest: Manifest) -> None:
        self._kind = kind
        self._name = manifest.kind
        self._context = CanonicalContext(manifest.tenant, manifest.channel, manifest.received_at)

    def place(self, values: Mapping[str, str]) -> tuple[str, str]:
        institution, term = (values[name].strip() for name in self._kind.place)
        return institution, term

    def changes(self, values: Mapping[str, str]) -> list[Change]:
        known = {name: values[name].strip() or None for name in self._kind.required + self._kind.optional if name in values}
        if blank := [name for name in self._stated_key() if known[name] is None]:
            raise RowRefused("missing_key", blank[0])
        found = canonical.change({"kind": self._name} | known, self._context)
        if isinstance(found, Change):
            return [found]
        name = found[0].pointer.lstrip("/") or "role_family"
        raise RowRefused("unknown_code" if name in {"status", "role"} else "bad_value", name)

    def keys(self, values: Mapping[str, str]) -> list[str]:
        """A role that nobody knows leaves open in which family the person is there. What no row can be called is nobody's key."""
        stated = {name: values[name].strip() for name in self._stated_key()}
        if not all(stated.values()):
            return []
        in_each_family = [{"role_family": family} for family in _FAMILIES] if "role_family" in self._kind.record.key else [{}]
        keys = [natural_key(stated | family) for family in in_each_family]
        return keys if all(len(key) <= MAX_KEY_LENGTH for key in keys) else []

    def redacted(self, values: Mapping[str, str]) -> dict[str, str]:
        return {name: values[name][:255] for name in self._kind.record.key + self._kind.record.stored if name in values}

    def _stated_key(self) -> list[str]:
        return [name for name in self._kind.record.key if name != "role_family"]
