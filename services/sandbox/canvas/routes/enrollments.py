"""Enrollments one by one: create, remove, accept, show and so on (``app/controllers/enrollments_api_controller.rb``)."""

from __future__ import annotations

from services.sandbox.canvas import enrolling, errors, leaving, rendering
from services.sandbox.canvas.call import Answer, Call
from services.sandbox.canvas.effects import Effect
from services.sandbox.canvas.parameters import text
from services.sandbox.canvas.routing import Route


def _written(call: Call, effect: Effect) -> Answer:
    call.effect = effect
    return Answer(rendering.enrollment(effect.row, call.view))


def create_in_course(call: Call) -> Answer:
    """Success is 200, not 201."""
    return _written(call, enrolling.create(call.world, call.caller, call.course(), None, call.parameters))


def create_in_section(call: Call) -> Answer:
    """A cross-listed section enrolls into the course where it is now."""
    section = call.section()
    return _written(call, enrolling.create(call.world, call.caller, section.course, section, call.parameters))


def remove(call: Call) -> Answer:
    """Delete, conclude or deactivate."""
    task = text(call.parameters, "task")
    return _written(call, leaving.remove(call.world, call.caller, call.course(), call.path["id"], task))


def reactivate(call: Call) -> Answer:
    """Only from inactive."""
    return _written(call, leaving.reactivate(call.world, call.caller, call.course(), call.path["id"]))


def accept(call: Call) -> Answer:
    """The invited person accepts."""
    call.effect = leaving.accept(call.world, call.caller, call.course(), call.path["id"])
    return Answer({"success": True})


def reject(call: Call) -> Answer:
    """The invited person declines."""
    call.effect = leaving.reject(call.world, call.caller, call.course(), call.path["id"])
    return Answer({"success": True})


def show(call: Call) -> Answer:
    """Finds deleted ones too; one's own without any right. They all belong to the root account (``app/models/account.rb``)."""
    is_root, identity = call.account() is call.world.root, call.path["id"]
    row = call.world.enrollments.get(int(identity)) if is_root and identity.isascii() and identity.isdigit() else None
    state = call.visible_state(row) if row else None
    if row is None or state is None:
        raise errors.not_found()
    if row.user is not call.token.user:
        call.caller.require("read_roster")
    return Answer(rendering.enrollment(row, call.view, state))


ROUTES = [
    Route("POST", "courses/:course/enrollments", "enrollments.create", create_in_course),
    Route("POST", "sections/:section/enrollments", "enrollments.create", create_in_section),
    Route("DELETE", "courses/:course/enrollments/:id", "enrollments.delete", remove),
    Route("PUT", "courses/:course/enrollments/:id/reactivate", "enrollments.reactivate", reactivate),
    Route("POST", "courses/:course/enrollments/:id/accept", "enrollments.accept", accept),
    Route("POST", "courses/:course/enrollments/:id/reject", "enrollments.reject", reject),
    Route("GET", "accounts/:account/enrollments/:id", "enrollments.get", show),
]
