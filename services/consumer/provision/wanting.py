"""What an object of the LMS should be, from what the SIS says and the policy. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

from schemas import keys
from schemas.keys import EntityKey
from services.consumer.nouns import ObjectKind
from services.consumer.policy.model import Policy
from services.consumer.policy.provision import CourseRules, PersonRules, SectionRules, TermRules
from services.consumer.targets.objects import Attribute, WantedObject

_LONGEST = 255
_GONE = ("cancelled", "removed")
_OF_THE_COURSE_EVENT = ("{subject", "{catalog_number")
_TOLD_OF_PEOPLE = ("login", "email")


class Subject(NamedTuple):
    """Which object."""

    kind: ObjectKind
    object: str
    """SIS id as the LMS knows it."""
    tenant: str
    key: str
    """Key text of the entity that says what it should be."""
    section: str | None
    """Of a term, a course and a section: key text of the section that somebody wanted it for."""


class Told(NamedTuple):
    """The newest events about it, as the ledger has them; None for what the SIS has not told."""

    term: Mapping[str, Any] | None = None
    course: Mapping[str, Any] | None = None
    section: Mapping[str, Any] | None = None
    person: Mapping[str, Any] | None = None
    heir: str | None = None
    """Of a person whom the SIS keeps under another id: under which in the end; None when it leads in a circle."""


@dataclass(frozen=True, slots=True)
class Unwanted:
    """It is neither made nor changed."""

    why: Literal["off", "not_supported", "cancelled", "removed"]


@dataclass(frozen=True, slots=True)
class Wish:
    """What it should be."""

    wanted: WantedObject
    unmade: Unwanted | None = None
    """Why it is not made when it is missing; None: it is."""
    fixed: frozenset[Attribute] = frozenset()
    """What is said when it is made, and never changed afterwards."""
    told: frozenset[Attribute] = frozenset()
    """What is the SIS's own word, and so followed also where somebody else made the object; gently, the first time."""

    @property
    def suspends(self) -> bool:
        """Whether nobody is to sign in with the login."""
        return self.wanted.values.get("state") == "suspended"


@dataclass(frozen=True, slots=True)
class Moved:
    """The SIS keeps this person under another id: the login gets that one, before anything of the old id is taken away."""

    wanted: WantedObject
    heir: Subject
    """The person under the new id."""
    ours: bool = True
    """Whether we may change accounts at all."""


@dataclass(frozen=True, slots=True)
class Circle:
    """The SIS keeps this person under another id, and that one, in the end, under this one: nobody's account can move."""

    next: EntityKey
    """Under whom it keeps this one."""


@dataclass(frozen=True, slots=True)
class Untold:
    """The SIS has not told what is needed."""

    lacks: EntityKey


def course_key_of(tenant: str, section: Mapping[str, Any]) -> EntityKey | None:
    """The course that a section's event names; None while the SIS has not said."""
    course = section.get("course")
    return keys.course_key(tenant, section["institution"], course) if course else None


def named_after(subject: Subject, section: Mapping[str, Any] | None) -> EntityKey | None:
    """The course that a course or section is called after: a course's own, wherever the SIS has moved the class that it was
    wanted for; None while the SIS has not said."""
    if subject.kind == "course" and subject.key != subject.section:
        return EntityKey(subject.tenant, "course", subject.key)
    return course_key_of(subject.tenant, section) if section else None


def known_as(subject: Subject, told: Told) -> Subject:
    """A course that was wanted before the SIS said which one it is under that one's own key, once it has."""
    course = named_after(subject, told.section) if subject.kind == "course" else None
    return subject._replace(key=course.key) if course else subject


def is_gone(section: Mapping[str, Any] | None) -> bool:
    """Whether a section's event says that its class does not take place."""
    return section is not None and section["status"] in _GONE


def speaker(classes: Sequence[str], told: Mapping[str, Mapping[str, Any]], *, patient: bool) -> str:
    """Which of the classes that are one section of the LMS says what that is called and where it lies: the first of them that
    takes place.

    `told`: key text -> newest event of those that the SIS has told. `patient`: one of which nothing is told may still come;
    otherwise those that were told go before it.
    """
    takes_place = [one for one in classes if not is_gone(told.get(one))]
    known = [] if patient else [one for one in takes_place if one in told]
    return next(iter(known or takes_place or classes))


def want(subject: Subject, told: Told, policy: Policy) -> Wish | Moved | Circle | Untold | Unwanted:
    """What this object should be. The policy that is active need not make this kind any more."""
    rules = policy.provision
    match subject.kind:
        case "term" if rules.terms:
            return _term(subject, told, rules.terms)
        case "course" if rules.courses:
            return _course(subject, told, policy, rules.courses)
        case "section" if rules.sections:
            return _section(subject, told, policy, rules.sections)
        case "person" if rules.people:
            return _person(subject, told, policy, rules.people)
        case "person" if told.person is not None and (kept_under := told.person.get("merged_into")):
            return _moved(subject, kept_under, told.heir, policy, ours=False)
    return Unwanted("off")


def parent(subject: Subject, kind: Literal["term", "course"], sis_id: str, told: Told) -> Subject:
    """What this course or section has to be made in."""
    section = subject.section or ""
    if kind == "term":
        return Subject("term", sis_id, subject.tenant, section.rpartition("/")[0], section)
    course = course_key_of(subject.tenant, told.section) if told.section else None
    return Subject("course", sis_id, subject.tenant, course.key if course else section, section)


def term_id(tenant: str, section: str, policy: Policy) -> str | None:
    """How the LMS calls the term of a section; None when the policy does not say."""
    institution, term, _ = keys.split(section)
    return policy.sis_ids.term and policy.sis_ids.term.format(tenant=tenant, institution=institution, term=term)


def course_id(tenant: str, section: str, course: str | None, policy: Policy) -> str | None:
    """How the LMS calls the course that a section is made in; None while the SIS has not said which one that is."""
    template = policy.sis_ids.course
    if template is None or (course is None and "{course" in template):
        return None
    institution, term, number = keys.split(section)
    return template.format(tenant=tenant, institution=institution, term=term, section=number, course=course or "")


def _term(subject: Subject, told: Told, rules: TermRules) -> Wish | Untold | Unwanted:
    institution, term = keys.split(subject.key)
    if told.term is None and rules.dates_in is not None:
        return Untold(EntityKey(subject.tenant, "term", subject.key))
    if told.term is not None and told.term["status"] == "removed":
        return Unwanted("removed")
    values: dict[Attribute, str] = {"name": _text(rules.name, subject.object, institution=institution, term=term)}
    if told.term is not None and rules.dates_in is not None:
        values |= _dates(told.term, ZoneInfo(rules.dates_in))
    return Wish(WantedObject("term", subject.object, values))


def _dates(term: Mapping[str, Any], zone: ZoneInfo) -> dict[Attribute, str]:
    """The first instant of its first day and the last second of its last one."""
    dates: dict[Attribute, str] = {}
    if term.get("start_date"):
        dates["starts"] = _instant(date.fromisoformat(term["start_date"]), zone)
    if term.get("end_date"):
        dates["ends"] = _instant(date.fromisoformat(term["end_date"]) + timedelta(days=1), zone, timedelta(seconds=1))
    return dates


def _instant(day: date, zone: ZoneInfo, less: timedelta = timedelta(0)) -> str:
    at = datetime.combine(day, time.min, zone).astimezone(UTC) - less
    return at.isoformat(timespec="seconds").replace("+00:00", "Z")


def _course(subject: Subject, told: Told, policy: Policy, rules: CourseRules) -> Wish | Untold | Unwanted:
    """Also of a class that does not take place: others may be in it. It is only not made for that one."""
    section = subject.section or ""
    words = _words(subject, section, told, rules.name + rules.code)
    if not isinstance(words, dict):
        return words
    values: dict[Attribute, str] = {
        "name": _text(rules.name, subject.object, **words),
        "code": _text(rules.code, subject.object, **words),
    }
    wanted = WantedObject("course", subject.object, values, term_id(subject.tenant, section, policy))
    return Wish(wanted, unmade=_gone_as(told.section))


def _section(subject: Subject, told: Told, policy: Policy, rules: SectionRules) -> Wish | Untold | Unwanted:
    if gone := _gone_as(told.section):
        return gone
    words = _words(subject, subject.key, told, rules.name)
    if not isinstance(words, dict):
        return words
    course = course_id(subject.tenant, subject.key, words["course"] or None, policy)
    if course is None:
        return Untold(EntityKey(subject.tenant, "section", subject.key))
    return Wish(WantedObject("section", subject.object, {"name": _text(rules.name, subject.object, **words)}, course))


def _gone_as(section: Mapping[str, Any] | None) -> Unwanted | None:
    """Why nothing is made for a class; None while it may take place."""
    if section is None or not is_gone(section):
        return None
    return Unwanted("cancelled" if section["status"] == "cancelled" else "removed")


def _words(subject: Subject, section: str, told: Told, names: str) -> dict[str, str] | Untold | Unwanted:
    """What names of courses and sections are made of, if all is told that these `names` use."""
    if told.section is None:
        return Untold(EntityKey(subject.tenant, "section", section))
    key = named_after(subject, told.section)
    named = any(word in names for word in _OF_THE_COURSE_EVENT)
    if key is not None and told.course is None and named:
        return Untold(key)
    if told.course is not None and told.course["status"] == "removed":
        return Unwanted("removed")
    institution, term, number = keys.split(section)
    course = told.course or {}
    return {
        "institution": institution,
        "term": term,
        "section": number,
        "course": keys.split(key.key)[-1] if key else "",
        "subject": course.get("subject") or "",
        "catalog_number": course.get("catalog_number") or "",
    }


def _person(subject: Subject, told: Told, policy: Policy, rules: PersonRules) -> Wish | Moved | Circle | Untold | Unwanted:
    (person,) = keys.split(subject.key)
    if told.person is None:
        return Untold(EntityKey(subject.tenant, "person", subject.key))
    if kept_under := told.person.get("merged_into"):
        return _moved(subject, kept_under, told.heir, policy)
    if told.person["status"] == "removed":
        if rules.when_removed == "keep":
            return Unwanted("removed")
        return Wish(WantedObject("person", subject.object, {"state": "suspended"}), unmade=Unwanted("removed"))
    return _account(subject, told.person, {"tenant": subject.tenant, "person": person}, rules)


def _moved(subject: Subject, kept_under: str, heir: str | None, policy: Policy, *, ours: bool = True) -> Moved | Circle:
    tenant = subject.tenant
    if heir is None:
        return Circle(EntityKey(tenant, "person", keys.join(kept_under)))
    person = Subject("person", policy.lms_user(tenant, heir), tenant, keys.join(heir), None)
    return Moved(WantedObject("person", subject.object, {}), person, ours)


def _account(subject: Subject, event: Mapping[str, Any], ids: Mapping[str, str], rules: PersonRules) -> Wish | Untold:
    """Of a person whom the SIS has."""
    words = {**ids, **{name: event[name] for name in _TOLD_OF_PEOPLE if event.get(name)}}
    templates: dict[Attribute, str] = {"login": rules.login}
    if rules.email is not None:
        templates["email"] = rules.email
    if any(f"{{{word}" in template for template in templates.values() for word in _TOLD_OF_PEOPLE if word not in words):
        return Untold(EntityKey(subject.tenant, "person", subject.key))
    values: dict[Attribute, str] = {"state": "active"}
    values |= {attribute: template.format(**words)[:_LONGEST] for attribute, template in templates.items()}
    name = " ".join((event.get("display_name") or "").split())[:_LONGEST]
    values["name"] = name or values["login"]
    # Of somebody whom the SIS gives no name any more the LMS keeps the one that it has. What no word of the SIS's is in says what
    # a new account gets: one that comes to another id keeps what its owner signs in with.
    told = {attribute for attribute, template in templates.items() if any(f"{{{word}" in template for word in _TOLD_OF_PEOPLE)}
    fixed: set[Attribute] = templates.keys() - told
    if not (rules.rename and name):
        fixed.add("name")
    return Wish(WantedObject("person", subject.object, values), fixed=frozenset(fixed), told=frozenset({"name", *told}))


def _text(template: str, otherwise: str, **words: str) -> str:
    """A name on one line; the SIS id where nothing is known that it could be made of."""
    return " ".join(template.format(**words).split())[:_LONGEST] or otherwise
