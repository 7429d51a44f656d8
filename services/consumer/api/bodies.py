"""What the bodies of several calls have in common."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from schemas import keys

Id = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00]+$")]
Reason = Annotated[str, Field(min_length=3, max_length=500, pattern=r"^[^\x00]+$")]


class Body(BaseModel):
    """A body, or a part of one, that has no other fields than its own."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ReasonRequest(Body):
    """Why."""

    reason: Reason


class SectionPlace(Body):
    """One section, by the ids of the SIS."""

    institution: Id
    term: Id
    section: Id

    @property
    def key(self) -> str:
        """Section key text."""
        return keys.join(self.institution, self.term, self.section)


class TermPlace(Body):
    """One term of an institution."""

    institution: Id
    term: Id


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
