"""Worked examples of a policy: what the student system says, and what the learning platform should show. Pure.

A table as registrars keep it, in CSV. Rows of one person that belong together have the same `example`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.resources import files
from typing import Any, get_args

from schemas import keys
from schemas.events import EnrollmentRole, EnrollmentStatus
from services.consumer.nouns import SeatState
from services.consumer.policy.decide import decide, fold
from services.consumer.policy.facts import Enrollment, SectionState, Stamp
from services.consumer.policy.model import Policy

COLUMNS = ("example", "institution", "term", "section", "session", "class", "status", "role", "date", "gives")
_CLASS_STATES = ("active", "tentative", "closed", "cancelled", "removed")
_STAMP = Stamp(datetime(2000, 1, 1, tzinfo=UTC), 1)


class ExamplesError(ValueError):
    """The table cannot be used. The message names the line and what to write instead."""


@dataclass(frozen=True, slots=True)
class Example:
    """One person, and what they should have."""

    name: str
    enrollments: Sequence[Enrollment]
    seats: frozenset[tuple[str, str, SeatState]]
    """Section (as the student system numbers it), role of the learning platform, and state."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What the policy gives otherwise than an example says."""

    example: str
    missing: Sequence[str]
    unexpected: Sequence[str]


def default_text() -> str:
    """The packaged examples, for the packaged policy."""
    return (files("services.consumer.policy") / "examples.csv").read_text(encoding="utf-8")


def parse(text: str) -> list[Example]:
    """The examples of a table, in their order; raises `ExamplesError`."""
    reader = csv.DictReader(io.StringIO(text))
    if tuple(reader.fieldnames or ()) != COLUMNS:
        raise ExamplesError(f"line 1: the columns must be {','.join(COLUMNS)}")
    enrollments: dict[str, list[Enrollment]] = {}
    seats: dict[str, set[tuple[str, str, SeatState]]] = {}
    for row in reader:
        name = _text(row, "example", reader.line_num)
        enrollments.setdefault(name, []).append(_enrollment(row, reader.line_num))
        seats.setdefault(name, set()).update(_gives(row, reader.line_num))
    if not enrollments:
        raise ExamplesError("line 2: there is no example")
    return [Example(name, found, frozenset(seats[name])) for name, found in enrollments.items()]


def differences(examples: Sequence[Example], policy: Policy) -> Iterator[Difference]:
    """Every example that the policy decides otherwise."""
    for example in examples:
        given = {
            (keys.split(one.seat.section)[2], one.seat.role, one.state)
            for one in fold(decide(example.enrollments, policy, "examples")).values()
        }
        missing, unexpected = example.seats - given, given - example.seats
        if missing or unexpected:
            yield Difference(example.name, _told(missing), _told(unexpected))


def _told(seats: set[tuple[str, str, SeatState]] | frozenset[tuple[str, str, SeatState]]) -> list[str]:
    return [f"{role} {state} in {section}" for section, role, state in sorted(seats)]


def _enrollment(row: dict[str, Any], line: int) -> Enrollment:
    role: EnrollmentRole = _word(row, "role", line, get_args(EnrollmentRole))
    status: EnrollmentStatus = _word(row, "status", line, get_args(EnrollmentStatus))
    family: keys.RoleFamily = "learner" if role in ("student", "auditor") else "staff"
    institution, term, number = (_text(row, part, line) for part in ("institution", "term", "section"))
    entity = keys.enrollment_key("examples", institution, term, number, "somebody", family)
    section = SectionState(_word(row, "class", line, _CLASS_STATES), None, _STAMP, row["session"] or None)
    return Enrollment(entity, status, role, _date(row, line), _STAMP, section)


def _gives(row: dict[str, Any], line: int) -> Iterator[tuple[str, str, SeatState]]:
    """``role state``, or ``none``."""
    words = _text(row, "gives", line).rsplit(" ", 1)
    if words == ["none"]:
        return
    states: tuple[SeatState, ...] = get_args(SeatState)
    if len(words) == 1 or words[1] not in states:
        raise ExamplesError(f"line {line}: gives: write a role and one of {', '.join(states)}, or none")
    yield row["section"], words[0], words[1]


def _date(row: dict[str, Any], line: int) -> date | None:
    try:
        return date.fromisoformat(row["date"]) if row["date"] else None
    except ValueError as error:
        raise ExamplesError(f"line {line}: date: write it as 2026-09-15") from error


def _word(row: dict[str, Any], column: str, line: int, known: Sequence[str]) -> Any:
    word = _text(row, column, line)
    if word not in known:
        raise ExamplesError(f"line {line}: {column}: {word} is not one of {', '.join(known)}")
    return word


def _text(row: dict[str, Any], column: str, line: int) -> str:
    if not row[column]:
        raise ExamplesError(f"line {line}: {column} is empty")
    return str(row[column])
