"""Reading one row's fields: trimming, numbers, dates, key inheritance, bounds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import date

from services.publisher.translate.records import NUMBERS, Record
from services.publisher.translate.rowset import Row

_WHOLE_NUMBER = re.compile(r"\s*([0-9]{1,10})(?:\.0*)?")
_KEY_LENGTH = 30
"""PeopleSoft's longest key here has 11 characters. The bound keeps a row's key within what an index can hold."""
_VALUE_LENGTH = 255
_DUMMY_DATES = frozenset({"1900-01-01", "1901-01-01"})
"""What sites write into date columns that must not be null."""


class RowRefused(ValueError):
    """This row cannot be used; `reason` and `field` go to quarantine."""

    def __init__(self, reason: str, field: str) -> None:
        super().__init__(f"{reason}: {field}")
        self.reason = reason
        self.field = field


class Fields:
    """The fields of one row by their delivered names. Absent (None) and blank ("") differ: only a blank clears a value."""

    def __init__(self, row: Row, aliases: Mapping[str, str], parent: Fields | None) -> None:
        self.row = row
        self.parent = parent
        self._values = {aliases.get(name, name): value for name, value in row.fields.items()} if aliases else row.fields

    @property
    def blank(self) -> bool:
        """True for the empty row that stands for an empty scroll. Child rows do not count."""
        return not any(value.strip(" \t\r\n0.") for value in self._values.values())

    def text(self, name: str, longest: int = _VALUE_LENGTH) -> str | None:
        """Right-trimmed text (leading blanks and zeros can matter), normalised when the column is a number."""
        raw = self._values.get(name)
        if raw is None:
            return None
        value = _number(raw, name) if name in NUMBERS else raw.rstrip()
        if len(value) > longest:
            raise RowRefused("bad_value", name)
        return value

    def date(self, name: str) -> str | None:
        """``YYYY-MM-DD``, or "" when the SIS holds no date."""
        raw = self._values.get(name)
        if raw is None:
            return None
        text = raw.strip()[:10]
        if not text or text in _DUMMY_DATES:
            return ""
        try:
            return date.fromisoformat(text).isoformat()
        except ValueError as error:
            raise RowRefused("bad_value", name) from error

    def key(self, record: Record) -> dict[str, str]:
        """The natural key; a nested row may leave the part that it shares with its parents to them."""
        return {name: self.identifier(name) for name in record.key}

    def identifier(self, name: str) -> str:
        """A key column of this row or of the nearest parent that has it; never blank, and no class has the number zero."""
        value = self.text(name, _KEY_LENGTH)
        if value is None:
            value = self.inherited(name)
        if not value or (name == "CLASS_NBR" and value == "0"):
            raise RowRefused("missing_key", name)
        return value

    def inherited(self, name: str) -> str | None:
        """Like `bounded`, looking into parents as well."""
        value = self.bounded(name)
        return self.parent.inherited(name) if value is None and self.parent is not None else value

    def bounded(self, name: str) -> str | None:
        """Like `text`, for what becomes part of a key."""
        return self.text(name, _KEY_LENGTH)

    def columns(self, record: Record) -> dict[str, str]:
        """The allow-listed columns that the row itself has."""
        found = [(name, self.text(name)) for name in record.columns]
        found += [(name, self.date(name)) for name in record.dates]
        return {name: value for name, value in found if value is not None}

    def redacted(self, names: Iterable[str]) -> dict[str, str]:
        """Columns as they arrived, cut to their bound, for quarantine."""
        return {name: self._values[name].strip()[:_VALUE_LENGTH] for name in names if name in self._values}


def _number(raw: str, name: str) -> str:
    text = raw.strip()
    if not text:
        return "0"
    match = _WHOLE_NUMBER.fullmatch(text)
    if match is None:
        raise RowRefused("bad_value", name)
    return str(int(match[1]))
