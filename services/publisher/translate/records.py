"""The source records that the mirror keeps: their natural keys and the columns we are allowed to hold. Constants only.

Key orders are PeopleSoft's own; a row's identity never depends on the channel it came through. Columns marked as derived are
computed on arrival so that what they are computed from (a grade, a full name record) is never stored.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Record:
    """One kind of source row."""

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...] = ()
    """Copied as text."""
    dates: tuple[str, ...] = ()
    """Copied as ``YYYY-MM-DD``, blank when the SIS holds none."""
    derived: tuple[str, ...] = ()
    """Computed from fields that are not stored."""

    @property
    def stored(self) -> tuple[str, ...]:
        """Every column that a row of this record may have in the mirror."""
        return self.columns + self.dates + self.derived


NUMBERS = frozenset({"CLASS_NBR", "CRSE_OFFER_NBR", "CLASS_MTG_NBR", "INSTR_ASSIGN_SEQ"})
"""Columns that PeopleSoft declares as numbers: ``26191.00``, ``026191`` and ``26191`` are one value."""

CLASS_KEY = ("CRSE_ID", "CRSE_OFFER_NBR", "STRM", "SESSION_CODE", "CLASS_SECTION")

STDNT_ENRL = Record(
    "STDNT_ENRL",
    key=("EMPLID", "ACAD_CAREER", "INSTITUTION", "STRM", "CLASS_NBR"),
    columns=("STDNT_ENRL_STATUS", "ENRL_STATUS_REASON"),
    dates=("ENRL_ADD_DT", "ENRL_DROP_DT", "STATUS_DT"),
    derived=("WITHDRAWAL_GRADE", "AUDITOR"),
)
CLASS_TBL = Record(
    "CLASS_TBL",
    key=CLASS_KEY,
    columns=("INSTITUTION", "CLASS_NBR", "CLASS_STAT", "SSR_COMPONENT"),
    dates=("CANCEL_DT",),
)
CLASS_COURSE = Record("CLASS_TBL.COURSE", key=CLASS_KEY, columns=("INSTITUTION", "SUBJECT", "CATALOG_NBR"))
"""What a CLASS_TBL row says about its course: a source row of its own, because each source row folds into one entity."""
CLASS_INSTR = Record(
    "CLASS_INSTR",
    key=(*CLASS_KEY, "CLASS_MTG_NBR", "INSTR_ASSIGN_SEQ"),
    columns=("EMPLID", "INSTR_ROLE", "INSTITUTION", "CLASS_NBR"),
)
TERM_TBL = Record("TERM_TBL", key=("INSTITUTION", "ACAD_CAREER", "STRM"), dates=("TERM_BEGIN_DT", "TERM_END_DT"))
PERSON = Record("PERSON", key=("EMPLID",))
NAMES = Record("NAMES", key=("EMPLID", "NAME_TYPE", "EFFDT"), columns=("EFF_STATUS",), derived=("DISPLAY_NAME", "AS_OF"))
"""AS_OF is the site's date when the row was sent: the fold's *today*, so that it needs no clock."""

PEOPLESOFT = {record.name: record for record in (STDNT_ENRL, CLASS_TBL, CLASS_INSTR, TERM_TBL, PERSON, NAMES)}
"""The records that a message may carry, by name."""

CANONICAL_ENROLLMENT = Record(
    "canonical.enrollment",
    key=("institution", "term", "section", "person", "role_family"),
    columns=("status", "role"),
    dates=("effective_date",),
)
CANONICAL_PERSON = Record("canonical.person", key=("person",), columns=("display_name", "login", "email", "merged_into"))
CANONICAL_SECTION = Record(
    "canonical.section",
    key=("institution", "term", "section"),
    columns=("status", "course", "session", "component"),
    dates=("effective_date",),
)
CANONICAL_COURSE = Record("canonical.course", key=("institution", "course"), columns=("subject", "catalog_number"))
CANONICAL_TERM = Record("canonical.term", key=("institution", "term"), dates=("start_date", "end_date"))

NAME_COLUMNS = frozenset({"DISPLAY_NAME", "display_name", "login", "email"})
"""The only columns that hold a person's name, or what may be made of it; quarantine masks them."""
