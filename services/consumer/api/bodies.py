"""What the bodies, queries and answers of several calls have in common."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from schemas import keys

LARGEST = 2**63 - 1
PAGE, LONGEST_PAGE = 100, 1000

_TEXT = Field(min_length=1, max_length=255, pattern=r"^[^\x00]+$")
Id = Annotated[str, _TEXT]
Tenant = Annotated[Id, Field(examples=["main"])]
Target = Annotated[Id, Field(examples=["canvas"])]
PersonId = Annotated[Id, Field(examples=["0009001"])]
Institution = Annotated[Id, Field(examples=["PSUNV"])]
TermId = Annotated[Id, Field(examples=["1259"])]
SectionId = Annotated[Id, Field(examples=["1001"])]
CourseId = Annotated[Id, Field(examples=["004231"])]
Reason = Annotated[
    str, Field(min_length=3, max_length=500, pattern=r"^[^\x00]+$", examples=["Agreed with the registrar by phone"])
]
Moment = Annotated[AwareDatetime, Field(examples=["2027-01-11T15:04:05Z"])]
Later = Annotated[AwareDatetime, Field(examples=["2027-01-18T00:00:00Z"])]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$", examples=["9b0e" + "5d1c" * 15])]


class Body(BaseModel):
    """A body, or a part of one, that has no other fields than its own."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class ReasonRequest(Body):
    """Why."""

    reason: Reason


class SectionPlace(Body):
    """One section, by the ids of the SIS."""

    institution: Institution
    term: TermId
    section: SectionId

    @property
    def key(self) -> str:
        """Section key text."""
        return keys.join(self.institution, self.term, self.section)


class TermPlace(Body):
    """One term of an institution."""

    institution: Institution
    term: TermId


class Nothing(Body):
    """Where there is nothing to say."""


class OneOf(Body):
    """Exactly one of its fields."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.model_fields_set) != 1 or getattr(self, self.name) is None:
            raise ValueError(f"name exactly one of {', '.join(type(self).model_fields)}")
        return self

    @property
    def name(self) -> str:
        """Which of them it is."""
        return next(iter(self.model_fields_set))


# --- queries ---


class Query(BaseModel):
    """Parameters of a query. No id of a person is one: URLs are logged along the way."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class PageQuery(Query):
    """A page of a list whose numbers grow."""

    after: int = Field(default=0, ge=0, lt=LARGEST, examples=[100])
    """Where the page begins: `next_after` of the page before."""
    limit: int = Field(default=PAGE, ge=1, le=LONGEST_PAGE)
    """At most so many."""


class NewestFirstQuery(Query):
    """A page of a list that begins with the newest."""

    after: int = Field(default=LARGEST, ge=1, le=LARGEST, examples=[100])
    """Where the page begins: `next_after` of the page before."""
    limit: int = Field(default=PAGE, ge=1, le=LONGEST_PAGE)
    """At most so many."""


class PlaceQuery(Query):
    """All of a target, or what belongs to an institution or one of its terms."""

    institution: Institution | None = None
    """Of the sections."""
    term: TermId | None = None
    """Of the institution: terms repeat across them."""

    @field_validator("term", "section", check_fields=False)
    @classmethod
    def _has_its_place(cls, value: str | None, info: ValidationInfo) -> str | None:
        needed = ("institution", "term") if info.field_name == "section" else ("institution",)
        if value is not None and any(info.data.get(name) is None for name in needed):
            raise ValueError(f"needs {' and '.join(needed)} beside it: ids repeat across them")
        return value


class SectionQuery(PlaceQuery):
    """The same, or one section."""

    section: SectionId | None = None
    """Of the term."""
