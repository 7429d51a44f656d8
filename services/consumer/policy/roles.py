"""Roles of the LMS, as a policy names them."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from services.consumer.policy.parts import Part

BaseRole = Literal["StudentEnrollment", "TeacherEnrollment", "TaEnrollment", "DesignerEnrollment"]


class Role(Part):
    """A role of the LMS: a base type, and the label of a custom role when it is one."""

    base: BaseRole
    role: str | None = Field(default=None, min_length=1, max_length=255)

    @property
    def label(self) -> str:
        """The role's own name; a built-in role is called like its base type."""
        return self.role or self.base
