"""The registrar's policy: YAML in, a validated value out. Errors name the line and say what to write instead."""

from __future__ import annotations

from collections import Counter, defaultdict
from datetime import date, datetime, time
from functools import cached_property
from importlib.resources import files
from typing import Annotated, Any, Literal, NamedTuple, get_args
from zoneinfo import ZoneInfo

from pydantic import Discriminator, Field, Tag, ValidationError, ValidationInfo, field_validator, model_validator

from schemas import keys
from schemas.events import EnrollmentRole, EnrollmentStatus
from services.consumer.nouns import SeatState
from services.consumer.policy import yaml_text
from services.consumer.policy.course_rules import Combined, ReusedNumbers, ReuseRule, Secondaries
from services.consumer.policy.drift_rules import DriftRules
from services.consumer.policy.guard_rules import NO_GUARD, GuardRules
from services.consumer.policy.parts import Part, TimeZone, word_or_more
from services.consumer.policy.provision import Provision
from services.consumer.policy.roles import Role
from services.consumer.policy.sis_ids import SisIds
from services.consumer.policy.yaml_text import NotYaml

Rule = Literal["active", "inactive", "completed", "removal", "none"]
"""What a status gives: a state, `removal` (what `drop_action` says), or `none`: no seat at all, as if there were no row."""


class PolicyError(ValueError):
    """The policy cannot be used. The message names the line and the reason, one problem a line."""


class Place(NamedTuple):
    """Where in the calendar a section lies."""

    institution: str
    term: str
    session: str | None


class ByCensus(Part):
    """What a status gives by the change's own date; without a date, or a census day to compare with, what it gives until then."""

    until_census: Rule
    """On the census day and before it."""
    after_census: Rule


StatusRule = Annotated[Annotated[Rule, Tag("a word")] | Annotated[ByCensus, Tag("more")], Discriminator(word_or_more)]


class Census(Part):
    """A census day: of a part of term when `session` names one, else of all parts that have none of their own."""

    institution: str
    term: str
    session: str | None = None
    """As the section's event has it."""
    day: date


class Starts(Part):
    """An enrollment whose own date lies in the future gives no access before that day."""

    on_the_day_in: TimeZone
    """The time zone in which the day begins."""


StartRule = Annotated[Annotated[Literal["at_once"], Tag("a word")] | Annotated[Starts, Tag("more")], Discriminator(word_or_more)]


class Policy(Part):
    """What each status and role of the SIS gives in the LMS. Every word of the event contract has its line."""

    sis_ids: SisIds
    statuses: dict[EnrollmentStatus, StatusRule]
    census: list[Census] = Field(default_factory=list)
    roles: dict[EnrollmentRole, Role | None]
    starts: StartRule = "at_once"
    secondaries: Secondaries | None = None
    left_behind: Literal["by_status", "deleted"] = "by_status"
    """What becomes of a seat that somebody has left while another section of the course gives them access."""
    combined: list[Combined] = Field(default_factory=list)
    reused_numbers: ReuseRule = "follow"
    drop_action: Literal["deleted", "inactive", "completed"]
    guard: GuardRules = GuardRules()
    drift: DriftRules = DriftRules()
    provision: Provision = Provision()

    @field_validator("guard", mode="before")
    @classmethod
    def _no_guard(cls, given: Any) -> Any:
        """``guard: none`` finds nothing too much."""
        return NO_GUARD if given == "none" else given

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

    @field_validator("combined")
    @classmethod
    def _one_combination_each(cls, given: list[Combined]) -> list[Combined]:
        listed = Counter(key for one in given for key in one.keys)
        twice = next((key for key, count in listed.items() if count > 1), None)
        if twice is not None:
            raise ValueError(f"has section {', '.join(keys.split(twice))} twice")
        return given

    @model_validator(mode="after")
    def _ids_of_what_is_made(self) -> Policy:
        made = self.provision.kinds
        if self.sis_ids.course is None and made & {"course", "section"}:
            raise ValueError("provision: courses and sections need sis_ids.course: how the id of a course is written")
        if self.sis_ids.term is None and "term" in made:
            raise ValueError("provision: terms need sis_ids.term: how the id of a term is written")
        courses, course_id = self.provision.courses, self.sis_ids.course or ""
        if courses and "{section" in courses.name + courses.code and "{section" not in course_id:
            raise ValueError("provision.courses: a course of several sections cannot be called after one of them")
        return self

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
        return self.section_in_lms(tenant, *keys.split(section_key))

    def lms_user(self, tenant: str, person: str) -> str:
        """How the LMS calls this person."""
        return self.sis_ids.user.format(tenant=tenant, person=person)

    def section_in_lms(self, tenant: str, institution: str, term: str, section: str) -> str:
        """The same, of the parts of its key."""
        ids = self.sis_ids
        if ids.combined is not None and self.combined:
            combined = self.combined_as(keys.join(institution, term, section))
            if combined is not None:
                return ids.combined.format(tenant=tenant, institution=institution, term=term, combined=combined)
        return ids.section.format(tenant=tenant, institution=institution, term=term, section=section)

    def is_reuse(self, was: str, now: str) -> bool:
        """Whether the number of a section of the one course, as the SIS writes it, that is of the other by now was re-used."""
        return isinstance(self.reused_numbers, ReusedNumbers) and self.reused_numbers.is_reuse(was, now)

    def combined_as(self, section_key: str) -> str | None:
        """The combination, of the section's term, that a section is in; None: it is in none."""
        return self._combinations.get(section_key)

    def combined_in(self, tenant: str, lms_section: str) -> list[str]:
        """Key texts of the combined sections that are this one in the LMS, in the policy's order; none for any other one."""
        if self.sis_ids.combined is None:
            return []
        if tenant not in self._combined_sections:
            sections = defaultdict(list)
            for key in self._combinations:
                sections[self.lms_section(tenant, key)].append(key)
            self._combined_sections[tenant] = dict(sections)
        return self._combined_sections[tenant].get(lms_section, [])

    @cached_property
    def _combined_sections(self) -> dict[str, dict[str, list[str]]]:
        """By tenant and the LMS's id, of those that were asked for: a campus may have thousands."""
        return {}

    @cached_property
    def _combinations(self) -> dict[str, str]:
        return {key: one.combined for one in self.combined for key in one.keys}

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
        node, data = yaml_text.load(text)
    except NotYaml as error:
        raise PolicyError(str(error)) from error
    try:
        return Policy.model_validate(data)
    except ValidationError as error:
        raise PolicyError("\n".join(yaml_text.explain(node, problem) for problem in error.errors(include_url=False))) from error
