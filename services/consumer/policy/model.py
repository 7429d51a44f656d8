"""The registrar's policy: YAML in, a validated value out. Errors name the line and say what to write instead."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time, timedelta
from functools import cached_property
from importlib.resources import files
from typing import Annotated, Any, Literal, NamedTuple, get_args
from zoneinfo import ZoneInfo

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from schemas import keys
from schemas.events import EnrollmentRole, EnrollmentStatus
from services.consumer.nouns import SeatState

BaseRole = Literal["StudentEnrollment", "TeacherEnrollment", "TaEnrollment", "DesignerEnrollment"]
Rule = Literal["active", "inactive", "completed", "removal", "none"]
"""What a status gives: a state, `removal` (what `drop_action` says), or `none`: no seat at all, as if there were no row."""

_PADDING = re.compile(r"[^{}]?[<>^][1-9][0-9]?")


class PolicyError(ValueError):
    """The policy cannot be used. The message names the line and the reason, one problem a line."""


def _template(*known: str) -> AfterValidator:
    """Accepts text with ``{field}`` and ``{field:0>5}``; anything cleverer could fail, or let two objects share one id."""

    def check(text: str) -> str:
        used = set()
        for _literal, field, padding, conversion in _pieces(text):
            if field is None:
                continue
            if field not in known:
                raise ValueError(f"unknown field {{{field}}}; known are {', '.join(known)}")
            if conversion or (padding and not _PADDING.fullmatch(padding)):
                raise ValueError(f"{{{field}}} may only be padded, for example {{{field}:0>5}}")
            used.add(field)
        if known[-1] not in used:
            raise ValueError(f"must contain {{{known[-1]}}}, otherwise all of them would share one id")
        return text

    return AfterValidator(check)


def _pieces(text: str) -> Iterator[tuple[str, str | None, str | None, str | None]]:
    try:
        yield from string.Formatter().parse(text)
    except ValueError as error:
        raise ValueError(f"unbalanced braces ({error})") from error


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Place(NamedTuple):
    """Where in the calendar a section lies."""

    institution: str
    term: str
    session: str | None


class SisIds(_Part):
    """How an id of the SIS is written in the LMS."""

    user: Annotated[str, _template("tenant", "person")]
    section: Annotated[str, _template("tenant", "institution", "term", "section")]


class Role(_Part):
    """A role of the LMS: a base type, and the label of a custom role when it is one."""

    base: BaseRole
    role: str | None = Field(default=None, min_length=1, max_length=255)

    @property
    def label(self) -> str:
        """The role's own name; a built-in role is called like its base type."""
        return self.role or self.base


class ByCensus(_Part):
    """What a status gives by the change's own date; without a date, or a census day to compare with, what it gives until then."""

    until_census: Rule
    """On the census day and before it."""
    after_census: Rule


def _word_or_more(rule: object) -> str:
    """Which of the two an error is about: a problem of the other one would only confuse."""
    return "more" if isinstance(rule, dict | _Part) else "a word"


StatusRule = Annotated[Annotated[Rule, Tag("a word")] | Annotated[ByCensus, Tag("more")], Discriminator(_word_or_more)]


class Census(_Part):
    """A census day: of a part of term when `session` names one, else of all parts that have none of their own."""

    institution: str
    term: str
    session: str | None = None
    """As the section's event has it."""
    day: date


class Starts(_Part):
    """An enrollment whose own date lies in the future gives no access before that day."""

    on_the_day_in: str
    """The time zone in which the day begins."""

    @field_validator("on_the_day_in")
    @classmethod
    def _a_zone(cls, given: str) -> str:
        try:
            ZoneInfo(given)
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(f"{given} is no time zone of this machine; write one like America/New_York") from error
        return given


StartRule = Annotated[Annotated[Literal["at_once"], Tag("a word")] | Annotated[Starts, Tag("more")], Discriminator(_word_or_more)]


class Limit(_Part):
    """How many removals within a window are too many; without any number none are."""

    percent: Annotated[float, Field(gt=0, le=100)] | None = None
    """Of the seats that give access."""
    at_least: Annotated[int, Field(ge=1)] | None = None
    """Fewer are never too many by their percentage."""
    most: Annotated[int, Field(ge=0)] | None = None
    """More are too many, whatever their percentage."""

    @model_validator(mode="after")
    def _belongs_together(self) -> Limit:
        if (self.percent is None) != (self.at_least is None):
            raise ValueError("percent and at_least belong together: a percentage of a handful says nothing")
        return self

    def reached(self, removals: int, active: int, share: float = 1.0) -> bool:
        """Whether so many removals, of so many seats that give access, reach this `share` of the limit."""
        by_number = self.most is not None and removals > self.most * share
        if self.percent is None or self.at_least is None:
            return by_number
        return by_number or (removals >= self.at_least * share and removals * 100 >= active * self.percent * share)

    def __str__(self) -> str:
        """As the policy writes it."""
        numbers = {name: getattr(self, name) for name in ("percent", "at_least", "most")}
        return ", ".join(f"{name} {number:g}" for name, number in numbers.items() if number is not None)


class Limits(_Part):
    """Of one scope, over the last 15 minutes and the last 24 hours."""

    quarter_hour: Limit = Limit()
    day: Limit = Limit()


class GuardRules(_Part):
    """How much may be taken away before a person is asked."""

    wait_seconds: float = Field(default=60, ge=0, le=300)
    """How long a burst is counted before any of it is sent."""
    section: Limits = Limits(quarter_hour=Limit(percent=50, at_least=10), day=Limit(percent=80, at_least=15))
    course: Limits = Limits(quarter_hour=Limit(percent=50, at_least=20), day=Limit(percent=80, at_least=30))
    term: Limits = Limits(quarter_hour=Limit(percent=2, at_least=50, most=200), day=Limit(percent=5, at_least=100, most=1000))
    tenant: Limits = Limits(quarter_hour=Limit(most=500), day=Limit(percent=10, at_least=500))
    cancelled_section: Annotated[int, Field(ge=0)] | None = 100
    """Members of a cancelled class that go without asking; None: any number."""
    cancelled_term: Annotated[int, Field(ge=0)] | None = 1000
    """Members of all cancelled classes of a term that go within a day without asking; None: any number."""


_NO_GUARD = GuardRules(
    wait_seconds=0,
    section=Limits(),
    course=Limits(),
    term=Limits(),
    tenant=Limits(),
    cancelled_section=None,
    cancelled_term=None,
)


class RemoveAfter(_Part):
    """What nobody gave goes after so many days; until then it is listed with its day."""

    remove_after_days: int = Field(ge=0, le=366)


_ExtraRule = Annotated[
    Annotated[Literal["report"], Tag("a word")] | Annotated[RemoveAfter, Tag("more")], Discriminator(_word_or_more)
]
_Repair = Literal["report", "repair"]


class DriftRules(_Part):
    """What becomes of what the rosters of the LMS show otherwise than the ledger; see `rosters.comparing.Kind`. A policy that
    does not say has everything listed, and nothing touched."""

    missing: _Repair = "report"
    wrong_state: _Repair = "report"
    wrong_role: _Repair = "report"
    extra_manual: _ExtraRule = "report"
    extra_sis: _ExtraRule = "report"
    extra_roles: list[BaseRole] = Field(default=["StudentEnrollment"])
    """Base roles whose extra members are looked at: teachers add their own assistants."""
    most_repairs: int = Field(default=500, ge=0)
    """In one comparison; the rest is only listed."""

    def repairs(self, kind: str, stands_for: timedelta) -> bool:
        """Whether a difference of this kind, which has stood for so long, is to be undone now."""
        rule = getattr(self, kind, "report")
        if isinstance(rule, RemoveAfter):
            return stands_for >= timedelta(days=rule.remove_after_days)
        return bool(rule == "repair")

    def removed_after(self, kind: str) -> timedelta | None:
        """After what time extra members of this kind go; None: they are only listed."""
        rule = getattr(self, kind, None)
        return timedelta(days=rule.remove_after_days) if isinstance(rule, RemoveAfter) else None


class Policy(_Part):
    """What each status and role of the SIS gives in the LMS. Every word of the event contract has its line."""

    sis_ids: SisIds
    statuses: dict[EnrollmentStatus, StatusRule]
    census: list[Census] = Field(default_factory=list)
    roles: dict[EnrollmentRole, Role | None]
    starts: StartRule = "at_once"
    drop_action: Literal["deleted", "inactive", "completed"]
    guard: GuardRules = GuardRules()
    drift: DriftRules = DriftRules()

    @field_validator("guard", mode="before")
    @classmethod
    def _no_guard(cls, given: Any) -> Any:
        """``guard: none`` finds nothing too much."""
        return _NO_GUARD if given == "none" else given

    @model_validator(mode="before")
    @classmethod
    def _short_roles(cls, data: Any) -> Any:
        """``student: StudentEnrollment`` is short for ``{base: StudentEnrollment}``, and ``none`` for no seat."""
        if not isinstance(data, dict) or not isinstance(data.get("roles"), dict):
            return data
        return data | {"roles": {name: _long_role(value) for name, value in data["roles"].items()}}

    @field_validator("statuses", "roles")
    @classmethod
    def _complete(cls, given: dict[str, Any], field: ValidationInfo) -> dict[str, Any]:
        known = get_args(EnrollmentStatus if field.field_name == "statuses" else EnrollmentRole)
        missing = [word for word in known if word not in given]
        if missing:
            raise ValueError(f"lacks {', '.join(missing)}; write none for what gives no seat")
        return given

    @field_validator("census")
    @classmethod
    def _one_day_each(cls, given: list[Census]) -> list[Census]:
        places = Counter((one.institution, one.term, one.session) for one in given)
        twice = next((place for place, count in places.items() if count > 1), None)
        if twice is not None:
            raise ValueError(f"has two days for {', '.join(part for part in twice if part)}")
        return given

    def state(self, status: EnrollmentStatus, on: date | None, place: Place) -> SeatState | None:
        """The seat's state under a status that changed on that day; None when it gives no seat."""
        rule = self.statuses[status]
        if isinstance(rule, ByCensus):
            rule = rule.after_census if self._after_census(on, place) else rule.until_census
        if rule == "none":
            return None
        return self.drop_action if rule == "removal" else rule

    def begins(self, on: date | None) -> datetime | None:
        """When an enrollment of that day gives the access that it gives; None: at once."""
        return None if self._zone is None or on is None else datetime.combine(on, time.min, self._zone)

    @cached_property
    def _zone(self) -> ZoneInfo | None:
        return ZoneInfo(self.starts.on_the_day_in) if isinstance(self.starts, Starts) else None

    @property
    def waits_for_starts(self) -> bool:
        """Whether what is decided depends on what time it is."""
        return self._zone is not None

    def role_called(self, label: str, base: str) -> EnrollmentRole | None:
        """A role of the SIS that is this one in the LMS; None when no role is."""
        found = (name for name, role in self.roles.items() if role is not None and (role.label, role.base) == (label, base))
        return next(found, None)

    def lms_section(self, tenant: str, section_key: str) -> str:
        """How the LMS calls the section with this key text."""
        institution, term, section = keys.split(section_key)
        return self.sis_ids.section.format(tenant=tenant, institution=institution, term=term, section=section)

    def person_of(self, tenant: str, lms_user: str) -> str | None:
        """Whose id in the LMS this is, read backwards through the template; None when it cannot be said. What fills an id up is
        no part of it."""
        parts, filling = [], ""
        for literal, field, padding, _conversion in _pieces(self.sis_ids.user):
            parts.append(re.escape(literal))
            parts.append({"person": "(.+)", "tenant": re.escape(tenant)}.get(field or "", ""))
            if field == "person" and padding:
                filling = padding[0] if padding[0] not in "<>^" else " "
        found = re.fullmatch("".join(parts), lms_user, re.DOTALL) if parts.count("(.+)") == 1 else None
        if found is None:
            return None
        person = found.group(1).strip(filling) if filling else found.group(1)
        return person if person and self.sis_ids.user.format(tenant=tenant, person=person) == lms_user else None

    def _after_census(self, on: date | None, place: Place) -> bool:
        day = self._days.get(place, self._days.get(place._replace(session=None)))
        return on is not None and day is not None and on > day

    @cached_property
    def _days(self) -> dict[Place, date]:
        return {Place(one.institution, one.term, one.session): one.day for one in self.census}


def _long_role(value: Any) -> Any:
    if value == "none":
        return None
    return {"base": value} if isinstance(value, str) else value


def default_text() -> str:
    """The packaged policy, with its comments."""
    return (files("services.consumer.policy") / "default.yaml").read_text(encoding="utf-8")


def parse(text: str) -> Policy:
    """The policy in `text`; raises `PolicyError`."""
    try:
        node = yaml.compose(text, Loader=_Loader)
        data = yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader that also refuses repeated keys)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise PolicyError(f"line {line}: {error.problem or 'not YAML'}") from error
    except (yaml.YAMLError, ValueError, IndexError, RecursionError) as error:
        raise PolicyError("line 1: not YAML text, or a value that is none, such as the 31st of September") from error
    try:
        return Policy.model_validate(data)
    except ValidationError as error:
        raise PolicyError("\n".join(_explain(node, problem) for problem in error.errors(include_url=False))) from error


class _Loader(yaml.SafeLoader):
    """YAML without a trap: a key that is written twice is an error, not a silent replacement; and nothing stands for something
    else, because a few lines of that can be gigabytes."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Refuses anchors and aliases, and with them merged keys."""
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise yaml.MarkedYAMLError(problem="write it out: anchors and aliases are not read", problem_mark=event.start_mark)
        return super().compose_node(parent, index)


def _unique_keys(loader: _Loader, node: yaml.MappingNode) -> Mapping[Any, Any]:
    seen = set()
    for key, _value in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value in seen:
            raise yaml.MarkedYAMLError(problem=f"{key.value} is written twice", problem_mark=key.start_mark)
        seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _unique_keys)


def _explain(node: yaml.Node | None, problem: ErrorDetails) -> str:
    path = [part for part in problem["loc"] if part not in ("[key]", "a word", "more")]
    reason = problem["msg"].removeprefix("Value error, ")
    place = ".".join(str(part) for part in path)
    return f"line {_line(node, path)}: {place + ': ' if place else ''}{reason}"


def _line(node: yaml.Node | None, path: list[int | str]) -> int:
    """The line of the deepest node on `path` that the text has."""
    line = node.start_mark.line + 1 if node else 1
    for part in path:
        entries = node.value if isinstance(node, yaml.MappingNode) else []
        found = next(((key, value) for key, value in entries if key.value == str(part)), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line
