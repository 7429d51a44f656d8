"""Bulk creation of objects from the control side, idempotent by SIS id."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from services.sandbox.canvas import observing
from services.sandbox.canvas.state import TEST_STUDENT_TYPE, Account, Channel, Course, EnrollmentKey, Role, Section, Term, User
from services.sandbox.canvas.world import World

_NOT_COLUMNS = frozenset({"account", "term", "course"})


class Missing(LookupError):
    """A seeded object refers to something that is not there."""

    def __init__(self, kind: str, sis_id: str) -> None:
        super().__init__(f"no {kind} {sis_id}")


class Strict(BaseModel):
    """A body whose misspelt names are refused."""

    model_config = ConfigDict(extra="forbid")


class AccountSeed(Strict):
    sis_account_id: str
    name: str | None = None
    parent: str | None = Field(default=None, description="SIS id; the root account when not given")


class TermSeed(Strict):
    sis_term_id: str
    name: str | None = None
    state: str | None = Field(default=None, pattern="^(active|deleted)$")
    start_at: datetime | None = None
    end_at: datetime | None = None


class RoleSeed(Strict):
    name: str
    base_role_type: str = "StudentEnrollment"
    state: str = Field(default="active", pattern="^(active|inactive|deleted)$")


class CourseSeed(Strict):
    sis_course_id: str
    name: str | None = None
    term: str | None = Field(default=None, description="SIS id")
    account: str | None = Field(default=None, description="SIS id")
    state: str | None = Field(default=None, pattern="^(created|claimed|available|completed|deleted)$")
    start_at: datetime | None = None
    end_at: datetime | None = None
    restrict_to_dates: bool | None = None
    blueprint: bool | None = None
    template: bool | None = None
    integration_id: str | None = None
    restrict_future_view: bool | None = None
    restrict_past_view: bool | None = None
    sis_batch_id: int | None = None


class SectionSeed(Strict):
    sis_section_id: str
    course: str = Field(description="SIS id; only for a new section, an old one moves by cross-listing")
    name: str | None = None
    state: str | None = Field(default=None, pattern="^(active|deleted)$")
    start_at: datetime | None = None
    end_at: datetime | None = None
    restrict_to_dates: bool | None = None
    integration_id: str | None = None
    sis_batch_id: int | None = None


class UserSeed(Strict):
    sis_user_id: str
    name: str | None = None
    login: str | None = None
    login_state: str | None = Field(default=None, pattern="^(active|suspended|deleted)$")
    sis_batch_id: int | None = None
    integration_id: str | None = None
    email: str | None = Field(default=None, description="the default address, confirmed")
    also: str | None = Field(default=None, description="SIS id of a user who gets this login in addition")
    observes: list[str] = Field(default=[], description="SIS ids of students: where they are enrolled, this user is too")


class TestStudentSeed(Strict):
    """The Student View's test student: a person without a SIS id, in every active section of the course."""

    __test__ = False  # a seed, not a test

    course: str


class EnrollmentSeed(Strict):
    """An enrollment made by somebody else: another tool, a teacher, an import. Not in the write log."""

    section: str
    user: str
    role: str = Field(default="StudentEnrollment", description="name of a role")
    state: str = "active"
    associated_user: str | None = None
    sis_import_id: int | None = None
    start_at: datetime | None = None
    end_at: datetime | None = None
    completed_at: datetime | None = None
    limit_privileges: bool = False
    login: str | None = Field(default=None, description="SIS id of the login the row is linked to; an import links to the user's")
    linked: bool = Field(default=True, description="false: not linked to a login, although an import made it")


class Objects(Strict):
    """Made in this order, so later ones may refer to earlier ones."""

    accounts: list[AccountSeed] = []
    terms: list[TermSeed] = []
    roles: list[RoleSeed] = []
    courses: list[CourseSeed] = []
    sections: list[SectionSeed] = []
    users: list[UserSeed] = []
    enrollments: list[EnrollmentSeed] = []
    test_students: list[TestStudentSeed] = []


def seed(world: World, objects: Objects) -> dict[str, Any]:
    """Make or change everything; returns Canvas's ids by SIS id. Raises `Missing`; what came before it stays."""
    return {
        "accounts": {item.sis_account_id: _account(world, item).id for item in objects.accounts},
        "terms": {item.sis_term_id: _term(world, item).id for item in objects.terms},
        "roles": {item.name: _role(world, item).id for item in objects.roles},
        "courses": {item.sis_course_id: _course(world, item).id for item in objects.courses},
        "sections": {item.sis_section_id: _section(world, item).id for item in objects.sections},
        "users": {item.sis_user_id: _user(world, item).id for item in objects.users},
        "enrollments": [_enrollment(world, item) for item in objects.enrollments],
        "test_students": {item.course: _test_student(world, item).id for item in objects.test_students},
    }


def _set_given(target: Term | Course | Section, item: BaseModel) -> None:
    """Copy what was given, except references and SIS ids."""
    for name in item.model_fields_set - _NOT_COLUMNS:
        if not name.startswith("sis_"):
            setattr(target, name, getattr(item, name))


def _account(world: World, item: AccountSeed) -> Account:
    known = {str(found.sis_account_id): found for found in world.accounts.values()}
    account = known.get(item.sis_account_id) or world.add_account(item.name or item.sis_account_id, item.sis_account_id)
    account.name = item.name or account.name
    account.parent = _known("account", known, item.parent) if item.parent else account.parent
    return account


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
    if item.account:
        course.account = _known("account", {str(found.sis_account_id): found for found in world.accounts.values()}, item.account)
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
    user.channels = [Channel(item.email, confirmed=True)] if item.email else user.channels
    login.state = item.login_state or login.state
    login.sis_batch_id = item.sis_batch_id or login.sis_batch_id
    login.integration_id = item.integration_id or login.integration_id
    for student in item.observes:
        observing.link(world, user, _known("user", world.logins_by_sis, student).user)
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
    if item.login:
        row.sis_pseudonym = _known("user", world.logins_by_sis, item.login)
    else:
        row.sis_pseudonym = login if item.sis_import_id and item.linked else None
    row.start_at, row.end_at, row.completed_at = item.start_at, item.end_at, item.completed_at
    row.limit_privileges = item.limit_privileges
    if row.history:
        world.journal.record([row])
    else:
        row.history.append((float("-inf"), row.state))  # it has always been so
    return row.id


def _test_student(world: World, item: TestStudentSeed) -> User:
    """``app/models/course.rb#student_view_student``: one per course, found again by its rows."""
    course: Course = _known("course", world.courses_by_sis, item.course)
    here = (row.user for row in world.enrollments_of(course) if row.type == TEST_STUDENT_TYPE)
    student = next(here, None) or world.add_test_student()
    role = world.built_in(TEST_STUDENT_TYPE)
    for section in course.sections:
        if section.state == "active" and not any(row.user is student for row in section.enrollments):
            world.add_enrollment(section, student, role, "active").history.append((float("-inf"), "active"))
    return student


def _known(kind: str, index: dict[str, Any], sis_id: str) -> Any:
    found = index.get(sis_id)
    if found is None:
        raise Missing(kind, sis_id)
    return found
