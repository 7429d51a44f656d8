"""Bulk creation of objects from the control side, idempotent by SIS id."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from services.sandbox.canvas.state import Course, EnrollmentKey, Role, Section, Term, User, World

_NOT_COLUMNS = frozenset({"term", "course"})


class Missing(LookupError):
    """A seeded object refers to something that is not there."""

    def __init__(self, kind: str, sis_id: str) -> None:
        super().__init__(f"no {kind} {sis_id}")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TermSeed(_Strict):
    sis_term_id: str
    name: str | None = None
    start_at: datetime | None = None
    end_at: datetime | None = None


class RoleSeed(_Strict):
    name: str
    base_role_type: str = "StudentEnrollment"
    state: str = Field(default="active", pattern="^(active|inactive|deleted)$")


class CourseSeed(_Strict):
    sis_course_id: str
    name: str | None = None
    term: str | None = Field(default=None, description="SIS id")
    state: str | None = Field(default=None, pattern="^(created|claimed|available|completed|deleted)$")
    start_at: datetime | None = None
    end_at: datetime | None = None
    restrict_to_dates: bool | None = None
    blueprint: bool | None = None
    template: bool | None = None
    integration_id: str | None = None


class SectionSeed(_Strict):
    sis_section_id: str
    course: str = Field(description="SIS id; only for a new section, an old one moves by cross-listing")
    name: str | None = None
    state: str | None = Field(default=None, pattern="^(active|deleted)$")
    start_at: datetime | None = None
    end_at: datetime | None = None
    restrict_to_dates: bool | None = None
    integration_id: str | None = None


class UserSeed(_Strict):
    sis_user_id: str
    name: str | None = None
    login: str | None = None
    login_state: str | None = Field(default=None, pattern="^(active|suspended|deleted)$")
    also: str | None = Field(default=None, description="SIS id of a user who gets this login in addition")


class EnrollmentSeed(_Strict):
    """An enrollment made by somebody else: another tool, a teacher, an import. Not in the write log."""

    section: str
    user: str
    role: str = Field(default="StudentEnrollment", description="name of a role")
    state: str = "active"
    associated_user: str | None = None
    sis_import_id: int | None = None
    start_at: datetime | None = None
    end_at: datetime | None = None


class Objects(_Strict):
    """Made in this order, so later ones may refer to earlier ones."""

    terms: list[TermSeed] = []
    roles: list[RoleSeed] = []
    courses: list[CourseSeed] = []
    sections: list[SectionSeed] = []
    users: list[UserSeed] = []
    enrollments: list[EnrollmentSeed] = []


def seed(world: World, objects: Objects) -> dict[str, Any]:
    """Make or change everything; returns Canvas's ids by SIS id. Raises `Missing`; what came before it stays."""
    return {
        "terms": {item.sis_term_id: _term(world, item).id for item in objects.terms},
        "roles": {item.name: _role(world, item).id for item in objects.roles},
        "courses": {item.sis_course_id: _course(world, item).id for item in objects.courses},
        "sections": {item.sis_section_id: _section(world, item).id for item in objects.sections},
        "users": {item.sis_user_id: _user(world, item).id for item in objects.users},
        "enrollments": [_enrollment(world, item) for item in objects.enrollments],
    }


def _set_given(target: Term | Course | Section, item: BaseModel) -> None:
    """Copy what was given, except references and SIS ids."""
    for name in item.model_fields_set - _NOT_COLUMNS:
        if not name.startswith("sis_"):
            setattr(target, name, getattr(item, name))


def _term(world: World, item: TermSeed) -> Term:
    term = world.terms_by_sis.get(item.sis_term_id) or world.add_term(item.sis_term_id, item.sis_term_id)
    _set_given(term, item)
    return term


def _role(world: World, item: RoleSeed) -> Role:
    role = next((role for role in world.roles.values() if role.name == item.name), None)
    role = role or world.add_role(item.name, item.base_role_type)
    role.state = item.state
    return role


def _course(world: World, item: CourseSeed) -> Course:
    course = world.courses_by_sis.get(item.sis_course_id) or world.add_course(item.sis_course_id, item.sis_course_id)
    if item.term:
        course.term = _known("term", world.terms_by_sis, item.term)
    _set_given(course, item)
    return course


def _section(world: World, item: SectionSeed) -> Section:
    section = world.sections_by_sis.get(item.sis_section_id)
    if section is None:
        course: Course = _known("course", world.courses_by_sis, item.course)
        section = world.add_section(course, item.sis_section_id, item.sis_section_id)
    _set_given(section, item)
    return section


def _user(world: World, item: UserSeed) -> User:
    login = world.logins_by_sis.get(item.sis_user_id)
    if login is None:
        owner = (
            _known("user", world.logins_by_sis, item.also).user
            if item.also
            else world.add_user(item.name or f"Person {item.sis_user_id}")
        )
        login = world.add_login(owner, item.login or f"{item.sis_user_id}@example.invalid", item.sis_user_id)
    user: User = login.user
    user.name = item.name or user.name
    login.state = item.login_state or login.state
    return user


def _enrollment(world: World, item: EnrollmentSeed) -> int:
    section: Section = _known("section", world.sections_by_sis, item.section)
    login = _known("user", world.logins_by_sis, item.user)
    other = _known("user", world.logins_by_sis, item.associated_user).user if item.associated_user else None
    role = world.role_named(item.role)
    if role is None:
        raise Missing("role", item.role)
    key = EnrollmentKey(section.id, login.user.id, role.base_role_type, role.id, other.id if other else None, None)
    row = world.find(key) or world.add_enrollment(section, login.user, role, item.state, other)
    row.state, row.sis_batch_id = item.state, item.sis_import_id
    row.sis_pseudonym = login if item.sis_import_id else None
    row.start_at, row.end_at = item.start_at, item.end_at
    row.history.append((time.monotonic() if row.history else float("-inf"), row.state))
    return row.id


def _known(kind: str, index: dict[str, Any], sis_id: str) -> Any:
    found = index.get(sis_id)
    if found is None:
        raise Missing(kind, sis_id)
    return found
