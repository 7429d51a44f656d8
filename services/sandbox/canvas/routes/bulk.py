"""Many at once, answered with a Progress: enrollments of people in courses, and events of courses.

Upstream: ``enrollments_api_controller.rb#bulk_enrollment``, ``app/models/enrollment/bulk_update.rb``,
``courses_controller.rb#batch_update``, ``app/models/progress.rb``. The work is done at once; the answer says ``queued`` as
upstream's does, and the first look at the Progress finds it completed.
"""

from __future__ import annotations

from typing import Any

from services.sandbox.canvas import enrolling, errors, rendering
from services.sandbox.canvas.addressing import find_course, find_user
from services.sandbox.canvas.call import Answer, Call
from services.sandbox.canvas.errors import Refusal
from services.sandbox.canvas.parameters import text, texts
from services.sandbox.canvas.routes.courses import change_state
from services.sandbox.canvas.routing import Route
from services.sandbox.canvas.state import COURSE_TYPES, Account, Course, Progress, Role
from services.sandbox.canvas.tokens import permission_to_add

_MOST_PAIRS = _MOST_COURSES = 500


def bulk_enrollment(call: Call) -> Answer:
    """Default section, default state, with notifications; unknown people are skipped. Not for a sync."""
    account = call.account()
    users, courses = texts(call.parameters, "user_ids"), texts(call.parameters, "course_ids")
    role = _role(call)
    if len(users) * len(courses) > _MOST_PAIRS:
        raise Refusal(400, {"errors": "Too many users to enroll at once."})
    found = [find_course(call.world, named) for named in courses]
    if any(course is None for course in found):
        raise errors.not_found()
    call.caller.require(permission_to_add(role.base_role_type))
    problems = _enroll(call, users, [course for course in found if course], role)
    return _queued(call, account, "bulk_enrollment", {"errors": problems})


def _role(call: Call) -> Role:
    kind, named = text(call.parameters, "enrollment_type"), text(call.parameters, "enrollment_role_id")
    if named:
        role = call.world.roles.get(int(named)) if named.isdigit() else None
        if role is None or not role.for_courses:
            raise Refusal(400, {"errors": enrolling.BAD_ROLE})
        if role.state == "inactive":
            raise Refusal(400, {"errors": enrolling.INACTIVE_ROLE})
        if kind and kind != role.base_role_type:
            raise Refusal(400, {"errors": enrolling.TYPE_MISMATCH})
        return role
    if (kind or "StudentEnrollment") not in COURSE_TYPES:
        raise Refusal(400, {"errors": "Invalid enrollment type."})
    return call.world.built_in(kind or "StudentEnrollment")


def _enroll(call: Call, users: list[str], courses: list[Course], role: Role) -> dict[str, Any]:
    problems: dict[str, Any] = {}
    for named in users:
        user = find_user(call.world, named, call.token.user)
        if user is None:
            continue
        for course in courses:
            if user.login() is None or user.state == "deleted":
                problems[str(user.id)] = f"User {user.id} cannot be enrolled in course {course.id}"
                continue
            section = call.world.default_section(course)
            try:
                effect = enrolling.enroll(call.world, call.caller, section, user, role, {"notify": True})
            except Refusal as refusal:
                problems[str(user.id)] = refusal.body
                continue
            call.world.journal.record(effect.rows)
    return problems


def update_courses(call: Call) -> Answer:
    """An event for many courses; a course that is not there is left out."""
    account = call.account()
    event = text(call.parameters, "event")
    call.caller.require("undelete_courses" if event == "undelete" else "manage_courses_admin")
    named = texts(call.parameters, "course_ids")
    if not named:
        raise errors.message("must specify course_ids[]")
    if len(named) > _MOST_COURSES:
        raise Refusal(403, {"message": f"course batch size limit ({_MOST_COURSES}) exceeded"})
    if event is None:
        raise errors.message("need to specify event")
    if event not in ("offer", "conclude", "delete", "undelete"):
        raise errors.message("invalid event")
    for course in (find_course(call.world, name) for name in named):
        if course and (course.state != "deleted" or event == "undelete"):
            change_state(call, course, event)
    return _queued(call, account, "course_batch_update", {})


def _queued(call: Call, account: Account, tag: str, results: dict[str, Any]) -> Answer:
    progress = call.world.add_progress(account, call.token.user, tag, results)
    return Answer(rendering.progress(progress, call.view, state="queued"))


def show_progress(call: Call) -> Answer:
    """By Canvas id."""
    identity = call.path["id"]
    progress: Progress | None = call.world.progresses.get(int(identity)) if identity.isascii() and identity.isdigit() else None
    if progress is None:
        raise errors.not_found()
    return Answer(rendering.progress(progress, call.view))


ROUTES = [
    Route("POST", "accounts/:account/bulk_enrollment", "enrollments.bulk", bulk_enrollment),
    Route("PUT", "accounts/:account/courses", "courses.bulk", update_courses),
    Route("GET", "progress/:id", "progress.get", show_progress),
]
