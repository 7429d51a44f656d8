"""Links between observers and students (``app/controllers/user_observees_controller.rb``). `observing` says what they do."""

from __future__ import annotations

from services.sandbox.canvas import errors, observing, rendering
from services.sandbox.canvas.call import Answer, Call
from services.sandbox.canvas.paging import by_number, per_page
from services.sandbox.canvas.parameters import text
from services.sandbox.canvas.routing import Route
from services.sandbox.canvas.state import User


def list_observees(call: Call) -> Answer:
    """Whom a user observes."""
    observer = call.user()
    return _page(call, [user for user in call.world.users.values() if observer in user.observers])


def list_observers(call: Call) -> Answer:
    """Who observes a user."""
    return _page(call, call.user().observers)


def _page(call: Call, users: list[User]) -> Answer:
    size = per_page(text(call.parameters, "per_page"))
    shown, link = by_number(users, text(call.parameters, "page"), size, call.links)
    return Answer([rendering.user(user, call.view) for user in shown], headers={"Link": link})


def show(call: Call) -> Answer:
    """404 unless the two are linked."""
    return Answer(rendering.user(_linked(call), call.view))


def link(call: Call) -> Answer:
    """Link two people; to link them again changes nothing."""
    observer, student = call.user(), call.user(call.path["observee"])
    call.caller.require("manage_user_observers")
    if observer is student:
        raise errors.invalid("observer_id", "Cannot observe yourself")
    observing.link(call.world, observer, student)
    return Answer(rendering.user(student, call.view))


def unlink(call: Call) -> Answer:
    """End the link, and with it the observer's enrollments for this student."""
    student = _linked(call)
    call.caller.require("manage_user_observers")
    observing.unlink(call.world, call.user(), student)
    return Answer(rendering.user(student, call.view))


def _linked(call: Call) -> User:
    student = call.user(call.path["observee"])
    if call.user() not in student.observers:
        raise errors.not_found()
    return student


ROUTES = [
    Route("GET", "users/:user/observees", "observees.list", list_observees),
    Route("GET", "users/:user/observers", "observers.list", list_observers),
    Route("GET", "users/:user/observees/:observee", "observees.get", show),
    Route("PUT", "users/:user/observees/:observee", "observees.create", link),
    Route("DELETE", "users/:user/observees/:observee", "observees.delete", unlink),
]
