"""Which objects of the LMS are made when they are missing, and how they are called. Off unless the policy says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from services.consumer.nouns import ObjectKind
from services.consumer.policy.parts import Part, TimeZone, template

_OF_A_COURSE = ("institution", "term", "course", "section", "subject", "catalog_number")


class TermRules(Part):
    """How a term is made."""

    name: Annotated[str, template("institution", "term", needs="term")] = "{term}"
    dates_in: TimeZone | None = None
    """The time zone in which its days begin and end; None leaves it without dates."""


class CourseRules(Part):
    """How a course is made. `subject` and `catalog_number` are blank where the SIS does not say them."""

    name: Annotated[str, template(*_OF_A_COURSE)] = "{subject} {catalog_number}"
    code: Annotated[str, template(*_OF_A_COURSE)] = "{subject} {catalog_number}"


class SectionRules(Part):
    """How a section is made, in its course."""

    name: Annotated[str, template(*_OF_A_COURSE)] = "{subject} {catalog_number} {section}"


class PersonRules(Part):
    """How a person's account is made, and what becomes of it."""

    login: Annotated[str, template("tenant", "person", "login", "email", needs=("person", "login", "email"))] = "{person}"
    """With {login} or {email} what the SIS says is followed; otherwise only a new account gets it."""
    email: Annotated[str, template("tenant", "person", "login", "email", needs=("person", "login", "email"))] | None = None
    """None leaves addresses to the LMS."""
    rename: bool = True
    """Whether a name that the SIS changes is changed in the LMS, unless somebody changed it there."""
    when_removed: Literal["keep", "suspend"] = "keep"
    """What becomes of the login of a person whom the SIS has removed. Nobody is ever deleted."""
    most_suspended: int = Field(default=50, ge=0)
    """Within a day. When more are to be suspended, none is before a person has looked."""


class Provision(Part):
    """Each kind has its own switch; None makes nothing."""

    terms: TermRules | None = None
    courses: CourseRules | None = None
    sections: SectionRules | None = None
    people: PersonRules | None = None

    @field_validator("*", mode="before")
    @classmethod
    def _none(cls, given: Any) -> Any:
        """The policy writes ``none``, as everywhere."""
        return None if given == "none" else given

    @property
    def kinds(self) -> frozenset[ObjectKind]:
        """What is made when it is missing."""
        rules: Mapping[ObjectKind, object] = {
            "term": self.terms,
            "course": self.courses,
            "section": self.sections,
            "person": self.people,
        }
        return frozenset(kind for kind, rule in rules.items() if rule is not None)
