"""What conclude, delete, deactivate and reactivate do to an enrollment, and the answers to an invitation; no HTTP in here.

Upstream: ``app/controllers/enrollments_api_controller.rb`` and the states of ``app/models/enrollment.rb``.
"""

from __future__ import annotations

from services.sandbox.canvas import errors, observing
from services.sandbox.canvas.dates import effective_state
from services.sandbox.canvas.effects import Effect
from services.sandbox.canvas.state import Course, Enrollment
from services.sandbox.canvas.tokens import Caller, permission_to_remove
from services.sandbox.canvas.world import World


def remove(world: World, caller: Caller, course: Course, identity: str, task: str | None) -> Effect:
    """``DELETE``: a missing or unknown `task` concludes. No transition is refused; what is already deleted is not found."""
    row = _row(world, course, identity)
    _require_removal(caller, row)
    states = {"delete": "deleted", "deactivate": "inactive", "inactivate": "inactive"}
    return move(world, row, states.get(task or "", "completed"))


def move(world: World, row: Enrollment, state: str) -> Effect:
    """Put a row into another stored state, as ``destroy``, ``conclude``, ``deactivate`` and ``reactivate`` of the model do."""
    effect = Effect(world)
    effect.change(row)
    now = world.clock.now()
    row.state, row.updated_at = state, now
    if state == "completed":
        row.completed_at = now
    observing.follow(world, effect)
    return effect


def reactivate(world: World, caller: Caller, course: Course, identity: str) -> Effect:
    """``PUT …/reactivate``: only from stored ``inactive``."""
    row = _row(world, course, identity)
    _require_removal(caller, row)
    if row.state != "inactive":
        raise errors.error("enrollment not inactive")
    return move(world, row, "active")


def accept(world: World, caller: Caller, course: Course, identity: str) -> Effect | None:
    """``POST …/accept`` by the invited person; None when there is nothing left to accept."""
    row = _own_row(world, caller, course, identity)
    effective = effective_state(row, world.clock.now())
    if effective == "active":
        return None
    _check_invitation(row, effective, answerable=("invited", "rejected"))
    return move(world, row, "active")


def reject(world: World, caller: Caller, course: Course, identity: str) -> Effect | None:
    """``POST …/reject`` by the invited person; None when it was rejected before."""
    row = _own_row(world, caller, course, identity)
    if row.state == "rejected":
        return None
    _check_invitation(row, effective_state(row, world.clock.now()), answerable=("invited",))
    return move(world, row, "rejected")


def _own_row(world: World, caller: Caller, course: Course, identity: str) -> Enrollment:
    row = _row(world, course, identity)
    if row.user is not caller.token.user:
        raise errors.unauthorized(caller.unauthorized_status)
    return row


def _check_invitation(row: Enrollment, effective: str, answerable: tuple[str, ...]) -> None:
    if effective == "inactive":
        raise errors.error("membership not activated")
    if row.self_enrolled:
        raise errors.error("self enroll")
    if row.state not in answerable:
        raise errors.error("no current invitation")


def _row(world: World, course: Course, identity: str) -> Enrollment:
    """By Canvas id only, among the course's rows that are not deleted."""
    row = world.enrollments.get(int(identity)) if identity.isascii() and identity.isdigit() else None
    if row is None or row.course is not course or row.state == "deleted":
        raise errors.not_found()
    return row


def _require_removal(caller: Caller, row: Enrollment) -> None:
    """The right for the role type; SIS ownership is not asked. Removing oneself needs an account right as well."""
    caller.require(permission_to_remove(row.type))
    if row.user is caller.token.user:
        caller.require("allow_course_admin_actions")
