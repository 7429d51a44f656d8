"""Sections (``app/controllers/sections_controller.rb``, ``app/models/course_section.rb``)."""

from __future__ import annotations

from typing import Any

from services.sandbox.canvas import errors, rendering, sticky
from services.sandbox.canvas.call import Answer, Call
from services.sandbox.canvas.editing import check_order, given_dates, override, set_sis_id
from services.sandbox.canvas.paging import by_number, per_page
from services.sandbox.canvas.parameters import Parameters, boolean, text, texts, tree
from services.sandbox.canvas.routing import Route
from services.sandbox.canvas.state import TEST_STUDENT_TYPE, Course, Section


def active_section(call: Call) -> Section:
    """The section of the path, unless it was deleted; below a course, only one that is in it now."""
    section = call.section()
    if section.state != "active" or ("course" in call.path and section.course is not call.course()):
        raise errors.not_found()
    return section


def _answer(call: Call, section: Section) -> Answer:
    return Answer(rendering.section(section, call.view))


def show(call: Call) -> Answer:
    """Active sections only; ``include[]`` of students, enrollments and total_students is read, here and in lists."""
    return Answer(rendering.section(active_section(call), call.view, texts(call.parameters, "include")))


def list_in_course(call: Call) -> Answer:
    """The active sections that are in the course now, by name."""
    active = [section for section in call.course().sections if section.state == "active"]
    active.sort(key=lambda section: (section.name.casefold(), section.id))
    size = per_page(text(call.parameters, "per_page"))
    shown, link = by_number(active, text(call.parameters, "page"), size, call.links)
    include = texts(call.parameters, "include")
    return Answer([rendering.section(section, call.view, include) for section in shown], headers={"Link": link})


def create(call: Call) -> Answer:
    """SIS ids are dropped without a word unless the caller may manage them. A section that is brought back keeps what it had."""
    course = call.course()
    call.caller.require("manage_sections_add")
    wanted = tree(call.parameters, "course_section")
    may = call.token.may("manage_sis")
    sis_id = text(wanted, "sis_section_id") if may else None
    known = call.world.sections_by_sis.get(sis_id or "")
    if known is None:
        section = _made(call, course, sis_id, wanted)
    elif known.state == "deleted" and known.course is course and boolean(call.parameters.get("enable_sis_reactivation")):
        section = known
        section.state = "active"
    else:
        raise errors.sis_id_taken(str(sis_id))
    section.integration_id = text(wanted, "integration_id") if may else section.integration_id
    return _answer(call, section)


def _made(call: Call, course: Course, sis_id: str | None, wanted: Parameters) -> Section:
    """Without a name it is called by its course and the day (``app/models/course_section.rb#infer_defaults``)."""
    columns = _columns(wanted)
    check_order(columns.get("start_at"), columns.get("end_at"), "end_at", "End date cannot be before start date")
    section = call.world.add_section(course, f"{course.name} {call.world.clock.now().date()}", sis_id)
    for name, value in columns.items():
        setattr(section, name, value)
    sticky.made(call.world, section)
    return section


def update(call: Call) -> Answer:
    """What changes becomes sticky. SIS ids without the right are refused here, with a status of their own.

    Where stickiness is to be respected, name and dates stay, sticky or not (``sections_controller.rb#course_section_params``).
    """
    section = active_section(call)
    call.caller.require("manage_sections_edit")
    wanted = tree(call.parameters, "course_section")
    if ("sis_section_id" in wanted or "integration_id" in wanted) and not call.token.may("manage_sis"):
        raise errors.no_manage_sis()
    columns = _columns(wanted)
    if not override(call):
        columns = {name: value for name, value in columns.items() if name == "restrict_to_dates"}
    start, end = (columns.get(name, getattr(section, name)) for name in ("start_at", "end_at"))
    check_order(start, end, "end_at", "End date cannot be before start date")
    set_sis_id(call, section, wanted, "sis_section_id")
    if "integration_id" in wanted:
        section.integration_id = text(wanted, "integration_id")
    sticky.write(section, **columns)
    return _answer(call, section)


def _columns(wanted: Parameters) -> dict[str, Any]:
    columns: dict[str, Any] = dict(given_dates(wanted))
    if name := text(wanted, "name"):
        columns["name"] = name
    if "restrict_enrollments_to_section_dates" in wanted:
        columns["restrict_to_dates"] = boolean(wanted["restrict_enrollments_to_section_dates"])
    return columns


def delete(call: Call) -> Answer:
    """Refused while somebody is in it; who only rejected does not count, nor does the test student. All rows go with it."""
    section = active_section(call)
    call.caller.require("manage_sections_delete")
    here = [row for row in section.enrollments if row.state != "deleted"]
    if any(row.state != "rejected" and row.type != TEST_STUDENT_TYPE for row in here):
        raise errors.message("You can't delete a section that has enrollments")
    for row in here:
        row.state, row.updated_at = "deleted", call.world.clock.now()
    call.world.journal.record(here)
    section.state = "deleted"
    return _answer(call, section)


ROUTES = [
    Route("GET", "sections/:section", "sections.get", show),
    Route("GET", "courses/:course/sections", "sections.list", list_in_course),
    Route("GET", "courses/:course/sections/:section", "sections.get", show),
    Route("POST", "courses/:course/sections", "sections.create", create),
    Route("PUT", "sections/:section", "sections.update", update),
    Route("DELETE", "sections/:section", "sections.delete", delete),
]
