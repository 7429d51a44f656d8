"""Sections and cross-listing (``app/controllers/sections_controller.rb``)."""

from __future__ import annotations

from services.sandbox.canvas import errors, rendering
from services.sandbox.canvas.addressing import find_course
from services.sandbox.canvas.call import Answer, Call
from services.sandbox.canvas.paging import by_number, per_page
from services.sandbox.canvas.parameters import Parameters, boolean, moment, text, tree
from services.sandbox.canvas.routing import Route
from services.sandbox.canvas.state import Section


def _active(call: Call) -> Section:
    section = call.section()
    if section.state != "active":
        raise errors.not_found()
    return section


def _answer(call: Call, section: Section) -> Answer:
    return Answer(rendering.section(section, call.view))


def show(call: Call) -> Answer:
    """Active sections only."""
    return _answer(call, _active(call))


def list_in_course(call: Call) -> Answer:
    """The active sections that are in the course now."""
    active = [section for section in call.course().sections if section.state == "active"]
    size = per_page(text(call.parameters, "per_page"))
    shown, link = by_number(active, text(call.parameters, "page"), size, call.links)
    return Answer([rendering.section(section, call.view) for section in shown], headers={"Link": link})


def create(call: Call) -> Answer:
    """A SIS id is dropped without a word unless the caller may manage them."""
    course = call.course()
    call.caller.require("manage_courses")
    wanted = tree(call.parameters, "course_section")
    sis_id = text(wanted, "sis_section_id") if call.token.may("manage_sis") else None
    existing = call.world.sections_by_sis.get(sis_id or "")
    if (
        existing
        and existing.state == "deleted"
        and existing.course is course
        and boolean(call.parameters.get("enable_sis_reactivation"))
    ):
        existing.state = "active"
        return _answer(call, existing)
    if existing:
        raise errors.invalid("sis_source_id", f"SIS ID {sis_id!r} is already in use", "taken")
    section = call.world.add_section(course, text(wanted, "name") or course.name, sis_id)
    _set_columns(section, wanted)
    return _answer(call, section)


def update(call: Call) -> Answer:
    """Name and dates."""
    section = _active(call)
    call.caller.require("manage_courses")
    wanted = tree(call.parameters, "course_section")
    section.name = text(wanted, "name") or section.name
    _set_columns(section, wanted)
    return _answer(call, section)


def _set_columns(section: Section, wanted: Parameters) -> None:
    for name in ("start_at", "end_at"):
        if name in wanted:
            setattr(section, name, moment(wanted[name]))
    if "restrict_enrollments_to_section_dates" in wanted:
        section.restrict_to_dates = boolean(wanted["restrict_enrollments_to_section_dates"])
    if "integration_id" in wanted:
        section.integration_id = text(wanted, "integration_id")


def delete(call: Call) -> Answer:
    """Refused while somebody is in it."""
    section = _active(call)
    call.caller.require("manage_courses")
    if any(row.state not in ("deleted", "rejected") for row in section.enrollments):
        raise errors.message("You can't delete a section that has enrollments")
    section.state = "deleted"
    return _answer(call, section)


def cross_list(call: Call) -> Answer:
    """The section moves with its enrollments and remembers where it came from (``app/models/course_section.rb``)."""
    section = _active(call)
    call.caller.require("manage_courses")
    target = find_course(call.world, call.path["course"])
    if target is None or target.state == "deleted":
        raise errors.not_found()
    if target is not section.course:
        origin = section.nonxlist_course or section.course
        section.nonxlist_course = None if origin is target else origin
        call.world.move_section(section, target)
    return _answer(call, section)


def uncross_list(call: Call) -> Answer:
    """Back to the original course."""
    section = _active(call)
    call.caller.require("manage_courses")
    if section.nonxlist_course is None:
        raise errors.message("section is not cross-listed")
    origin, section.nonxlist_course = section.nonxlist_course, None
    call.world.move_section(section, origin)
    return _answer(call, section)


ROUTES = [
    Route("GET", "sections/:section", "sections.get", show),
    Route("GET", "courses/:course/sections", "sections.list", list_in_course),
    Route("GET", "courses/:course/sections/:section", "sections.get", show),
    Route("POST", "courses/:course/sections", "sections.create", create),
    Route("PUT", "sections/:section", "sections.update", update),
    Route("DELETE", "sections/:section", "sections.delete", delete),
    Route("POST", "sections/:section/crosslist/:course", "sections.crosslist", cross_list),
    Route("DELETE", "sections/:section/crosslist", "sections.uncrosslist", uncross_list),
]
