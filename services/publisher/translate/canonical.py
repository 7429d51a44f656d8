"""Canonical JSON to source rows: for sources that can say what happened in our own words. Pure.

A request is one event, an array of events, or ``{"events": [...]}``. It is taken whole or not at all. Validation is closed: a
member that we do not know is refused, because a misspelt ``effective_date`` would otherwise be lost in silence.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Literal, NoReturn

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from schemas import keys
from schemas.events import EnrollmentRole, EnrollmentStatus, OrderToken
from schemas.keys import EntityKey, RoleFamily
from services.publisher.changes import Change, Translation
from services.publisher.translate import records
from services.publisher.translate.records import Record

MAX_EVENTS = 500
MAX_PROBLEMS = 100
CLOCK_TOLERANCE = timedelta(hours=24)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
"""What lies before is no time: many programs send year 1 for it, which the database's client may not be able to read back."""

Identifier = Annotated[str, StringConstraints(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f]+$")]
Institution = Annotated[Identifier, Field(examples=["NORTH"])]
Term = Annotated[Identifier, Field(examples=["2267"])]
Section = Annotated[Identifier, Field(examples=["26191"])]
Course = Annotated[Identifier, Field(examples=["004231"])]
Person = Annotated[Identifier, Field(examples=["0090001"])]
Text = Annotated[str, StringConstraints(max_length=255, pattern=r"^[^\x00-\x1f\x7f]*$")]


@dataclass(frozen=True, slots=True)
class CanonicalContext:
    """What a request does not say itself."""

    tenant: str
    channel: str
    """One per caller: sequence numbers compare only within it."""
    received_at: datetime
    personal: frozenset[str] = frozenset()
    """Which members with more than a name are taken of a person: the operator's decision."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, where (RFC 6901), never with the value that was sent."""

    pointer: str
    detail: str


@dataclass(frozen=True, slots=True)
class Problems:
    """Why a request was refused as a whole."""

    kind: Literal["malformed", "too_many", "invalid"]
    items: tuple[Problem, ...]


class _Submission(BaseModel):
    """What every event may say."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)

    kind: str
    deleted: bool = Field(default=False, examples=[False])
    """The source no longer has it."""
    occurred_at: AwareDatetime | None = Field(default=None, examples=["2026-12-01T09:02:11-06:00"])
    """When it became so; decides which of two events is newer where there is no sequence."""
    sequence: int | None = Field(default=None, ge=0, lt=2**63, examples=[41])
    """Increases with each change in this source; outranks `occurred_at`."""


class EnrollmentItem(_Submission):
    """One person in one section."""

    kind: Literal["enrollment"]
    institution: Institution
    term: Term
    section: Section
    person: Person
    status: EnrollmentStatus | None = None
    role: EnrollmentRole | None = None
    role_family: RoleFamily | None = None
    """Follows from the role, and is needed where there is none or it is ``other``."""
    effective_date: date | None = Field(default=None, examples=["2026-12-01"])

    @model_validator(mode="after")
    def _complete(self) -> EnrollmentItem:
        if not self.deleted and (self.status is None or self.role is None):
            raise ValueError("status and role are required unless deleted is true")
        implied = _FAMILIES.get(self.role or "other")
        if implied is None and self.role_family is None:
            raise ValueError("role_family is required when the role does not tell it")
        if implied is not None and self.role_family not in {None, implied}:
            raise ValueError("role_family contradicts role")
        return self

    @property
    def family(self) -> RoleFamily:
        """Learner or staff; the validator made sure that one of the two members says so."""
        family = _FAMILIES.get(self.role or "other") or self.role_family
        assert family is not None  # noqa: S101
        return family


_FAMILIES: dict[EnrollmentRole, RoleFamily] = {
    "student": "learner",
    "auditor": "learner",
    "instructor_primary": "staff",
    "instructor_secondary": "staff",
    "assistant": "staff",
}


class PersonItem(_Submission):
    """One person; a name to display."""

    kind: Literal["person"]
    person: Person
    display_name: Text | None = Field(default=None, examples=["Ada Amberg"])
    login: Text | None = Field(default=None, examples=[None])
    """What the person signs in with; only where the operator lets it through (`PERSON_LOGINS`)."""
    email: Text | None = Field(default=None, examples=[None])
    """An address of theirs; likewise (`PERSON_EMAILS`)."""
    merged_into: Person | None = Field(default=None, examples=[None])
    """The id under which the SIS keeps this person now."""


class SectionItem(_Submission):
    """One section."""

    kind: Literal["section"]
    institution: Institution
    term: Term
    section: Section
    status: Literal["active", "tentative", "closed", "cancelled"] = "active"
    course: Course | None = None
    session: Text | None = Field(default=None, examples=["001"])
    component: Text | None = Field(default=None, examples=["LEC"])
    effective_date: date | None = Field(default=None, examples=["2026-12-01"])


class CourseItem(_Submission):
    """One course."""

    kind: Literal["course"]
    institution: Institution
    course: Course
    subject: Text | None = Field(default=None, examples=["GEOL"])
    catalog_number: Text | None = Field(default=None, examples=["1000"])


class TermItem(_Submission):
    """One term."""

    kind: Literal["term"]
    institution: Institution
    term: Term
    start_date: date | None = Field(default=None, examples=["2026-08-24"])
    end_date: date | None = Field(default=None, examples=["2026-12-18"])


Item = EnrollmentItem | PersonItem | SectionItem | CourseItem | TermItem


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of event: its model, its source row and its entity."""

    model: type[_Submission]
    record: Record
    entity: Callable[[str, Any], EntityKey]


_KINDS = {
    "enrollment": _Kind(
        EnrollmentItem,
        records.CANONICAL_ENROLLMENT,
        lambda tenant, e: keys.enrollment_key(tenant, e.institution, e.term, e.section, e.person, e.family),
    ),
    "person": _Kind(PersonItem, records.CANONICAL_PERSON, lambda tenant, e: keys.person_key(tenant, e.person)),
    "section": _Kind(
        SectionItem, records.CANONICAL_SECTION, lambda tenant, e: keys.section_key(tenant, e.institution, e.term, e.section)
    ),
    "course": _Kind(CourseItem, records.CANONICAL_COURSE, lambda tenant, e: keys.course_key(tenant, e.institution, e.course)),
    "term": _Kind(TermItem, records.CANONICAL_TERM, lambda tenant, e: keys.term_key(tenant, e.institution, e.term)),
}


def translate(data: bytes, context: CanonicalContext) -> Translation | Problems:
    """All events of a request as changes, or everything that is wrong with it (up to `MAX_PROBLEMS`)."""
    try:
        items = _items(_parse(data))
    except _Refused as refusal:
        return refusal.problems
    changes: list[Change] = []
    problems: list[Problem] = []
    for pointer, item in items:
        found = change(item, context)
        if isinstance(found, Change):
            changes.append(found)
        else:
            problems += [Problem(pointer + problem.pointer, problem.detail) for problem in found]
    return Problems("invalid", tuple(problems[:MAX_PROBLEMS])) if problems else Translation(changes)


class _Refused(Exception):
    """The request as a whole cannot be read."""

    def __init__(self, kind: Literal["malformed", "too_many", "invalid"], pointer: str, detail: str) -> None:
        super().__init__(kind)
        self.problems = Problems(kind, (Problem(pointer, detail),))


def _parse(data: bytes) -> Any:
    """JSON as RFC 8259 wants it, and without repeated names: parsers disagree about which of the two counts."""
    try:
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise _Refused("malformed", "", f"no JSON at line {error.lineno}, column {error.colno}") from error
    except RecursionError as error:
        raise _Refused("malformed", "", "nested too deeply") from error
    except ValueError as error:
        raise _Refused("malformed", "", "not UTF-8, or a number without end") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _Refused("malformed", "", "an object names a member twice")
    return members


def _refuse_constant(_name: str) -> NoReturn:
    raise _Refused("malformed", "", "NaN and Infinity are not JSON")


def _items(document: Any) -> list[tuple[str, Any]]:
    """Each event with its JSON pointer."""
    if isinstance(document, dict) and "events" not in document:
        return [("", document)]
    batch, prefix = document, ""
    if isinstance(document, dict):
        batch, prefix = document["events"], "/events"
        if len(document) > 1:
            raise _Refused("invalid", "", "a batch has no member beside events")
    if not isinstance(batch, list) or not batch:
        raise _Refused("invalid", prefix, "expected an event, or an array with at least one")
    if len(batch) > MAX_EVENTS:
        raise _Refused("too_many", prefix, f"more than {MAX_EVENTS} events; send them in several requests")
    return [(f"{prefix}/{index}", item) for index, item in enumerate(batch)]


def change(item: Any, context: CanonicalContext) -> Change | list[Problem]:
    """One event as a change, or everything that is wrong with it."""
    if not isinstance(item, dict):
        return [Problem("", "expected an object")]
    kind = _KINDS.get(item["kind"]) if isinstance(item.get("kind"), str) else None
    if kind is None:
        return [Problem("/kind", f"expected one of {', '.join(_KINDS)}")]
    try:
        # From text, because strict validation takes dates from JSON text only.
        event = kind.model.model_validate_json(json.dumps(item))
    except ValidationError as error:
        return [_problem(found["loc"], found["type"], found["msg"]) for found in error.errors(include_input=False)]
    entity = kind.entity(context.tenant, event)
    problem = _unacceptable(event, entity, context)
    return [problem] if problem else _as_change(event, kind.record, entity, context)


_PERSONAL = frozenset({"login", "email"})


def _unacceptable(event: _Submission, entity: EntityKey, context: CanonicalContext) -> Problem | None:
    """What is wrong with an event that is well formed."""
    if event.occurred_at is not None and not _EPOCH <= event.occurred_at <= context.received_at + CLOCK_TOLERANCE:
        return Problem("/occurred_at", "lies in the future, or before 1970; leave it out when it is not known")
    for name in _PERSONAL - context.personal if isinstance(event, PersonItem) else ():
        if getattr(event, name):
            return Problem(f"/{name}", f"not taken here: PERSON_{name.upper()}S is off")
    if len(entity.key) > keys.MAX_KEY_LENGTH:
        return Problem("", "the ids are too long together")
    return None


def _as_change(event: _Submission, record: Record, entity: EntityKey, context: CanonicalContext) -> Change:
    key = {name: event.family if name == "role_family" else getattr(event, name) for name in record.key}  # type: ignore[attr-defined]
    order = OrderToken(channel=context.channel, position=event.sequence, as_of_from=event.occurred_at, as_of_to=event.occurred_at)
    columns = {} if event.deleted else _columns(event, record)
    return Change(context.tenant, record.name, key, columns, entity, order, event.deleted)


def _columns(event: _Submission, record: Record) -> dict[str, str]:
    """Members that were sent; null clears a value, an absent member says nothing about it."""
    sent = {name: getattr(event, name) for name in record.stored if name in event.model_fields_set or name == "status"}
    return {name: "" if value is None else str(value) for name, value in sent.items()}


def _problem(location: tuple[int | str, ...], kind: str, message: str) -> Problem:
    pointer = "".join("/" + _pointer_part(str(part)) for part in location)
    return Problem(pointer, "unknown member" if kind == "extra_forbidden" else message.removeprefix("Value error, "))


def _pointer_part(part: str) -> str:
    """Escaped as RFC 6901 wants it; a member name of the caller's is cut, it may be anything."""
    return part[:64].replace("~", "~0").replace("/", "~1")
