"""Who is in a course or section, as users (``courses_controller.rb#users``, ``sections_controller.rb#users``)."""

from __future__ import annotations

from collections.abc import Iterable

from services.sandbox.canvas import errors, rendering
from services.sandbox.canvas.call import Answer, Call
from services.sandbox.canvas.paging import by_number, per_page
from services.sandbox.canvas.parameters import text, texts
from services.sandbox.canvas.routing import Route
from services.sandbox.canvas.state import TEST_STUDENT_TYPE, Enrollment, User

_TYPES = {
    "teacher": "TeacherEnrollment",
    "student": "StudentEnrollment",
    "student_view": TEST_STUDENT_TYPE,
    "ta": "TaEnrollment",
    "observer": "ObserverEnrollment",
    "designer": "DesignerEnrollment",
}
_BY_DEFAULT = ("active", "invited", "creation_pending")


def list_in_course(call: Call) -> Answer:
    """One entry per person, with the rows that fit when ``include[]=enrollments``."""
    return _page(call, call.world.enrollments_of(call.course()))


def list_in_section(call: Call) -> Answer:
    """The same for one section."""
    return _page(call, call.section().enrollments)


def show_in_course(call: Call) -> Answer:
    """Somebody who is in the course in any state but deleted."""
    course, user = call.course(), call.user()
    call.caller.require("read_roster")
    if not any(row.course is course and row.state != "deleted" for row in user.enrollments):
        raise errors.not_found()
    return Answer(rendering.user(user, call.view))


def _page(call: Call, rows: Iterable[Enrollment]) -> Answer:
    call.caller.require("read_roster")
    found = _people(call, rows)
    users = sorted(found, key=lambda user: (user.sortable_name.casefold(), user.id))
    size = per_page(text(call.parameters, "per_page"))
    shown, link = by_number(users, text(call.parameters, "page"), size, call.links)
    with_rows = "enrollments" in texts(call.parameters, "include")
    body = []
    for user in shown:
        item = rendering.user(user, call.view)
        if with_rows:
            item["enrollments"] = [rendering.enrollment(row, call.view) for row in found[user]]
        body.append(item)
    return Answer(body, headers={"Link": link})


def _people(call: Call, rows: Iterable[Enrollment]) -> dict[User, list[Enrollment]]:
    states = texts(call.parameters, "enrollment_state") or _BY_DEFAULT
    kinds = {_TYPES.get(name, name) for name in texts(call.parameters, "enrollment_type")}
    ids = {int(value) for value in texts(call.parameters, "user_ids") if value.isdigit()}
    found: dict[User, list[Enrollment]] = {}
    for row in rows:
        fits = call.visible_state(row) in states and (not kinds or row.type in kinds) and (not ids or row.user.id in ids)
        # The test student shows only where it was asked for by name.
        if fits and (row.type != TEST_STUDENT_TYPE or TEST_STUDENT_TYPE in kinds):
            found.setdefault(row.user, []).append(row)
    return found


ROUTES = [
    Route("GET", "courses/:course/users", "people.list", list_in_course),
    Route("GET", "courses/:course/search_users", "people.list", list_in_course),
    Route("GET", "sections/:section/users", "people.list", list_in_section),
    Route("GET", "courses/:course/users/:user", "people.get", show_in_course),
]
