"""Courses (``app/controllers/courses_controller.rb``)."""

from __future__ import annotations

from services.sandbox.canvas import errors, rendering
from services.sandbox.canvas.addressing import find_term
from services.sandbox.canvas.call import Answer, Call
from services.sandbox.canvas.paging import by_number, per_page
from services.sandbox.canvas.parameters import Parameters, boolean, moment, text, tree
from services.sandbox.canvas.routing import Route
from services.sandbox.canvas.state import Course, Term

_STATE_AFTER = {"claim": "claimed", "offer": "available", "conclude": "completed", "delete": "deleted", "undelete": "claimed"}


def _answer(call: Call, course: Course) -> Answer:
    return Answer(rendering.course(course, call.view))


def show(call: Call) -> Answer:
    """A deleted course is not there."""
    return _answer(call, call.course())


def list_in_account(call: Call) -> Answer:
    """All that are not deleted, by id."""
    call.account()
    found = [course for course in call.world.courses.values() if course.state != "deleted"]
    size = per_page(text(call.parameters, "per_page"))
    shown, link = by_number(found, text(call.parameters, "page"), size, call.links)
    return Answer([rendering.course(course, call.view) for course in shown], headers={"Link": link})


def create(call: Call) -> Answer:
    """Unpublished unless ``offer`` says otherwise."""
    account = call.account()
    call.caller.require("manage_courses")
    wanted = tree(call.parameters, "course")
    sis_id = text(wanted, "sis_course_id") if call.token.may("manage_sis") else None
    existing = call.world.courses_by_sis.get(sis_id or "")
    if existing and existing.state == "deleted" and boolean(call.parameters.get("enable_sis_reactivation")):
        existing.state = "claimed"
        return _answer(call, existing)
    if existing:
        raise errors.invalid("sis_source_id", f"SIS ID {sis_id!r} is already in use", "taken")
    course = call.world.add_course(text(wanted, "name") or "Unnamed Course", sis_id, _term(call, wanted))
    course.account, course.state = account, "available" if boolean(call.parameters.get("offer")) else "claimed"
    _set_columns(course, wanted)
    return _answer(call, course)


def _term(call: Call, wanted: Parameters) -> Term | None:
    named = text(wanted, "term_id") or text(wanted, "enrollment_term_id")
    if named is None:
        return None
    term = find_term(call.world, named)
    if term is None:
        raise errors.not_found()
    return term


def update(call: Call) -> Answer:
    """Columns, and the events ``claim offer conclude delete undelete``."""
    course = call.course()
    call.caller.require("manage_courses")
    wanted = tree(call.parameters, "course")
    course.name = text(wanted, "name") or course.name
    course.term = _term(call, wanted) or course.term
    course.state = _STATE_AFTER.get(text(wanted, "event") or "", course.state)
    _set_columns(course, wanted)
    return _answer(call, course)


def _set_columns(course: Course, wanted: Parameters) -> None:
    course.course_code = text(wanted, "course_code") or course.course_code
    for name in ("start_at", "end_at"):
        if name in wanted:
            setattr(course, name, moment(wanted[name]))
    if "restrict_enrollments_to_course_dates" in wanted:
        course.restrict_to_dates = boolean(wanted["restrict_enrollments_to_course_dates"])


def delete(call: Call) -> Answer:
    """``event=delete`` or ``event=conclude``; one of them must be given."""
    course = call.course()
    call.caller.require("manage_courses")
    event = text(call.parameters, "event")
    if event not in ("delete", "conclude"):
        raise errors.message("Only 'delete' and 'conclude' events are allowed")
    course.state = _STATE_AFTER[event]
    return Answer({event: True})


ROUTES = [
    Route("GET", "courses/:course", "courses.get", show),
    Route("GET", "accounts/:account/courses", "courses.list", list_in_account),
    Route("GET", "accounts/:account/courses/:course", "courses.get", show),
    Route("POST", "accounts/:account/courses", "courses.create", create),
    Route("PUT", "courses/:course", "courses.update", update),
    Route("DELETE", "courses/:course", "courses.delete", delete),
]
