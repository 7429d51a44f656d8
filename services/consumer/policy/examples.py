"""Worked examples of a policy: what the student system says, and what the learning platform should show. Pure.

A table as registrars keep it, in CSV. Rows that belong together have the same `example`; what was said later has a later `step`.
"""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from importlib.resources import files
from typing import Any, NamedTuple, get_args

from schemas import keys
from schemas.events import STRONGEST_FIRST, EnrollmentRole, EnrollmentStatus
from schemas.keys import EntityKey
from services.consumer.nouns import SeatRef, SeatState
from services.consumer.policy.decide import decide, fold
from services.consumer.policy.facts import Enrollment, SectionState, Stamp
from services.consumer.policy.model import Policy

COLUMNS = ("example", "institution", "term", "section", "session", "class", "status", "role", "date", "gives")
MORE_COLUMNS = ("step", "person", "career", "course", "component", "today")
"""For examples that need them; a table may leave them out."""
_CLASS_STATES = ("active", "tentative", "closed", "cancelled", "removed")
_TENANT = "examples"
_SOMEBODY = "somebody"
"""Where the table names nobody."""
_STAMP = Stamp(datetime(2000, 1, 1, tzinfo=UTC), 1)

_Said = Mapping[EntityKey, Enrollment]


class ExamplesError(ValueError):
    """The table cannot be used. The message names the line and what to write instead."""


class Shown(NamedTuple):
    """A seat as the table names it."""

    section: str
    """As the student system numbers it."""
    role: str
    """Of the learning platform."""
    state: SeatState
    person: str

    def __str__(self) -> str:
        """For people."""
        return f"{self.role} {self.state} in {self.section}" + (f" of {self.person}" if self.person != _SOMEBODY else "")


@dataclass(frozen=True, slots=True)
class Example:
    """One case: what was said, and what the learning platform should show after all of it."""

    name: str
    steps: Sequence[_Said]
    """What was said, one after the other; later words replace earlier ones about the same enrollment."""
    seats: frozenset[Shown]
    today: date | None
    """When it is decided; None: when every start has come."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What the policy gives otherwise than an example says."""

    example: str
    missing: Sequence[str]
    unexpected: Sequence[str]


def default_text() -> str:
    """The packaged examples, for the packaged policy."""
    return (files("services.consumer.policy") / "examples.csv").read_text(encoding="utf-8")


def differences(examples: Sequence[Example], policy: Policy) -> Iterator[Difference]:
    """Every example that the policy decides otherwise."""
    for example in examples:
        given = _given(example, policy)
        missing, unexpected = example.seats - given, given - example.seats
        if missing or unexpected:
            yield Difference(example.name, *(list(map(str, sorted(seats))) for seats in (missing, unexpected)))


def _given(example: Example, policy: Policy) -> set[Shown]:
    """What the seats are after the last step; one that nothing gives any more was removed."""
    now = datetime.combine(example.today, time(12), UTC) if example.today else None
    said: dict[EntityKey, Enrollment] = {}
    seats: dict[SeatRef, Shown] = {}
    for step in example.steps:
        said |= step
        wanted = fold(one for theirs in _of_persons(said.values()) for one in decide(theirs, policy, "examples", now=now))
        seats = {ref: seat._replace(state="deleted") for ref, seat in seats.items()} | {
            ref: Shown(keys.split(one.seat.section)[2], one.seat.role, one.state, one.seat.person) for ref, one in wanted.items()
        }
    return set(seats.values())


def _of_persons(said: Iterable[Enrollment]) -> Collection[Sequence[Enrollment]]:
    found: defaultdict[str, list[Enrollment]] = defaultdict(list)
    for one in said:
        found[one.entity.parts[3]].append(one)
    return found.values()


# --- the table ---


class _Row(NamedTuple):
    line: int
    example: str
    step: int
    career: str
    enrollment: Enrollment
    gives: Shown | None
    today: date | None


def parse(text: str) -> list[Example]:
    """The examples of a table, in their order; raises `ExamplesError`."""
    reader = csv.DictReader(io.StringIO(text))
    names = list(reader.fieldnames or ())
    if not set(COLUMNS) <= set(names) <= {*COLUMNS, *MORE_COLUMNS} or len(names) > len(set(names)):
        raise ExamplesError(f"line 1: the columns must be {','.join(COLUMNS)}; there may be {','.join(MORE_COLUMNS)}")
    rows: defaultdict[str, list[_Row]] = defaultdict(list)
    for fields in reader:
        row = _row(fields, reader.line_num)
        rows[row.example].append(row)
    if not rows:
        raise ExamplesError("line 2: there is no example")
    return [_example(name, of_example) for name, of_example in rows.items()]


def _example(name: str, rows: Sequence[_Row]) -> Example:
    steps: defaultdict[int, list[_Row]] = defaultdict(list)
    for row in rows:
        if row.today != rows[0].today:
            raise ExamplesError(f"line {row.line}: today: all rows of an example are looked at on one day")
        steps[row.step].append(row)
    seats = frozenset(row.gives for row in rows if row.gives is not None)
    return Example(name, [_said(steps[number]) for number in sorted(steps)], seats, rows[0].today)


def _said(rows: Iterable[_Row]) -> _Said:
    """One enrollment for each class: who takes it in two careers has two rows of it."""
    found: defaultdict[EntityKey, list[_Row]] = defaultdict(list)
    for row in rows:
        same = found[row.enrollment.entity]
        same.append(row)
        careers = {one.career for one in same} - {""}
        if len(same) > 1 and len(careers) < len(same):
            raise ExamplesError(f"line {row.line}: the same class once more: write the career of each, or a later step")
    return {entity: max((row.enrollment for row in same), key=_strength) for entity, same in found.items()}


def _strength(one: Enrollment) -> tuple[int, bool, date]:
    """As the publisher folds what the student system says of several careers."""
    return -STRONGEST_FIRST.index(one.status), one.role == "student", one.effective_date or date.min


def _row(fields: dict[str, Any], line: int) -> _Row:
    if None in fields:
        raise ExamplesError(f"line {line}: there is more in it than there are columns")
    example, enrollment = _text(fields, "example", line), _enrollment(fields, line)
    step, career = _step(fields, line), fields.get("career") or ""
    return _Row(line, example, step, career, enrollment, _gives(fields, line), _date(fields, "today", line))


def _enrollment(fields: dict[str, Any], line: int) -> Enrollment:
    role: EnrollmentRole = _word(fields, "role", line, get_args(EnrollmentRole))
    status: EnrollmentStatus = _word(fields, "status", line, get_args(EnrollmentStatus))
    family: keys.RoleFamily = "learner" if role in ("student", "auditor") else "staff"
    institution, term, number = (_text(fields, part, line) for part in ("institution", "term", "section"))
    entity = keys.enrollment_key(_TENANT, institution, term, number, _person(fields), family)
    taken_place = _word(fields, "class", line, _CLASS_STATES)
    course = keys.course_key(_TENANT, institution, fields["course"]).key if fields.get("course") else None
    section = SectionState(taken_place, course, _STAMP, fields["session"] or None, fields.get("component") or None)
    return Enrollment(entity, status, role, _date(fields, "date", line), _STAMP, section)


def _gives(fields: dict[str, Any], line: int) -> Shown | None:
    """``role state``, or ``none``."""
    words = _text(fields, "gives", line).rsplit(" ", 1)
    if words == ["none"]:
        return None
    states: tuple[SeatState, ...] = get_args(SeatState)
    state = next((state for state in states if [state] == words[1:]), None)
    if state is None:
        raise ExamplesError(f"line {line}: gives: write a role and one of {', '.join(states)}, or none")
    return Shown(fields["section"], words[0], state, _person(fields))


def _person(fields: dict[str, Any]) -> str:
    return fields.get("person") or _SOMEBODY


def _step(fields: dict[str, Any], line: int) -> int:
    text = fields.get("step") or "1"
    if not text.isdecimal():
        raise ExamplesError(f"line {line}: step: write it as 1, 2, ...")
    return int(text)


def _date(fields: dict[str, Any], column: str, line: int) -> date | None:
    try:
        return date.fromisoformat(fields[column]) if fields.get(column) else None
    except ValueError as error:
        raise ExamplesError(f"line {line}: {column}: write it as 2026-09-15") from error


def _word(fields: dict[str, Any], column: str, line: int, known: Sequence[str]) -> Any:
    word = _text(fields, column, line)
    if word not in known:
        raise ExamplesError(f"line {line}: {column}: {word} is not one of {', '.join(known)}")
    return word


def _text(fields: dict[str, Any], column: str, line: int) -> str:
    if not fields[column]:
        raise ExamplesError(f"line {line}: {column} is empty")
    return str(fields[column])
