"""Accounts, terms, roles, courses, sections, users with their logins, and enrollments: plain rows, as in upstream's tables."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

COURSE_TYPES = ("StudentEnrollment", "TeacherEnrollment", "TaEnrollment", "DesignerEnrollment", "ObserverEnrollment")
STAFF_TYPES = ("TeacherEnrollment", "TaEnrollment", "DesignerEnrollment")
TEST_STUDENT_TYPE = "StudentViewEnrollment"
ACCOUNT_ROLE = "AccountMembership"


def uuid_of(kind: str, identity: int) -> str:
    """Forty characters that belong to one object for ever (``app/models/user.rb`` and others make random ones)."""
    return hashlib.sha1(f"{kind} {identity}".encode(), usedforsecurity=False).hexdigest()


@dataclass(slots=True, eq=False)
class Account:
    id: int
    name: str
    sis_account_id: str | None = None
    parent: Account | None = None


@dataclass(slots=True, eq=False)
class Role:
    """A built-in role carries the name of its type; a custom one has a name of its own (``app/models/role.rb``)."""

    id: int
    name: str
    base_role_type: str
    label: str
    created_at: datetime
    state: str = "active"
    """``built_in``, ``active``, ``inactive`` or ``deleted``."""

    @property
    def for_courses(self) -> bool:
        return self.base_role_type in COURSE_TYPES


@dataclass(slots=True, eq=False)
class Term:
    id: int
    name: str
    created_at: datetime
    sis_term_id: str | None = None
    start_at: datetime | None = None
    end_at: datetime | None = None
    overrides: dict[str, tuple[datetime | None, datetime | None]] = field(default_factory=dict)
    """Other dates for one role type."""
    state: str = "active"
    sis_batch_id: int | None = None
    stuck_sis_fields: frozenset[str] = frozenset()


@dataclass(slots=True, eq=False)
class Course:
    id: int
    name: str
    course_code: str
    account: Account
    term: Term
    created_at: datetime
    sis_course_id: str | None = None
    integration_id: str | None = None
    state: str = "available"
    """``created``, ``claimed`` (both: unpublished), ``available`` (published), ``completed`` or ``deleted``."""
    start_at: datetime | None = None
    end_at: datetime | None = None
    restrict_to_dates: bool = False
    template: bool = False
    blueprint: bool = False
    restrict_future_view: bool = False
    """Students and observers see nothing before the start (``restrict_student_future_view``)."""
    restrict_past_view: bool = False
    """Students and observers see nothing after the end (``restrict_student_past_view``)."""
    sis_batch_id: int | None = None
    stuck_sis_fields: frozenset[str] = frozenset()
    sections: list[Section] = field(default_factory=list)
    """The sections that are here now, deleted ones too."""


@dataclass(slots=True, eq=False)
class Section:
    id: int
    name: str
    course: Course
    created_at: datetime
    sis_section_id: str | None = None
    integration_id: str | None = None
    nonxlist_course: Course | None = None
    """Where a cross-listed section came from."""
    start_at: datetime | None = None
    end_at: datetime | None = None
    restrict_to_dates: bool = False
    default: bool = False
    state: str = "active"
    sis_batch_id: int | None = None
    stuck_sis_fields: frozenset[str] = frozenset()
    enrollments: list[Enrollment] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class Pseudonym:
    """One login of a user; it, not the user, carries the SIS id."""

    id: int
    user: User
    unique_id: str
    sis_user_id: str | None = None
    integration_id: str | None = None
    state: str = "active"
    """``active``, ``suspended`` or ``deleted``."""
    created_at: datetime | None = None
    sis_batch_id: int | None = None
    stuck_sis_fields: frozenset[str] = frozenset()


class Channel(NamedTuple):
    """An e-mail address of somebody (``app/models/communication_channel.rb``)."""

    address: str
    confirmed: bool


@dataclass(slots=True, eq=False)
class User:
    id: int
    name: str
    sortable_name: str
    short_name: str
    created_at: datetime
    pronouns: str | None = None
    channels: list[Channel] = field(default_factory=list)
    """Addresses, the default one first."""
    state: str = "registered"
    fake_student: bool = False
    """The Student View's test student of a course."""
    merged_into: User | None = None
    stuck_sis_fields: frozenset[str] = frozenset()
    observers: list[User] = field(default_factory=list)
    """Who is linked to this person (``user_observation_links``)."""
    pseudonyms: list[Pseudonym] = field(default_factory=list)
    enrollments: list[Enrollment] = field(default_factory=list)

    @property
    def email(self) -> str | None:
        """The default address, confirmed or not (``app/models/user.rb#email``)."""
        return self.channels[0].address if self.channels else None

    def login(self) -> Pseudonym | None:
        """The login shown for the user: a live one, with a SIS id if there is one."""
        live = [login for login in self.pseudonyms if login.state != "deleted"]
        return next((login for login in live if login.sis_user_id), live[0] if live else None)


@dataclass(slots=True, frozen=True)
class Mail:
    """A notification, sent at once or due later."""

    kind: str
    user: User
    due: datetime
    at_once: bool
    enrollment: Enrollment | None = None
    """What it is about; None: about the account."""


@dataclass(slots=True, eq=False)
class Progress:
    """A job that has been done (``app/models/progress.rb``)."""

    id: int
    account: Account
    user: User
    tag: str
    created_at: datetime
    results: dict[str, Any]


class EnrollmentKey(NamedTuple):
    """What makes an enrollment the same row (``app/models/course.rb#enroll_user``)."""

    section: int
    user: int
    type: str
    role: int
    associated_user: int | None
    temporary_source: int | None


@dataclass(slots=True, eq=False)
class Enrollment:
    id: int
    section: Section
    user: User
    type: str
    role: Role
    created_at: datetime
    updated_at: datetime
    state: str
    """The stored state: ``creation_pending``, ``invited``, ``active``, ``inactive``, ``completed``, ``rejected``, ``deleted``."""
    associated_user: User | None = None
    temporary_source: int | None = None
    start_at: datetime | None = None
    end_at: datetime | None = None
    completed_at: datetime | None = None
    limit_privileges: bool = False
    self_enrolled: bool = False
    sis_batch_id: int | None = None
    sis_pseudonym: Pseudonym | None = None
    stuck_sis_fields: frozenset[str] = frozenset()
    history: list[tuple[float, str]] = field(default_factory=list)
    """(monotonic time, stored state) of every change, for the visibility lag."""

    @property
    def course(self) -> Course:
        return self.section.course

    @property
    def key(self) -> EnrollmentKey:
        other = self.associated_user.id if self.associated_user else None
        return EnrollmentKey(self.section.id, self.user.id, self.type, self.role.id, other, self.temporary_source)
