"""All rows in every column, and what has changed in them since a moment: proof that a column was not touched."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from services.sandbox.canvas.state import Account, Course, Enrollment, Pseudonym, Role, Section, Term, User
from services.sandbox.canvas.world import World

Columns = dict[str, Any]
Row = Enrollment | Section | Course | Term | User | Pseudonym
KINDS = ("enrollments", "sections", "courses", "terms", "users", "logins")
_WITH_ID = (Account, Course, Enrollment, Pseudonym, Role, Section, Term, User)
_NOT_COLUMNS = frozenset({"history", "sections", "enrollments", "pseudonyms"})
"""What is only the other side of a reference, or our own."""


def columns(row: Row) -> Columns:
    """Every column of a row; a reference is the id of what it refers to. A new column of the state appears by itself."""
    return {field.name: _plain(getattr(row, field.name)) for field in fields(row) if field.name not in _NOT_COLUMNS}


def _plain(value: Any) -> Any:
    if isinstance(value, _WITH_ID):
        return value.id
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")  # in full: two updates within a second are two
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value


def rows(world: World, kind: str) -> Iterable[Row]:
    """All rows of one of `KINDS`."""
    found: dict[int, Row] = getattr(world, kind)
    return found.values()


def sis_ids(row: Row) -> Columns:
    """For a reader: whose row it is, in the words of the SIS."""
    if isinstance(row, Enrollment):
        login = row.user.login() or next(iter(row.user.pseudonyms), None)
        return {
            "section": row.section.sis_section_id,
            "course": row.course.sis_course_id,
            "user": login.sis_user_id if login else None,
            "login": row.sis_pseudonym.sis_user_id if row.sis_pseudonym else None,
            "role": row.role.name,
        }
    return {}


def dump(world: World, kinds: Collection[str]) -> dict[str, list[Columns]]:
    """Every row of the kinds, by id; ``sis`` says in SIS ids what an enrollment refers to."""
    return {kind: [columns(row) | {"sis": sis_ids(row)} for row in rows(world, kind)] for kind in kinds}


class Snapshots:
    """States of the world that were kept to be compared with."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._kept: dict[int, dict[str, dict[int, Columns]]] = {}
        self._ids = itertools.count(1)

    def take(self) -> int:
        """Keep every column of every row as it is now."""
        identity = next(self._ids)
        self._kept[identity] = {kind: {row.id: columns(row) for row in rows(self._world, kind)} for kind in KINDS}
        return identity

    def drop(self, identity: int) -> bool:
        """Forget one; false when there is none."""
        return self._kept.pop(identity, None) is not None

    def changes(self, identity: int, ignore: Collection[str] = ()) -> list[Columns] | None:
        """What is new, gone or different since; ``ignore`` names columns that may differ. None when there is no such snapshot.

        ``changed`` maps a column to what it was and what it is. A row that is new has ``added``, one that is gone ``removed``.
        """
        kept = self._kept.get(identity)
        if kept is None:
            return None
        return [change for kind in KINDS for change in self._of_kind(kind, kept[kind], set(ignore))]

    def _of_kind(self, kind: str, before: dict[int, Columns], ignore: set[str]) -> Iterable[Columns]:
        present = set()
        for row in rows(self._world, kind):
            present.add(row.id)
            now = columns(row)
            about = {"kind": kind, "id": row.id, "sis": sis_ids(row)}
            if row.id not in before:
                yield about | {"added": now}
                continue
            old = before[row.id]
            changed = {name: [old[name], value] for name, value in now.items() if old[name] != value and name not in ignore}
            if changed:
                yield about | {"changed": changed}
        for identity in before.keys() - present:
            yield {"kind": kind, "id": identity, "sis": {}, "removed": before[identity]}
