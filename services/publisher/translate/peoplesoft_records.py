"""What each PeopleSoft record means: one reader per record, from a row's fields to the source rows that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from schemas import keys
from schemas.keys import EntityKey
from services.publisher.translate import records
from services.publisher.translate.dialect import Dialect
from services.publisher.translate.fields import Fields, RowRefused
from services.publisher.translate.records import Record

ENROLLMENT_STATUSES = frozenset("EDW")
"""Enrolled, dropped, wait-listed (W is never *withdrawn*: that is an E with a drop date, a reason or a grade)."""
CLASS_STATUSES = frozenset("ASTX")
"""Active, stop further enrollment, tentative, cancelled."""
_DISPLAY_NAME_LENGTH = 255


class Draft(NamedTuple):
    """A source row without its order."""

    record: Record
    key: dict[str, str]
    columns: dict[str, str]
    entity: EntityKey | None = None
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """What a reader needs beside the row."""

    tenant: str
    today: date
    """The site's date when the message was sent."""
    dialect: Dialect
    deletion: bool
    """The row names what is gone: only its key counts, and its values are not looked at."""
    unchanged: bool = False
    """The row is marked as unchanged, typically the parent that carries a changed child; it may leave its columns out."""
    owner: Callable[[Fields], Fields | None] = lambda _fields: None
    """The class that a CLASS_INSTR row belongs to when it stands beside it instead of inside it."""


Reader = Callable[[Fields, Reading], Iterator[Draft]]


def reader_of(record: str) -> Reader:
    """The reader of a delivered record in `records.PEOPLESOFT`."""
    return _READERS[record]


def _enrollment(row: Fields, reading: Reading) -> Iterator[Draft]:
    record = records.STDNT_ENRL
    key = row.key(record)
    entity = keys.enrollment_key(reading.tenant, key["INSTITUTION"], key["STRM"], key["CLASS_NBR"], key["EMPLID"], "learner")
    if reading.deletion:
        yield Draft(record, key, {}, entity, deleted=True)
    elif _says_something(row, "STDNT_ENRL_STATUS", ENROLLMENT_STATUSES, reading):
        yield Draft(record, key, row.columns(record) | _enrollment_flags(row, reading.dialect), entity)


def _enrollment_flags(row: Fields, dialect: Dialect) -> dict[str, str]:
    """Whether the grade is a withdrawal, and whether the student audits; never the grade itself."""
    flags = {}
    grade, basis = row.text("CRSE_GRADE_OFF"), row.text("GRADING_BASIS_ENRL")
    if grade is not None:
        flags["WITHDRAWAL_GRADE"] = "Y" if grade.lstrip().upper().startswith("W") else "N"
    if basis is not None:
        flags["AUDITOR"] = "Y" if basis.strip() in dialect.auditor_grading_bases else "N"
    return flags


def _class(row: Fields, reading: Reading) -> Iterator[Draft]:
    key = row.key(records.CLASS_TBL)
    institution, number = row.inherited("INSTITUTION"), row.inherited("CLASS_NBR")
    course = keys.course_key(reading.tenant, institution, course_of(key)) if institution else None
    if reading.deletion:
        section = _section_key(reading.tenant, institution, key["STRM"], number)
        yield Draft(records.CLASS_TBL, key, {}, section, deleted=True)
        yield Draft(records.CLASS_COURSE, key, {}, course, deleted=True)
        return
    if not _says_something(row, "CLASS_STAT", CLASS_STATUSES, reading):
        return
    section = keys.section_key(reading.tenant, row.identifier("INSTITUTION"), key["STRM"], row.identifier("CLASS_NBR"))
    yield Draft(records.CLASS_TBL, key, row.columns(records.CLASS_TBL), section)
    yield Draft(records.CLASS_COURSE, key, row.columns(records.CLASS_COURSE), course)


def course_of(key: dict[str, str]) -> str:
    """The course as offered that a class belongs to: all its sections and components share this."""
    return "-".join(key[name] for name in ("CRSE_ID", "CRSE_OFFER_NBR", "STRM", "SESSION_CODE"))


def _section_key(tenant: str, institution: str | None, term: str, number: str | None) -> EntityKey | None:
    if not institution or number in {None, "", "0"}:
        return None
    return keys.section_key(tenant, institution, term, str(number))


def _instructor(row: Fields, reading: Reading) -> Iterator[Draft]:
    """A row without a person ("Staff") is no membership; it removes whoever the same row named before."""
    record = records.CLASS_INSTR
    owner = reading.owner(row) if row.inherited("CLASS_NBR") is None else None
    key = {name: _own_or_of(owner, row, name) for name in record.key}
    person, institution, number = row.bounded("EMPLID"), _found(owner, row, "INSTITUTION"), _found(owner, row, "CLASS_NBR")
    entity = None
    if person and institution and number not in {None, "0"}:
        entity = keys.enrollment_key(reading.tenant, institution, key["STRM"], str(number), person, "staff")
    if reading.deletion or person == "":
        yield Draft(record, key, {}, entity, deleted=True)
    elif person is None:
        if not reading.unchanged:
            raise RowRefused("missing_field", "EMPLID")
    elif entity is None:
        raise RowRefused("missing_parent", "CLASS_NBR")
    else:
        place = {"INSTITUTION": str(institution), "CLASS_NBR": str(number)}
        yield Draft(record, key, row.columns(record) | place, entity)


def _found(owner: Fields | None, row: Fields, name: str) -> str | None:
    value = row.inherited(name)
    return owner.inherited(name) if value is None and owner is not None else value


def _own_or_of(owner: Fields | None, row: Fields, name: str) -> str:
    value = _found(owner, row, name)
    if not value:
        raise RowRefused("missing_key", name)
    return value


def _term(row: Fields, reading: Reading) -> Iterator[Draft]:
    record = records.TERM_TBL
    key = row.key(record)
    entity = keys.term_key(reading.tenant, key["INSTITUTION"], key["STRM"])
    columns = {} if reading.deletion else row.columns(record)
    yield Draft(record, key, columns, entity, deleted=reading.deletion)


def _person(row: Fields, reading: Reading) -> Iterator[Draft]:
    key = row.key(records.PERSON)
    yield Draft(records.PERSON, key, {}, keys.person_key(reading.tenant, key["EMPLID"]), deleted=reading.deletion)


def _name(row: Fields, reading: Reading) -> Iterator[Draft]:
    """One effective-dated name; of its many fields only the text to display is kept. Other name types are skipped."""
    record = records.NAMES
    if (row.text("NAME_TYPE") or "").strip() not in {"", *reading.dialect.name_types}:
        return
    begins = row.date("EFFDT") or ""
    key = {"EMPLID": row.identifier("EMPLID"), "NAME_TYPE": row.identifier("NAME_TYPE"), "EFFDT": begins}
    if not begins:
        raise RowRefused("missing_key", "EFFDT")
    entity = keys.person_key(reading.tenant, key["EMPLID"])
    if reading.deletion:
        yield Draft(record, key, {}, entity, deleted=True)
        return
    columns = row.columns(record) | {"AS_OF": reading.today.isoformat()}
    display_name = _display_name(row)
    yield Draft(record, key, columns if display_name is None else columns | {"DISPLAY_NAME": display_name}, entity)


def _display_name(row: Fields) -> str | None:
    """``First Last``, from whichever of PeopleSoft's name fields the message has; None when it has none of them."""
    display = row.text("NAME_DISPLAY")
    if display:
        return display.strip()
    first = row.text("PREF_FIRST_NAME") or row.text("FIRST_NAME")
    last, whole = row.text("LAST_NAME"), row.text("NAME")
    if first is None and last is None and whole is None:
        return display
    if not first and not last and whole:
        last, _, first = whole.partition(",")
    return " ".join(part.strip() for part in (first or "", last or "") if part.strip())[:_DISPLAY_NAME_LENGTH]


def _says_something(row: Fields, column: str, known: frozenset[str], reading: Reading) -> bool:
    """Check the code that the row's meaning hangs on. False: the row is unchanged and only carries its children."""
    code = row.text(column)
    if code is None:
        if reading.unchanged:
            return False
        raise RowRefused("missing_field", column)
    if code.strip() not in known:
        raise RowRefused("unknown_code", column)
    return True


_READERS: dict[str, Reader] = {
    records.STDNT_ENRL.name: _enrollment,
    records.CLASS_TBL.name: _class,
    records.CLASS_INSTR.name: _instructor,
    records.TERM_TBL.name: _term,
    records.PERSON.name: _person,
    records.NAMES.name: _name,
}
