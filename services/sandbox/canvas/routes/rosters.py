"""Lists of enrollments: of a course, a section, a person (``app/controllers/enrollments_api_controller.rb#index``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from services.sandbox.canvas import errors, rendering
from services.sandbox.canvas.addressing import find_term
from services.sandbox.canvas.call import Answer, Call
from services.sandbox.canvas.dates import dated_state
from services.sandbox.canvas.paging import by_bookmark, per_page
from services.sandbox.canvas.parameters import boolean, text, texts
from services.sandbox.canvas.routing import Route
from services.sandbox.canvas.state import Course, Enrollment, User

_PENDING_OR_ACTIVE = ("active", "invited", "creation_pending")
_OWN_STATES = {
    "active": ("active",),
    "inactive": ("inactive",),
    "rejected": ("rejected",),
    "invited": ("invited",),
    "creation_pending": ("creation_pending",),
    "pending_active": ("pending_active",),
    "pending_invited": ("pending_invited",),
    "completed": ("completed",),
    "current_and_invited": ("active", "invited"),
    "current_and_future": ("active", "invited", "creation_pending", "pending_active", "pending_invited"),
    "current_future_and_restricted": ("active", "invited", "creation_pending", "pending_active", "pending_invited", "inactive"),
    "current_and_concluded": ("active", "completed"),
}
_SIS_FILTERS = ("sis_account_id", "sis_course_id", "sis_section_id", "sis_user_id")


def list_for_course(call: Call) -> Answer:
    """The rows of all sections of a course."""
    course = call.course()
    return _list_in_course(call, course, call.world.enrollments_of(course))


def list_for_section(call: Call) -> Answer:
    """The rows of one section."""
    section = call.section()
    return _list_in_course(call, section.course, section.enrollments)


def list_for_user(call: Call) -> Answer:
    """The rows of one person everywhere."""
    user = call.user()
    return _page(call, _of_user(call, user, user.enrollments))


def _list_in_course(call: Call, course: Course, rows: Iterable[Enrollment]) -> Answer:
    """With ``user_id`` the defaults of a person's list hold (active and invited), also inside a course."""
    named = text(call.parameters, "user_id")
    if named:
        user = call.user(named)
        return _page(call, _of_user(call, user, [row for row in rows if row.user is user]))
    call.caller.require("read_roster")
    default = (*_PENDING_OR_ACTIVE, "inactive") if call.token.may("read_as_admin") else _PENDING_OR_ACTIVE
    states = texts(call.parameters, "state")
    return _page(call, _in_stored_states(call, rows, states or default))


def _of_user(call: Call, user: User, rows: Iterable[Enrollment]) -> list[Enrollment]:
    states = texts(call.parameters, "state")
    if user is call.token.user:
        return _in_own_states(call, rows, states)
    call.caller.require("read_roster")
    return _in_stored_states(call, rows, states or ("active", "invited"))


def _in_stored_states(call: Call, rows: Iterable[Enrollment], states: Iterable[str]) -> list[Enrollment]:
    """The filter compares the stored state; a word that is no state simply matches nothing."""
    wanted = set(states)
    if not call.settings.visibility_lag_seconds:
        return [row for row in rows if row.state in wanted]
    return [row for row in rows if call.visible_state(row) in wanted]


def _in_own_states(call: Call, rows: Iterable[Enrollment], states: list[str]) -> list[Enrollment]:
    """One's own list compares the effective state, and refuses words that are no state."""
    for state in states:
        if state not in _OWN_STATES:
            raise errors.error(f"Invalid state {state}")
    wanted = {effective for state in states or ["current_and_invited"] for effective in _OWN_STATES[state]}
    now = call.world.clock.now()
    return [row for row in rows if row.state != "deleted" and dated_state(row, now) in wanted]


def _page(call: Call, rows: list[Enrollment]) -> Answer:
    if text(call.parameters, "grading_period_id"):
        raise errors.error("invalid grading_period_id")  # no course here has any
    for keep in _filters(call):
        rows = [row for row in rows if keep(row)]
    size = per_page(text(call.parameters, "per_page"))
    shown, link = by_bookmark(rows, _order, text(call.parameters, "page"), size, call.links)
    include = texts(call.parameters, "include")
    body = [rendering.enrollment(row, call.view, call.visible_state(row), with_user=True, include=include) for row in shown]
    return Answer(body, headers={"Link": link})


def _order(row: Enrollment) -> tuple[str | int, ...]:
    return row.type, row.user.sortable_name.casefold(), row.id


def _filters(call: Call) -> list[Callable[[Enrollment], bool]]:
    return [keep for keep in (_by_role_or_type(call), _by_term(call), *_by_sis_ids(call)) if keep]


def _by_role_or_type(call: Call) -> Callable[[Enrollment], bool] | None:
    """``role_id`` or ``role`` make ``type`` void."""
    role_ids = {int(value) for value in texts(call.parameters, "role_id") if value.isdigit()}
    names = texts(call.parameters, "role")
    if names and not role_ids:
        roles = [call.world.role_named(name) for name in names]
        role_ids = {role.id for role in roles if role and role.for_courses}
        if len(role_ids) != len(names):
            raise errors.bad_request()
    if role_ids:
        return lambda row: row.role.id in role_ids
    types = texts(call.parameters, "type")
    return (lambda row: row.type in types) if types else None


def _by_term(call: Call) -> Callable[[Enrollment], bool] | None:
    named = text(call.parameters, "enrollment_term_id")
    if named is None or "user" not in call.path:
        return None
    term = find_term(call.world, named)
    if term is None or term.state == "deleted":
        raise errors.not_found()
    return lambda row: row.course.term is term


def _by_sis_ids(call: Call) -> Iterable[Callable[[Enrollment], bool]]:
    given = {name: set(texts(call.parameters, name)) for name in _SIS_FILTERS if name in call.parameters}
    if given and not call.view.sees_sis:
        raise errors.message("Insufficient permissions to filter by SIS fields")
    if users := given.get("sis_user_id"):
        yield (
            (lambda row: _imported_as(row, users))
            if boolean(call.parameters.get("created_for_sis_id"))
            else (lambda row: _has_login(row.user, users))
        )
    if sections := given.get("sis_section_id"):
        yield lambda row: row.section.sis_section_id in sections
    if courses := given.get("sis_course_id"):
        yield lambda row: row.course.sis_course_id in courses
    if accounts := given.get("sis_account_id"):
        yield lambda row: row.course.account.sis_account_id in accounts


def _imported_as(row: Enrollment, sis_user_ids: set[str]) -> bool:
    return row.sis_pseudonym is not None and row.sis_pseudonym.sis_user_id in sis_user_ids


def _has_login(user: User, sis_user_ids: set[str]) -> bool:
    return any(login.sis_user_id in sis_user_ids and login.state != "deleted" for login in user.pseudonyms)


ROUTES = [
    Route("GET", "courses/:course/enrollments", "enrollments.list", list_for_course),
    Route("GET", "sections/:section/enrollments", "enrollments.list", list_for_section),
    Route("GET", "users/:user/enrollments", "enrollments.list", list_for_user),
]
