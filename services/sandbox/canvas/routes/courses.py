"""Courses (``app/controllers/courses_controller.rb``)."""

from __future__ import annotations

from typing import Any

from services.sandbox.canvas import enrolling, errors, leaving, rendering, sticky
from services.sandbox.canvas.addressing import find_account, find_course, find_term
from services.sandbox.canvas.call import Answer, Call
from services.sandbox.canvas.editing import check_order, given_dates, override, set_sis_id
from services.sandbox.canvas.paging import by_number, per_page
from services.sandbox.canvas.parameters import Parameters, boolean, text, texts, tree
from services.sandbox.canvas.routing import Route
from services.sandbox.canvas.state import Account, Course, Term

RIGHT_TO = {
    "claim": "manage_courses_publish",
    "offer": "manage_courses_publish",
    "conclude": "manage_courses_conclude",
    "delete": "manage_courses_delete",
    "undelete": "undelete_courses",
}
_ACTIVE: Parameters = {"enrollment_state": "active"}
STATE_AFTER = {"claim": "claimed", "offer": "available", "conclude": "completed", "delete": "deleted", "undelete": "claimed"}


def _answer(call: Call, course: Course) -> Answer:
    return Answer(rendering.course(course, call.view))


def show(call: Call) -> Answer:
    """A deleted course is not there; ``include[]=term`` is read."""
    return Answer(rendering.course(call.course(), call.view, texts(call.parameters, "include")))


def list_in_account(call: Call) -> Answer:
    """All that are not deleted, by id; filters by state, term and words (``accounts_controller.rb#courses_api``)."""
    account = call.account()
    found = [course for course in call.world.courses.values() if course.state != "deleted" and _below(course.account, account)]
    if states := texts(call.parameters, "state"):
        found = [course for course in found if course.state in states]
    if call.parameters.get("published") is not None:
        wanted = boolean(call.parameters["published"])
        found = [course for course in found if (course.state == "available") == wanted]
    if term := _term(call, call.parameters):
        found = [course for course in found if course.term is term]
    if word := (text(call.parameters, "search_term") or "").casefold():
        found = [course for course in found if any(word in part.casefold() for part in _words(course))]
    size = per_page(text(call.parameters, "per_page"))
    shown, link = by_number(found, text(call.parameters, "page"), size, call.links)
    include = texts(call.parameters, "include")
    return Answer([rendering.course(course, call.view, include) for course in shown], headers={"Link": link})


def _below(account: Account | None, above: Account) -> bool:
    return account is not None and (account is above or _below(account.parent, above))


def _words(course: Course) -> tuple[str, ...]:
    return course.name, course.course_code, course.sis_course_id or ""


def create(call: Call) -> Answer:
    """Unpublished unless ``offer`` says otherwise. A SIS id is dropped without a word unless the caller may manage them.

    Dates count only in a course that restricts itself to them. One that is brought back keeps everything that it had.
    """
    account = call.account()
    call.caller.require("manage_courses_add")
    wanted = tree(call.parameters, "course")
    columns = _columns(call, wanted)
    if not columns.get("restrict_to_dates"):
        columns = {name: value for name, value in columns.items() if name not in ("start_at", "end_at")}
    _check_dates(columns.get("start_at"), columns.get("end_at"))
    sis_id = text(wanted, "sis_course_id") if call.token.may("manage_sis") else None
    known = call.world.courses_by_sis.get(sis_id or "")
    if known is None:
        course = _made(call, account, sis_id, columns | {"integration_id": text(wanted, "integration_id")})
    elif known.state == "deleted" and boolean(call.parameters.get("enable_sis_reactivation")):
        course = known
        sticky.write(course, state="claimed")
    else:
        raise errors.sis_id_taken(str(sis_id))
    if boolean(call.parameters.get("enroll_me")):
        teacher = call.world.built_in("TeacherEnrollment")
        enrolling.enroll(call.world, call.caller, call.world.default_section(course), call.token.user, teacher, _ACTIVE)
    if boolean(call.parameters.get("offer")):
        change_state(call, course, "offer")
    return _answer(call, course)


def _made(call: Call, account: Account, sis_id: str | None, columns: dict[str, Any]) -> Course:
    course = call.world.add_course(columns.get("name") or "Unnamed Course", sis_id)
    course.account, course.state = account, "created"
    for name, value in columns.items():
        setattr(course, name, value)
    sticky.made(call.world, course)
    return course


def update(call: Call) -> Answer:
    """Columns and the events ``claim offer conclude delete undelete``; what changes becomes sticky, the state too.

    All but an event asks first for the right to edit content; without the one to manage courses nothing happens then. A SIS id
    without the right is ignored here, unlike for sections. A deleted course is there only to be undeleted. What does not restrict
    itself to its dates loses its end, and before it is published its start.
    """
    wanted = tree(call.parameters, "course")
    if boolean(call.parameters.get("offer")):
        wanted["event"] = "offer"
    event = text(wanted, "event")
    course = find_course(call.world, call.path["course"])
    if course is None or (course.state == "deleted" and event != "undelete"):
        raise errors.not_found()
    if event in RIGHT_TO:
        call.caller.require(RIGHT_TO[event])
    if set(wanted) != {"event"}:
        call.caller.require("manage_course_content_edit")
    if event in STATE_AFTER:
        change_state(call, course, event)
    columns = _columns(call, wanted) if call.token.may("manage_courses_admin") else {}
    if set(wanted) != {"event"} and not columns.get("restrict_to_dates", course.restrict_to_dates):
        columns |= {"end_at": None} | ({"start_at": None} if course.state in ("created", "claimed") else {})
    _check_dates(columns.get("start_at", course.start_at), columns.get("end_at", course.end_at))
    if call.token.may("manage_sis"):
        set_sis_id(call, course, wanted, "sis_course_id")
    if "integration_id" in wanted:
        course.integration_id = text(wanted, "integration_id")
    sticky.write(course, override=override(call), **columns)
    return _answer(call, course)


def change_state(call: Call, course: Course, event: str) -> None:
    """Publishing invites whoever was waiting for it, concluding ends the course now (``app/models/course.rb``: do_offer,
    invite_uninvited_students, do_complete)."""
    sticky.write(course, state=STATE_AFTER[event])
    if event == "conclude":
        sticky.write(course, end_at=course.end_at or call.world.clock.now())
    if event == "offer" and course.state == "available":
        waiting = [row for row in call.world.enrollments_of(course) if row.state == "creation_pending"]
        for row in waiting:
            call.world.journal.record(leaving.move(call.world, row, "invited").rows)


def _check_dates(start: Any, end: Any) -> None:
    check_order(start, end, "conclude_at", "End date cannot be before start date")


def _columns(call: Call, wanted: Parameters) -> dict[str, Any]:
    columns: dict[str, Any] = dict(given_dates(wanted))
    for name in ("name", "course_code"):
        if value := text(wanted, name):
            columns[name] = value
    if "restrict_enrollments_to_course_dates" in wanted:
        columns["restrict_to_dates"] = boolean(wanted["restrict_enrollments_to_course_dates"])
    if term := _term(call, wanted):
        columns["term"] = term
    if account := _account(call, wanted):
        columns["account"] = account
    return columns


def _term(call: Call, wanted: Parameters) -> Term | None:
    named = text(wanted, "term_id") or text(wanted, "enrollment_term_id")
    if named is None:
        return None
    term = find_term(call.world, named)
    if term is None:
        raise errors.not_found()
    return term


def _account(call: Call, wanted: Parameters) -> Account | None:
    named = text(wanted, "account_id")
    if named is None:
        return None
    account = find_account(call.world, named)
    if account is None:
        raise errors.not_found()
    return account


def delete(call: Call) -> Answer:
    """``event=delete`` or ``event=conclude``; one of them must be given."""
    course = call.course()
    event = text(call.parameters, "event")
    if event not in ("delete", "conclude"):
        raise errors.message("Only 'delete' and 'conclude' events are allowed")
    call.caller.require(RIGHT_TO[event])
    change_state(call, course, event)
    return Answer({event: True})


ROUTES = [
    Route("GET", "courses/:course", "courses.get", show),
    Route("GET", "accounts/:account/courses", "courses.list", list_in_account),
    Route("GET", "accounts/:account/courses/:course", "courses.get", show),
    Route("POST", "accounts/:account/courses", "courses.create", create),
    Route("PUT", "courses/:course", "courses.update", update),
    Route("DELETE", "courses/:course", "courses.delete", delete),
]
