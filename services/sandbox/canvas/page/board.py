"""What the page shows of a Canvas: chosen here, drawn in `drawing`. Bounded, however many rows there are.

Sections are tiles, the busiest of them whole rosters; of a long roster the rows that changed last.
"""

from __future__ import annotations

import heapq
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from services.sandbox.canvas.journal import Change
from services.sandbox.canvas.latest_calls import LatestCall
from services.sandbox.canvas.state import COURSE_TYPES, Enrollment, Section, User

if TYPE_CHECKING:
    from services.sandbox.canvas.app import Canvas

TILES = 120
ROSTERS = 6
CHANGES = 12
CALLS = 10
MEMBERS, MEMBERS_OF_ONE = 30, 300
"""Of each role, and where one section was asked for."""
FRESH_SECONDS = 6.0
"""So long a change stands out."""
_BUSY_OVER = 100
"""The busiest sections are those with most of the newest so many changes."""
_HERE = ("active", "invited", "creation_pending")
_ROLES_IN_ORDER = ("TeacherEnrollment", "TaEnrollment", "DesignerEnrollment", "StudentEnrollment", "ObserverEnrollment")
_REFUSED = ("403", "429")

Fresh = Literal["gained", "lost"]


class Wish(NamedTuple):
    """What the visitor asked for."""

    find: str = ""
    """Part of the name of a class or a person, or an id of the SIS."""
    section: int | None = None
    """Canvas id of the one section to show."""


class Member(NamedTuple):
    enrollment: int
    name: str
    state: str
    fresh: Fresh | None
    found: bool
    """It is whom the visitor looks for."""


@dataclass(frozen=True, slots=True)
class Group:
    """The members of one role."""

    role: str
    here: list[Member]
    gone: list[Member]
    here_total: int
    gone_total: int


@dataclass(frozen=True, slots=True)
class Roster:
    section: Section
    active: int
    gone: int
    changed_at: float | None
    """Seconds since the epoch of its last change, if that is still in the journal."""
    groups: list[Group]


class Tile(NamedTuple):
    """One section, small."""

    section: Section
    active: int
    fresh: Fresh | None


@dataclass(frozen=True, slots=True)
class Board:
    """Everything that is shown."""

    stamp: str
    """Another one when anything may look otherwise."""
    wish: Wish
    active: int
    """Active enrollments in all sections."""
    people: int
    sections: int
    changes_total: int
    calls_total: int
    calls_refused: int
    calls_per_second: float
    latency: tuple[float, float] | None
    """p50 and p95 of the latest calls, seconds."""
    tiles: list[Tile]
    rosters: list[Roster]
    changes: list[Change]
    calls: list[LatestCall]


class View:
    """Looks at one Canvas."""

    def __init__(self, canvas: Canvas) -> None:
        self._canvas = canvas

    def stamp(self) -> str:
        """Cheap, for a visitor who looks again every second."""
        world, journal = self._canvas.world, self._canvas.world.journal
        now = time.time()
        fading = journal.newest and now - journal.newest[-1].at <= FRESH_SECONDS + 1
        parts = (
            journal.number,
            sum(self._canvas.calls.values()),
            len(world.sections),
            len(world.users),
            int(now) if fading else 0,
        )
        return "-".join(map(str, parts))

    def board(self, wish: Wish) -> Board:
        """Everything that is shown now."""
        canvas, world, now = self._canvas, self._canvas.world, time.time()
        calls = canvas.calls
        found = _found(world.users.values(), wish.find)
        chosen = self._chosen(wish, found)
        return Board(
            self.stamp(),
            wish,
            active=sum(row.state == "active" for row in world.enrollments.values()),
            people=sum(bool(user.pseudonyms) for user in world.users.values()),
            sections=len(world.sections),
            changes_total=world.journal.number,
            calls_total=sum(calls.values()),
            calls_refused=sum(count for (_, outcome), count in calls.items() if outcome in _REFUSED),
            calls_per_second=canvas.latest_calls.per_second(now),
            latency=canvas.latest_calls.latency(),
            tiles=self._tiles(now),
            rosters=[self._roster(section, found, now, wish) for section in chosen],
            changes=list(world.journal.newest)[: -CHANGES - 1 : -1],
            calls=canvas.latest_calls.newest(CALLS),
        )

    def _chosen(self, wish: Wish, found: set[User]) -> list[Section]:
        """The section that was asked for, those that match, or the busiest."""
        sections = self._canvas.world.sections
        if wish.section is not None:
            return [sections[wish.section]] if wish.section in sections else []
        if not wish.find:
            return heapq.nlargest(ROSTERS, sections.values(), key=self._busy())
        words = wish.find.casefold()
        named = [section for section in sections.values() if any(words in text.casefold() for text in _names(section))]
        of_people = dict.fromkeys(row.section for user in found for row in user.enrollments)
        return list(dict.fromkeys([*named, *of_people]))[:ROSTERS]

    def _busy(self) -> _Rank:
        newest = self._canvas.world.journal.newest
        recent = Counter(change.section.id for change in list(newest)[-_BUSY_OVER:])
        return _Rank(recent, self._canvas.world.journal.last_of_section)

    def _tiles(self, now: float) -> list[Tile]:
        """All sections in the order of their names; of many, those that changed last."""
        last = self._canvas.world.journal.last_of_section
        sections = self._canvas.world.sections.values()
        chosen = heapq.nlargest(TILES, sections, key=lambda each: (last.get(each.id, 0), len(each.enrollments)))
        fresh = {change.section.id: _fresh(change) for change in self._canvas.world.journal.newest if _is_fresh(change, now)}
        ordered = sorted(chosen, key=lambda each: (each.course.name, each.name, each.id))
        return [Tile(each, _active(each), fresh.get(each.id)) for each in ordered]

    def _roster(self, section: Section, found: set[User], now: float, wish: Wish) -> Roster:
        of_section = [change for change in self._canvas.world.journal.newest if change.section is section]
        fresh = {change.row: _fresh(change) for change in of_section if _is_fresh(change, now)}
        most = MEMBERS if wish.section is None else MEMBERS_OF_ONE
        roles = sorted({row.role for row in section.enrollments}, key=lambda role: _order(role.base_role_type, role.name))
        groups = [
            _group(role.label, [row for row in section.enrollments if row.role is role], fresh, found, most) for role in roles
        ]
        gone = sum(row.state not in _HERE for row in section.enrollments)
        return Roster(section, _active(section), gone, of_section[-1].at if of_section else None, groups)


class _Rank:
    """How busy a section is: changes of late, then when it changed last, then its size."""

    def __init__(self, recent: Counter[int], last: dict[int, int]) -> None:
        self._recent = recent
        self._last = last

    def __call__(self, section: Section) -> tuple[int, int, int]:
        return self._recent[section.id], self._last.get(section.id, 0), len(section.enrollments)


def _group(role: str, rows: list[Enrollment], fresh: dict[Enrollment, Fresh], found: set[User], most: int) -> Group:
    here = [row for row in rows if row.state in _HERE]
    gone = [row for row in rows if row.state not in _HERE]
    return Group(role, _members(here, fresh, found, most), _members(gone, fresh, found, most), len(here), len(gone))


def _members(rows: list[Enrollment], fresh: dict[Enrollment, Fresh], found: set[User], most: int) -> list[Member]:
    """By name; of many, whom the visitor looks for and those that changed last."""
    chosen = heapq.nlargest(most, rows, key=lambda row: (row.user in found, row.history[-1][0] if row.history else float("-inf")))
    chosen.sort(key=lambda row: (row.user.sortable_name, row.id))
    return [Member(row.id, row.user.name, row.state, fresh.get(row), row.user in found) for row in chosen]


def _found(users: Iterable[User], words: str) -> set[User]:
    """By name, or by the exact id of a login."""
    if not words:
        return set()
    part = words.casefold()
    return {
        user for user in users if part in user.name.casefold() or any(login.sis_user_id == words for login in user.pseudonyms)
    }


def _names(section: Section) -> tuple[str, ...]:
    return section.name, section.sis_section_id or "", section.course.name, section.course.sis_course_id or ""


def _active(section: Section) -> int:
    return sum(row.state == "active" for row in section.enrollments)


def _is_fresh(change: Change, now: float) -> bool:
    return now - change.at <= FRESH_SECONDS


def _fresh(change: Change) -> Fresh:
    return "gained" if change.after in _HERE else "lost"


def _order(base: str, name: str) -> tuple[int, bool, str]:
    """Who teaches first, a built-in role before the custom ones of its type."""
    return _ROLES_IN_ORDER.index(base) if base in _ROLES_IN_ORDER else len(COURSE_TYPES), name not in _ROLES_IN_ORDER, name
