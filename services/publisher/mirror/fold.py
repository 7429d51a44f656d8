"""Source rows of one entity to its state. Pure, and independent of the order of the rows.

The state is every field of the event except tenant, version, hash, times and source rows. Codes of the SIS are kept verbatim,
but only those that a membership hangs on: a new grade or a new career must not look like a change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from schemas.events import STRONGEST_FIRST, EnrollmentRole, EnrollmentStatus
from schemas.keys import EntityKey, EntityKind
from services.publisher.changes import MirrorRow
from services.publisher.translate import records
from services.publisher.translate.peoplesoft_records import course_of

State = dict[str, Any]


def fold(kind: EntityKind, key: EntityKey, rows: Sequence[MirrorRow]) -> State:
    """The state of an entity with these rows; no rows at all means that they have all moved to other entities."""
    return _FOLDS[kind](key, rows)


def meaning(kind: EntityKind, key: EntityKey, row: MirrorRow) -> object:
    """What one row says, today or on a later day: rows of equal meaning are interchangeable, whatever stands beside them."""
    if row.record == records.NAMES.name:  # a name that begins in the future says nothing yet, and is not to be lost
        return row.deleted, {name: value for name, value in row.columns.items() if name != "AS_OF"}
    if kind == "enrollment":
        return _after_deletion([row], key.parts[-1]) if row.deleted else _membership(row)
    return fold(kind, key, [row])


# --- enrollments -----------------------------------------------------------------------------------------------------


class _Membership(NamedTuple):
    """What one row says about one person in one section."""

    status: EnrollmentStatus
    role: EnrollmentRole
    codes: dict[str, str]
    effective_date: str | None = None
    tie: tuple[str, ...] = ()
    """Decides between rows of equal rank; the greater wins."""


_ROLE_RANK: tuple[EnrollmentRole, ...] = (
    "instructor_primary",
    "instructor_secondary",
    "assistant",
    "student",
    "auditor",
    "other",
)
_INSTRUCTOR_ROLES: dict[str, EnrollmentRole] = {"PI": "instructor_primary", "SI": "instructor_secondary", "TA": "assistant"}
_ENDED: frozenset[EnrollmentStatus] = frozenset({"dropped", "cancelled"})
"""What a purge may delete without anything having changed for the student."""


def _fold_enrollment(key: EntityKey, rows: Sequence[MirrorRow]) -> State:
    institution, term, section, person, family = key.parts
    live = [_membership(row) for row in rows if not row.deleted]
    chosen = _strongest(live) if live else _after_deletion(rows, family)
    return {
        "institution": institution,
        "term": term,
        "section": section,
        "person": person,
        "role_family": family,
        "status": chosen.status,
        "role": chosen.role,
        "effective_date": chosen.effective_date,
        "codes": chosen.codes,
    }


def _strongest(memberships: Sequence[_Membership]) -> _Membership:
    """A class taken in two careers is two rows and one membership. By status, then by role (instructors repeat per meeting
    pattern), then by the later dates."""
    if len(memberships) == 1:  # nearly always
        return memberships[0]
    return max(memberships, key=lambda one: (-STRONGEST_FIRST.index(one.status), -_ROLE_RANK.index(one.role), one.tie))


def _after_deletion(rows: Sequence[MirrorRow], family: str) -> _Membership:
    """Every row is gone: dropped. A row that had ended before (a purge of old drops) leaves the state exactly as it was."""
    if not rows:
        return _Membership("dropped", "student" if family == "learner" else "other", {})
    last = _strongest([_membership(row) for row in rows])
    if last.status in _ENDED:
        return last
    return _Membership("dropped", last.role, last.codes | {"deleted": "Y"})


def _membership(row: MirrorRow) -> _Membership:
    return _MEMBERSHIPS[row.record](row)


def _student(row: MirrorRow) -> _Membership:
    columns = row.columns
    status = _student_status(columns)
    added, dropped = columns.get("ENRL_ADD_DT", ""), columns.get("ENRL_DROP_DT", "")
    ended = status not in {"enrolled", "waitlisted"}
    effective = (dropped if ended else added) or columns.get("STATUS_DT", "")
    codes = {name: columns[name] for name in ("STDNT_ENRL_STATUS", "ENRL_STATUS_REASON") if columns.get(name)}
    if status == "withdrawn" and columns.get("WITHDRAWAL_GRADE") == "Y":
        codes["WITHDRAWAL_GRADE"] = "Y"
    role: EnrollmentRole = "auditor" if columns.get("AUDITOR") == "Y" else "student"
    # Dates first; the rest only makes the choice the same for every order of the rows.
    tie = (dropped if ended else "", added, effective, *sorted(codes.values()))
    return _Membership(status, role, codes, effective or None, tie)


def _student_status(columns: dict[str, str]) -> EnrollmentStatus:
    """The membership behind a status letter. E alone does not mean enrolled: a withdrawn student keeps it."""
    letter, reason = columns.get("STDNT_ENRL_STATUS", "").strip(), columns.get("ENRL_STATUS_REASON", "").strip()
    if letter == "W":
        return "waitlisted"
    if reason == "CANC":
        return "cancelled"
    if letter != "E":
        return "dropped"
    withdrawn = reason == "WDRW" or columns.get("ENRL_DROP_DT") or columns.get("WITHDRAWAL_GRADE") == "Y"
    return "withdrawn" if withdrawn else "enrolled"


def _instructor(row: MirrorRow) -> _Membership:
    code = row.columns.get("INSTR_ROLE", "").strip()
    codes = {"INSTR_ROLE": code} if code else {}
    return _Membership("enrolled", _INSTRUCTOR_ROLES.get(code, "other"), codes, tie=(code,))


def _canonical(row: MirrorRow) -> _Membership:
    columns, family = row.columns, row.key.get("role_family", "learner")
    status = columns.get("status") or "dropped"
    role = columns.get("role") or ("student" if family == "learner" else "other")
    effective = columns.get("effective_date", "")
    return _Membership(status, role, {}, effective or None, (effective, role))  # type: ignore[arg-type]  # validated on arrival


_MEMBERSHIPS: dict[str, Callable[[MirrorRow], _Membership]] = {
    records.STDNT_ENRL.name: _student,
    records.CLASS_INSTR.name: _instructor,
    records.CANONICAL_ENROLLMENT.name: _canonical,
}


# --- people ----------------------------------------------------------------------------------------------------------


def _fold_person(key: EntityKey, rows: Sequence[MirrorRow]) -> State:
    """Gone when the SIS deleted the person's own row, when no row is left, or when it keeps them under another id."""
    (person,) = key.parts
    own = [row for row in rows if row.record != records.NAMES.name]
    live = [row for row in rows if not row.deleted]
    merged_into = _first(live, "merged_into")
    active = bool(live) and (not own or any(not row.deleted for row in own)) and merged_into is None
    more = {"merged_into": merged_into}
    if active:
        more |= {"login": _first(live, "login"), "email": _first(live, "email")}
    return {
        "person": person,
        "status": "active" if active else "removed",
        "display_name": _display_name(live) if active else None,
        **{name: value for name, value in more.items() if value is not None},
    }


def _display_name(live: list[MirrorRow]) -> str | None:
    stated = max((row.columns.get("display_name", "") for row in live), default="")
    return stated or _name_in_force(live, "PRF") or _name_in_force(live, "PRI") or _any_name(live) or None


def _name_in_force(live: list[MirrorRow], name_type: str) -> str:
    """The newest row in force today decides, also when it says that the person no longer has such a name."""
    names = [row for row in live if row.record == records.NAMES.name]
    today = max((row.columns.get("AS_OF", "") for row in names), default="")
    begun = [row for row in names if row.key["NAME_TYPE"] == name_type and row.key["EFFDT"] <= today]
    newest = max(begun, key=lambda row: row.key["EFFDT"], default=None)
    if newest is None or newest.columns.get("EFF_STATUS", "A").strip() not in {"", "A"}:
        return ""
    return newest.columns.get("DISPLAY_NAME", "")


def _any_name(live: list[MirrorRow]) -> str:
    """A site's own name types, when it configured some."""
    types = sorted({row.key["NAME_TYPE"] for row in live if row.record == records.NAMES.name} - {"PRF", "PRI"})
    return next((name for name in (_name_in_force(live, name_type) for name_type in types) if name), "")


# --- sections, courses, terms ----------------------------------------------------------------------------------------

_CLASS_STATUSES = {"A": "active", "S": "closed", "T": "tentative", "X": "cancelled"}
_SECTION_RANK = ("active", "closed", "tentative", "cancelled", "removed")


def _fold_section(key: EntityKey, rows: Sequence[MirrorRow]) -> State:
    institution, term, section = key.parts
    live = [row for row in rows if not row.deleted]
    described = [_CLASS_READERS[row.record](row) for row in live]
    # A class number can stand in two rows for a while (a class that moved); the one that is still taught counts.
    chosen = min(described, key=lambda one: (_SECTION_RANK.index(one["status"]), str(one)), default=_REMOVED_SECTION)
    return {"institution": institution, "term": term, "section": section, **chosen}


_REMOVED_SECTION: State = {
    "status": "removed",
    "course": None,
    "session": None,
    "component": None,
    "effective_date": None,
    "codes": {},
}


def _class(row: MirrorRow) -> State:
    code = row.columns.get("CLASS_STAT", "").strip()
    status = _CLASS_STATUSES.get(code, "active")
    return {
        "status": status,
        "course": course_of(row.key),
        "session": row.key["SESSION_CODE"],
        "component": row.columns.get("SSR_COMPONENT") or None,
        "effective_date": (row.columns.get("CANCEL_DT") or None) if status == "cancelled" else None,
        "codes": {"CLASS_STAT": code},
    }


def _canonical_section(row: MirrorRow) -> State:
    columns = row.columns
    stated = {name: columns.get(name) or None for name in ("course", "session", "component", "effective_date")}
    return {"status": columns.get("status", "active"), **stated, "codes": {}}


_CLASS_READERS: dict[str, Callable[[MirrorRow], State]] = {
    records.CLASS_TBL.name: _class,
    records.CANONICAL_SECTION.name: _canonical_section,
}


def _fold_course(key: EntityKey, rows: Sequence[MirrorRow]) -> State:
    """Every class of the course says the same about it; where they disagree, the choice is at least stable."""
    institution, course = key.parts
    live = [row for row in rows if not row.deleted]
    return {
        "institution": institution,
        "course": course,
        "status": "active" if live else "removed",
        "subject": _first(live, "SUBJECT", "subject"),
        "catalog_number": _first(live, "CATALOG_NBR", "catalog_number"),
    }


def _fold_term(key: EntityKey, rows: Sequence[MirrorRow]) -> State:
    """PeopleSoft keeps a row per career; the term lasts from the first beginning to the last end."""
    institution, term = key.parts
    live = [row for row in rows if not row.deleted]
    return {
        "institution": institution,
        "term": term,
        "status": "active" if live else "removed",
        "start_date": min(_values(live, "TERM_BEGIN_DT", "start_date"), default=None),
        "end_date": max(_values(live, "TERM_END_DT", "end_date"), default=None),
    }


def _first(live: list[MirrorRow], *names: str) -> str | None:
    return min(_values(live, *names), default=None)


def _values(live: list[MirrorRow], *names: str) -> list[str]:
    return [row.columns[name] for row in live for name in names if row.columns.get(name)]


_FOLDS: dict[EntityKind, Callable[[EntityKey, Sequence[MirrorRow]], State]] = {
    "enrollment": _fold_enrollment,
    "person": _fold_person,
    "section": _fold_section,
    "course": _fold_course,
    "term": _fold_term,
}
