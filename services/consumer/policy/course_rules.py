"""Sections that belong together: the policy's parts about secondary and combined ones."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag

from schemas import keys
from services.consumer.policy.parts import Part, word_or_more

_Code = Annotated[str, Field(min_length=1, max_length=255)]


class Secondaries(Part):
    """Sections whose members follow what they are in the primary section of the same course."""

    components: Annotated[list[_Code], Field(min_length=1)]
    """Of secondary sections, as the section's event has it. All others are primary, also those of which the SIS says nothing."""
    follow: Annotated[list[Literal["withdrawn", "cancelled", "dropped"]], Field(min_length=1)]
    """Statuses in the primary section that hold in the secondary ones too."""


class ReusedNumbers(Part):
    """How a class that was moved is told from a number that was given to another class."""

    same_course_parts: int = Field(ge=1, le=9)
    """The ids of the courses are alike in so many parts, with ``-`` between them, when the class was moved."""

    def is_reuse(self, was: str, now: str) -> bool:
        """Whether a section with these courses, one after the other, is another class by now."""
        return was.split("-")[: self.same_course_parts] != now.split("-")[: self.same_course_parts]


ReuseRule = Annotated[
    Annotated[Literal["follow"], Tag("a word")] | Annotated[ReusedNumbers, Tag("more")], Discriminator(word_or_more)
]


class Combined(Part):
    """Sections that the SIS has combined: the LMS has one section, or at least one course, for all of them."""

    institution: _Code
    term: _Code
    combined: _Code
    """The SIS's id of the combination."""
    sections: Annotated[list[_Code], Field(min_length=2)]

    @property
    def keys(self) -> list[str]:
        """Key texts of its sections."""
        return [keys.join(self.institution, self.term, section) for section in self.sections]
