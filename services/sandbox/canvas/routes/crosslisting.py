"""Cross-listing sections and taking it back (``sections_controller.rb``, ``app/models/course_section.rb``).

The section moves with all its enrollments, deleted ones too; ``nonxlist_course_id`` remembers the course it was in first.
"""

from __future__ import annotations

from services.sandbox.canvas import errors, rendering, sticky
from services.sandbox.canvas.addressing import find_course
from services.sandbox.canvas.call import Answer, Call
from services.sandbox.canvas.editing import override
from services.sandbox.canvas.routes.sections import active_section
from services.sandbox.canvas.routing import Route
from services.sandbox.canvas.state import Course, Section


def cross_list(call: Call) -> Answer:
    """Into a course that is not deleted. A section that was cross-listed before keeps its first course as the origin."""
    section = active_section(call)
    target = find_course(call.world, call.path["target"])
    if target is None or target.state == "deleted":
        raise errors.not_found()
    if override(call):
        _require_rights(call)
        if target is not section.course:
            section.nonxlist_course = section.nonxlist_course or section.course
            _move(call, section, target)
    return Answer(rendering.section(section, call.view))


def uncross_list(call: Call) -> Answer:
    """Back to the first course; one that was deleted meanwhile comes back unpublished."""
    section = active_section(call)
    origin = section.nonxlist_course
    if origin is None:
        raise errors.message("section is not cross-listed")
    _require_rights(call)
    if override(call):
        if origin.state == "deleted":
            sticky.write(origin, state="claimed")
        section.nonxlist_course = None
        _move(call, section, origin)
    return Answer(rendering.section(section, call.view))


def _require_rights(call: Call) -> None:
    """To edit the section, and to manage the course that it goes to (``app/models/course_section.rb``, ``course.rb``)."""
    call.caller.require("manage_sections_edit")
    call.caller.require("manage_courses_admin")


def _move(call: Call, section: Section, target: Course) -> None:
    """The section's course becomes sticky: the SIS does not take it back."""
    if target is section.course:
        return
    call.world.move_section(section, target)
    section.stuck_sis_fields |= {"course_id"}


ROUTES = [
    Route("POST", "sections/:section/crosslist/:target", "sections.crosslist", cross_list),
    Route("DELETE", "sections/:section/crosslist", "sections.uncrosslist", uncross_list),
]
