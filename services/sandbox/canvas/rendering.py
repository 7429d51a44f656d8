"""The JSON of each object, with the fields that the token's permissions show (``lib/api/v1/*.rb``)."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Any, NamedTuple

from services.sandbox.canvas.state import (
    TEST_STUDENT_TYPE,
    Account,
    Course,
    Enrollment,
    Progress,
    Pseudonym,
    Role,
    Section,
    Term,
    User,
    uuid_of,
)
from services.sandbox.canvas.tokens import Token, permission_to_remove

Json = dict[str, Any]
_UNPUBLISHED = ("created", "claimed")


class View(NamedTuple):
    """For whom something is rendered, and under which address."""

    token: Token
    origin: str

    @property
    def sees_sis(self) -> bool:
        return self.token.may("read_sis") or self.token.may("manage_sis")

    @property
    def sees_imports(self) -> bool:
        return self.token.may("manage_sis")


def instant(moment: datetime | None) -> str | None:
    """``2026-01-31T08:00:00Z``."""
    return moment.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z") if moment else None


def enrollment(
    row: Enrollment, view: View, state: str | None = None, *, with_user: bool = False, include: Collection[str] = ()
) -> Json:
    """``lib/api/v1/user.rb#enrollment_json``; `state` replaces the stored one where reads lag. Lists nest the user."""
    login = row.sis_pseudonym or row.user.login()
    body: Json = {
        "id": row.id,
        "root_account_id": 1,
        "user_id": row.user.id,
        "course_id": row.course.id,
        "course_section_id": row.section.id,
        "associated_user_id": row.associated_user.id if row.associated_user else None,
        "limit_privileges_to_course_section": row.limit_privileges,
        "created_at": instant(row.created_at),
        "updated_at": instant(row.updated_at),
        "start_at": instant(row.start_at),
        "end_at": instant(row.end_at),
        "type": row.type,
        "enrollment_state": "deleted" if "deleted" in (row.course.state, row.section.state) else state or row.state,
        "role": row.role.name,
        "role_id": row.role.id,
        "html_url": f"{view.origin}/courses/{row.course.id}/users/{row.user.id}",
    }
    if row.type in ("StudentEnrollment", TEST_STUDENT_TYPE):
        body["grades"] = _grades(row, view)
    if view.token.may("read_reports"):
        body |= {"last_activity_at": None, "last_attended_at": None, "total_activity_time": 0}
    if view.sees_sis:
        body |= {
            "sis_account_id": row.course.account.sis_account_id,
            "sis_course_id": row.course.sis_course_id,
            "course_integration_id": row.course.integration_id,
            "sis_section_id": row.section.sis_section_id,
            "section_integration_id": row.section.integration_id,
            "sis_user_id": login.sis_user_id if login else None,
        }
    if view.sees_imports:
        body["sis_import_id"] = row.sis_batch_id
    if with_user:
        body["user"] = user(row.user, view)
    return body | _included(row, view, include)


def _included(row: Enrollment, view: View, include: Collection[str]) -> Json:
    """``include[]``. Only here does ownership by the SIS protect a row, and only in what a user interface is told."""
    body: Json = {}
    privileged = view.token.may("manage_account_settings") or view.token.may("manage_sis")
    protected = row.sis_batch_id is not None and not privileged
    if "locked" in include:
        body["locked"] = protected
    if "can_be_removed" in include:
        body["can_be_removed"] = not protected and view.token.may(permission_to_remove(row.type))
    if "observed_users" in include and row.associated_user and row.associated_user.state != "deleted":
        body["observed_user"] = user(row.associated_user, view)
    return body


def _grades(row: Enrollment, view: View) -> Json:
    names = ("current_score", "current_grade", "final_score", "final_grade")
    body: Json = {"html_url": f"{view.origin}/courses/{row.course.id}/grades/{row.user.id}"}
    return body | dict.fromkeys((*names, *(f"unposted_{name}" for name in names)))


def user(person: User, view: View) -> Json:
    """``lib/api/v1/user.rb#user_json``."""
    login = person.login()
    body: Json = {
        "id": person.id,
        "name": person.name,
        "created_at": instant(person.created_at),
        "sortable_name": person.sortable_name,
        "short_name": person.short_name,
    }
    if view.sees_sis and login:
        body |= {"sis_user_id": login.sis_user_id, "integration_id": login.integration_id}
        if view.sees_imports:
            body["sis_import_id"] = login.sis_batch_id
    if login and view.token.may("view_user_logins"):
        body["login_id"] = login.unique_id
    return body


def user_with_address(person: User, view: View) -> Json:
    """As one user alone is shown: with the address, for who may see it."""
    shown = user(person, view)
    return shown | {"email": person.email} if view.token.may("read_email_addresses") else shown


def login(item: Pseudonym, view: View) -> Json:
    """``lib/api/v1/pseudonym.rb``."""
    body: Json = {
        "id": item.id,
        "user_id": item.user.id,
        "account_id": 1,
        "unique_id": item.unique_id,
        "created_at": instant(item.created_at),
        "workflow_state": item.state,
        "declared_user_type": None,
        "authentication_provider_id": None,
    }
    return body | {"sis_user_id": item.sis_user_id, "integration_id": item.integration_id} if view.sees_sis else body


def section(item: Section, view: View, include: Collection[str] = ()) -> Json:
    """``lib/api/v1/section.rb#section_json``; its students are those in any state but deleted."""
    body: Json = {
        "id": item.id,
        "name": item.name,
        "course_id": item.course.id,
        "nonxlist_course_id": item.nonxlist_course.id if item.nonxlist_course else None,
        "created_at": instant(item.created_at),
        "start_at": instant(item.start_at),
        "end_at": instant(item.end_at),
        "restrict_enrollments_to_section_dates": item.restrict_to_dates,
    }
    if view.sees_sis:
        body |= {
            "sis_section_id": item.sis_section_id,
            "sis_course_id": item.course.sis_course_id,
            "integration_id": item.integration_id,
        }
    if view.sees_imports:
        body["sis_import_id"] = item.sis_batch_id
    return body | _students(item, view, include)


def _students(item: Section, view: View, include: Collection[str]) -> Json:
    body: Json = {}
    rows = [row for row in item.enrollments if row.type == "StudentEnrollment"]
    if "students" in include:
        body["students"] = []
        for row in (row for row in rows if row.state != "deleted"):
            shown = user(row.user, view)
            body["students"].append(shown | {"enrollments": [enrollment(row, view)]} if "enrollments" in include else shown)
    if "total_students" in include:
        body["total_students"] = sum(row.state in ("active", "invited") for row in rows)
    return body


def course(item: Course, view: View, include: Collection[str] = ()) -> Json:
    """``lib/api/v1/course_json.rb``; unpublished covers two stored states. What a sync never reads has upstream's defaults."""
    body: Json = {
        "id": item.id,
        "name": item.name,
        "course_code": item.course_code,
        "account_id": item.account.id,
        "root_account_id": 1,
        "enrollment_term_id": item.term.id,
        "created_at": instant(item.created_at),
        "start_at": instant(item.start_at),
        "end_at": instant(item.end_at),
        "restrict_enrollments_to_course_dates": item.restrict_to_dates,
        "blueprint": item.blueprint,
        "template": item.template,
        "workflow_state": "unpublished" if item.state in _UNPUBLISHED else item.state,
        "default_view": "modules",
        "grading_standard_id": None,
        "hide_final_grades": False,
        "is_public": False,
        "is_public_to_auth_users": False,
        "public_syllabus": False,
        "public_syllabus_to_auth": False,
        "storage_quota_mb": 500,
        "calendar": {"ics": f"{view.origin}/feeds/calendars/course_{uuid_of('course', item.id)}.ics"},
    }
    if "term" in include:
        body["term"] = term(item.term, view)
    if view.sees_sis:
        body |= {"sis_course_id": item.sis_course_id, "integration_id": item.integration_id}
    if view.sees_imports:
        body["sis_import_id"] = item.sis_batch_id
    return body


def term(item: Term, view: View) -> Json:
    """``lib/api/v1/enrollment_term.rb``."""
    body: Json = {
        "id": item.id,
        "name": item.name,
        "created_at": instant(item.created_at),
        "start_at": instant(item.start_at),
        "end_at": instant(item.end_at),
        "workflow_state": item.state,
        "overrides": {
            kind: {"start_at": instant(dates[0]), "end_at": instant(dates[1])} for kind, dates in item.overrides.items()
        },
    }
    if view.sees_sis:
        body["sis_term_id"] = item.sis_term_id
    if view.sees_imports:
        body["sis_import_id"] = item.sis_batch_id
    return body


def account(item: Account, view: View) -> Json:
    """``lib/api/v1/account.rb``."""
    body: Json = {
        "id": item.id,
        "name": item.name,
        "workflow_state": "active",
        "parent_account_id": item.parent.id if item.parent else None,
        "root_account_id": 1 if item.parent else None,
        "default_time_zone": "America/Denver",
    }
    return body | {"sis_account_id": item.sis_account_id} if view.sees_sis else body


def progress(item: Progress, view: View, state: str = "completed") -> Json:
    """``lib/api/v1/progress.rb``; what is only queued has no results yet."""
    body: Json = {
        "id": item.id,
        "context_id": item.account.id,
        "context_type": "Account",
        "user_id": item.user.id,
        "tag": item.tag,
        "completion": 100.0 if state == "completed" else 0,
        "workflow_state": state,
        "created_at": instant(item.created_at),
        "updated_at": instant(item.created_at),
        "message": None,
        "url": f"{view.origin}/api/v1/progress/{item.id}",
    }
    return body | {"results": item.results} if state == "completed" else body


def role(item: Role, holder: Account, view: View) -> Json:
    """``lib/api/v1/role.rb``; the permissions, which nobody here reads, are left empty."""
    body: Json = {
        "id": item.id,
        "role": item.name,
        "label": item.label,
        "last_updated_at": instant(item.created_at),
        "base_role_type": item.base_role_type,
        "workflow_state": item.state,
        "created_at": instant(item.created_at),
        "permissions": {},
        "is_account_role": not item.for_courses,
    }
    return body if item.state == "built_in" else body | {"account": account(holder, view)}


def with_string_ids(body: Any) -> Any:
    """``Accept: application/json+canvas-string-ids``: ids become strings (``lib/api/v1/json.rb`` and its middleware)."""
    if isinstance(body, list):
        return [with_string_ids(item) for item in body]
    if not isinstance(body, dict):
        return body
    return {name: _string_id(name, value) for name, value in body.items()}


def _string_id(name: str, value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and (name == "id" or name.endswith("_id")):
        return str(value)
    return with_string_ids(value)
