"""The world: every object, with its indexes.

One row per enrollment key, in every state, never deleted (upstream: unique indexes on enrollments, ``app/models/enrollment.rb``).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from services.sandbox.canvas.clock import Clock
from services.sandbox.canvas.journal import Journal
from services.sandbox.canvas.settings import Assumptions
from services.sandbox.canvas.state import (
    ACCOUNT_ROLE,
    COURSE_TYPES,
    TEST_STUDENT_TYPE,
    Account,
    Course,
    Enrollment,
    EnrollmentKey,
    Mail,
    Progress,
    Pseudonym,
    Role,
    Section,
    Term,
    User,
)

_SIS_COLUMNS: dict[type, tuple[str, str]] = {
    Course: ("sis_course_id", "courses_by_sis"),
    Section: ("sis_section_id", "sections_by_sis"),
    Term: ("sis_term_id", "terms_by_sis"),
    Pseudonym: ("sis_user_id", "logins_by_sis"),
}
"""Where an object keeps its SIS id, and the index by it."""


class World:
    """All objects, found by id, by SIS id or by key. Ids of different kinds never overlap, so that a mix-up shows."""

    def __init__(self, clock: Clock, assumptions: Assumptions | None = None) -> None:
        self.clock = clock
        self.assumptions = assumptions or Assumptions()
        self.mails: list[Mail] = []
        self.journal = Journal()
        self.accounts: dict[int, Account] = {}
        self.roles: dict[int, Role] = {}
        self.terms: dict[int, Term] = {}
        self.courses: dict[int, Course] = {}
        self.sections: dict[int, Section] = {}
        self.users: dict[int, User] = {}
        self.logins: dict[int, Pseudonym] = {}
        self.enrollments: dict[int, Enrollment] = {}
        self.progresses: dict[int, Progress] = {}
        self.courses_by_sis: dict[str, Course] = {}
        self.sections_by_sis: dict[str, Section] = {}
        self.terms_by_sis: dict[str, Term] = {}
        self.logins_by_sis: dict[str, Pseudonym] = {}
        self.logins_by_unique_id: dict[str, Pseudonym] = {}
        self._by_key: dict[EnrollmentKey, Enrollment] = {}
        self._ids = {
            name: itertools.count(first)
            for name, first in {
                "user": 1_001,
                "course": 20_001,
                "section": 300_001,
                "login": 4_000_001,
                "enrollment": 50_000_001,
                "role": 11,
                "term": 2,
                "account": 101,
                "progress": 700_001,
            }.items()
        }
        self._furnish()

    def _furnish(self) -> None:
        """What a new Canvas has: a root account, the built-in roles, the default term, and the custom role the demo uses."""
        now = self.clock.now()
        self.root = self.accounts[1] = Account(1, "University")
        self.default_term = self.terms[1] = Term(1, "Default Term", now)
        built_in = {
            "AccountAdmin": "Account Admin",
            "StudentEnrollment": "Student",
            "TeacherEnrollment": "Teacher",
            "TaEnrollment": "TA",
            "DesignerEnrollment": "Designer",
            "ObserverEnrollment": "Observer",
        }
        for identity, (name, label) in zip((1, 3, 4, 5, 6, 7), built_in.items(), strict=True):
            base = name if name in COURSE_TYPES else ACCOUNT_ROLE
            self.roles[identity] = Role(identity, name, base, label, now, "built_in")
        self.add_role("Auditor", "StudentEnrollment")

    def add_account(self, name: str, sis_account_id: str | None = None) -> Account:
        """An account right below the root account."""
        account = Account(next(self._ids["account"]), name, sis_account_id, self.root)
        self.accounts[account.id] = account
        return account

    def add_progress(self, account: Account, user: User, tag: str, results: dict[str, Any]) -> Progress:
        """A finished job."""
        progress = Progress(next(self._ids["progress"]), account, user, tag, self.clock.now(), results)
        self.progresses[progress.id] = progress
        return progress

    def add_role(self, name: str, base_role_type: str, state: str = "active") -> Role:
        """A custom course role of the root account."""
        role = Role(next(self._ids["role"]), name, base_role_type, name, self.clock.now(), state)
        self.roles[role.id] = role
        return role

    def role_named(self, name: str) -> Role | None:
        """A live course role by its exact name."""
        return next((role for role in self.roles.values() if role.name == name and role.state != "deleted"), None)

    def built_in(self, name: str) -> Role:
        """The built-in role of a type; a test student has the student's (``Enrollment.get_built_in_role_for_type``)."""
        name = "StudentEnrollment" if name == TEST_STUDENT_TYPE else name
        return next(role for role in self.roles.values() if role.name == name and role.state == "built_in")

    def add_term(self, name: str, sis_term_id: str | None = None) -> Term:
        """A term of the root account."""
        term = Term(next(self._ids["term"]), name, self.clock.now(), sis_term_id)
        self.terms[term.id] = term
        if sis_term_id:
            self.terms_by_sis[sis_term_id] = term
        return term

    def add_course(self, name: str, sis_course_id: str | None = None, term: Term | None = None) -> Course:
        """A published course; its default section comes with the first enrollment that needs one."""
        course = Course(
            next(self._ids["course"]), name, name, self.root, term or self.default_term, self.clock.now(), sis_course_id
        )
        self.courses[course.id] = course
        if sis_course_id:
            self.courses_by_sis[sis_course_id] = course
        return course

    def add_section(self, course: Course, name: str, sis_section_id: str | None = None, *, default: bool = False) -> Section:
        """A section of `course`."""
        section = Section(next(self._ids["section"]), name, course, self.clock.now(), sis_section_id, default=default)
        self.sections[section.id] = section
        course.sections.append(section)
        if sis_section_id:
            self.sections_by_sis[sis_section_id] = section
        return section

    def default_section(self, course: Course) -> Section:
        """Where an enrollment without a section goes; made when missing (``app/models/course.rb#default_section``)."""
        active = [section for section in course.sections if section.state == "active"]
        found = next((section for section in active if section.default), active[0] if active else None)
        return found or self.add_section(course, course.name, default=True)

    def add_user(self, name: str, sortable_name: str | None = None) -> User:
        """A registered user without a login."""
        user = User(next(self._ids["user"]), name, sortable_name or last_name_first(name), name, self.clock.now())
        self.users[user.id] = user
        return user

    def add_test_student(self) -> User:
        """The Student View's person; its login has no SIS id (``app/models/course.rb#create_student_view_student``)."""
        student = self.add_user("Test Student")
        student.fake_student = True
        self.add_login(student, f"test-student-{student.id}")
        return student

    def add_login(self, user: User, unique_id: str, sis_user_id: str | None = None) -> Pseudonym:
        """A live login of `user`; the caller has checked that the login and SIS id are free."""
        login = Pseudonym(next(self._ids["login"]), user, unique_id, sis_user_id, created_at=self.clock.now())
        user.pseudonyms.append(login)
        self.logins[login.id] = login
        self.logins_by_unique_id[unique_id.lower()] = login
        if sis_user_id:
            self.logins_by_sis[sis_user_id] = login
        return login

    def renamed_login(self, login: Pseudonym, before: str) -> None:
        """Keep the index true after a login got another unique id."""
        if self.logins_by_unique_id.get(before.lower()) is login:
            del self.logins_by_unique_id[before.lower()]
        self.logins_by_unique_id[login.unique_id.lower()] = login

    def set_sis_id(self, item: Course | Section | Term | Pseudonym, sis_id: str | None) -> None:
        """Give an object another SIS id, or none; the caller has checked that it is free. The old one finds nothing any more."""
        column, index = _SIS_COLUMNS[type(item)]
        known: dict[str, object] = getattr(self, index)
        old = getattr(item, column)
        if old is not None:
            known.pop(old, None)
        setattr(item, column, sis_id)
        if sis_id is not None:
            known[sis_id] = item

    def find(self, key: EnrollmentKey) -> Enrollment | None:
        """The row of a key, in whatever state."""
        return self._by_key.get(key)

    def add_enrollment(
        self, section: Section, user: User, role: Role, state: str, associated: User | None = None, temporary: int | None = None
    ) -> Enrollment:
        """A new row; the caller has looked for the key. A test student's rows have a type of their own."""
        now = self.clock.now()
        identity = next(self._ids["enrollment"])
        kind = TEST_STUDENT_TYPE if user.fake_student else role.base_role_type
        row = Enrollment(identity, section, user, kind, role, now, now, state, associated, temporary)
        self.enrollments[row.id] = row
        section.enrollments.append(row)
        user.enrollments.append(row)
        self._by_key[row.key] = row
        return row

    def forget(self, row: Enrollment) -> None:
        """Take back `add_enrollment`; only for a fault that pretends to have applied."""
        del self.enrollments[row.id], self._by_key[row.key]
        row.section.enrollments.remove(row)
        row.user.enrollments.remove(row)

    def enrollments_of(self, course: Course) -> Iterator[Enrollment]:
        """The rows of a course's current sections, all states."""
        for section in course.sections:
            yield from section.enrollments

    def rekey(self, row: Enrollment, user: User | None = None, associated: User | None = None) -> None:
        """Give a row to another person, or let it observe another one; the caller has made room for the new key."""
        if self._by_key.get(row.key) is row:
            del self._by_key[row.key]
        if user:
            row.user.enrollments.remove(row)
            row.user = user
            user.enrollments.append(row)
        row.associated_user = associated or row.associated_user
        # A deleted row of the same key may stand there: the one that lives is the one to be found.
        self._by_key[row.key] = row

    def move_section(self, section: Section, target: Course) -> None:
        """Put a section with its enrollments into another course (``app/models/course_section.rb#move_to_course``)."""
        section.course.sections.remove(section)
        section.default = not any(other.state == "active" for other in target.sections)
        section.course = target
        target.sections.append(section)


def last_name_first(name: str) -> str:
    """``Ada King Lovelace`` → ``Lovelace, Ada King`` (``app/models/user.rb``, simplified)."""
    given, _, family = name.rpartition(" ")
    return f"{family}, {given}" if given else family
