"""What create, conclude, delete, deactivate and reactivate do to an enrollment; no HTTP in here.

Upstream: ``app/controllers/enrollments_api_controller.rb`` for the checks and their order, ``app/models/course.rb#enroll_user``
for the effect, ``app/models/enrollment.rb`` for the states and the validation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import NamedTuple

from services.sandbox.canvas import errors
from services.sandbox.canvas.addressing import find_section, find_user
from services.sandbox.canvas.dates import course_concluded, effective_state, section_concluded
from services.sandbox.canvas.parameters import Parameters, boolean, moment, text
from services.sandbox.canvas.state import STAFF_TYPES, Course, Enrollment, EnrollmentKey, Role, Section, User, World
from services.sandbox.canvas.tokens import Token, permission_to_add, permission_to_remove

NO_PARAMETERS = "No parameters given"
NO_USER = "Can't create an enrollment without a user. Include enrollment[user_id] to create an enrollment"
NO_SIS_ID = "Can't create an enrollment without a sis_user_id or integration_id when root_account is provided"
BAD_TYPE = "Invalid type"
BAD_ROLE = "Invalid role"
INACTIVE_ROLE = "Cannot create an enrollment with this role because it is inactive."
TYPE_MISMATCH = "The specified type must match the base type for the role"
CONCLUDED = "Can't add an enrollment to a concluded course."


class Caller(NamedTuple):
    """Who asks, and how a refusal for lack of rights looks today."""

    token: Token
    unauthorized_status: int

    def require(self, permission: str) -> None:
        """Raise 403 or 401 unless the token has the permission."""
        if not self.token.may(permission):
            raise errors.unauthorized(self.unauthorized_status)


class Effect(NamedTuple):
    """What a write did; `undo` takes it back as if it had never happened."""

    row: Enrollment
    before: str | None
    """The stored state before, None for a new row."""
    undo: Callable[[], None]
    followers: tuple[tuple[Enrollment, str], ...] = ()
    """Linked rows that changed too, with their state before."""


def create(world: World, caller: Caller, course: Course, section: Section | None, parameters: Parameters) -> Effect:
    """`section` is the one in the path, if any; it wins over the parameter. Raises `Refusal` in upstream's order of checks."""
    wanted = parameters.get("enrollment")
    wanted = wanted if isinstance(wanted, dict) else {}
    role = _checked_role(world, wanted, boolean(parameters.get("root_account")))
    caller.require(permission_to_add(role.base_role_type))
    if course.template or (course.blueprint and role.base_role_type == "StudentEnrollment"):
        raise errors.unauthorized(caller.unauthorized_status)
    section = _checked_section(world, course, section, wanted)
    user = _checked_user(world, caller, wanted)
    _check_not_concluded(world, course, section, user)
    return _enroll(world, caller, section or world.default_section(course), user, role, wanted)


def _checked_role(world: World, wanted: Parameters, with_root_account: bool) -> Role:
    """Checks 1 to 8: their texts are collected and joined."""
    if not wanted:
        raise errors.message(NO_PARAMETERS)
    texts = []
    enrollment_type = text(wanted, "type")
    role_id, role_name = text(wanted, "role_id"), text(wanted, "role")
    if role_id:
        role = world.roles.get(int(role_id)) if role_id.isdigit() else None
    elif role_name:
        role = world.role_named(role_name)
    else:
        role = world.role_named(enrollment_type or "StudentEnrollment")
        if role is None or not role.for_courses or role.state != "built_in":
            role = None
            texts.append(BAD_TYPE)
    if role and role.for_courses and role.state != "deleted":
        if role.state == "inactive":
            texts.append(INACTIVE_ROLE)
        elif enrollment_type and enrollment_type != role.base_role_type:
            texts.append(TYPE_MISMATCH)
    elif not texts:
        texts.append(BAD_ROLE)
    if with_root_account and not (text(wanted, "sis_user_id") or text(wanted, "integration_id")):
        texts.append(NO_SIS_ID)
    elif not with_root_account and not text(wanted, "user_id"):
        texts.append(NO_USER)
    if texts or role is None:
        raise errors.message(*texts)
    return role


def _checked_section(world: World, course: Course, section: Section | None, wanted: Parameters) -> Section | None:
    """Check 10: only an active section of this very course will do."""
    if section is None:
        named = text(wanted, "course_section_id")
        if named is None:
            return None
        section = find_section(world, named)
    if section is None or section.state != "active" or section.course is not course:
        raise errors.not_found()
    return section


def _checked_user(world: World, caller: Caller, wanted: Parameters) -> User:
    """Checks 11 and 12: an unknown user, or one without a usable login, is simply not there."""
    named = text(wanted, "user_id") or f"sis_user_id:{text(wanted, 'sis_user_id')}"
    user = find_user(world, named, caller.token.user)
    if user is None or user.state == "deleted" or user.login() is None:
        raise errors.not_found()
    return user


def _check_not_concluded(world: World, course: Course, section: Section | None, user: User) -> None:
    """Check 13. A person already in the course may still move to a section that is open."""
    now = world.clock.now()
    moving = section is not None and not section_concluded(section, now) and any(row.course is course for row in user.enrollments)
    if course_concluded(course, now) and not moving:
        raise errors.message(CONCLUDED)


def _enroll(world: World, caller: Caller, section: Section, user: User, role: Role, wanted: Parameters) -> Effect:
    associated = _associated(world, caller, user, role, wanted)
    temporary = text(wanted, "temporary_enrollment_source_user_id")
    state = _requested_state(section.course, user, role, text(wanted, "enrollment_state"), temporary)
    source = int(temporary) if temporary and temporary.isdigit() else None
    key = EnrollmentKey(section.id, user.id, role.base_role_type, role.id, associated.id if associated else None, source)
    row = world.find(key)
    if row is None:
        row = world.add_enrollment(section, user, role, state, associated, source)
        _overwrite(row, wanted, new=True)
        created = row
        return Effect(row, None, lambda: world.forget(created))
    before, undo = row.state, remember(row)
    if effective_state(row, world.clock.now()) != "active":
        if row.state == "deleted":
            row.sis_batch_id = None
        row.state = state
    _overwrite(row, wanted, new=False)
    row.updated_at = world.clock.now()
    return Effect(row, before, undo)


def _associated(world: World, caller: Caller, user: User, role: Role, wanted: Parameters) -> User | None:
    """Check 14, what a client can cause of it."""
    named = text(wanted, "associated_user_id")
    if named is None:
        return None
    if role.base_role_type != "ObserverEnrollment":
        raise errors.invalid("associated_user_id", "only ObserverEnrollments may have an associated_user_id")
    other = find_user(world, named, caller.token.user)
    if other is None:
        raise errors.not_found()
    if other is user:
        raise errors.invalid("associated_user_id", "Cannot observe yourself")
    return other


def _requested_state(course: Course, user: User, role: Role, asked: str | None, temporary: str | None) -> str:
    """The state a create asks for. What was asked is taken as it is, apart from the two pending states."""
    kind, published = role.base_role_type, course.state == "available"
    state = asked
    if state is None and (kind == "ObserverEnrollment" or temporary) and user.state == "registered":
        state = "active"
    state = state or ("invited" if published else "creation_pending")
    if kind in STAFF_TYPES and state == "creation_pending":
        return "invited"
    if kind == "StudentEnrollment" and state == "invited" and not published:
        return "creation_pending"
    return state


def _overwrite(row: Enrollment, wanted: Parameters, *, new: bool) -> None:
    """Written on every match, sent or not: this is why a repeated create is not a no-op."""
    start_at, end_at = moment(wanted.get("start_at")), moment(wanted.get("end_at"))
    if not new:
        changed = {name for name, value in (("start_at", start_at), ("end_at", end_at)) if getattr(row, name) != value}
        row.stuck_sis_fields |= changed  # ``lib/sticky_sis_fields.rb``
    row.start_at, row.end_at = start_at, end_at
    row.limit_privileges = boolean(wanted.get("limit_privileges_to_course_section"))
    row.self_enrolled = boolean(wanted.get("self_enrolled"))
    row.sis_pseudonym = None


def remember(row: Enrollment) -> Callable[[], None]:
    """A function that puts every column of `row` back to what it is now."""
    columns = {column.name: getattr(row, column.name) for column in fields(row)}
    columns["history"] = list(row.history)

    def undo() -> None:
        for name, value in columns.items():
            setattr(row, name, value)

    return undo


def remove(world: World, caller: Caller, course: Course, identity: str, task: str | None) -> Effect:
    """``DELETE``: a missing or unknown `task` concludes. No transition is refused; what is already deleted is not found."""
    row = _row(world, course, identity)
    _require_removal(caller, row)
    before, undo = row.state, remember(row)
    now = world.clock.now()
    followers: tuple[tuple[Enrollment, str], ...] = ()
    if task == "delete":
        row.state = "deleted"
        followers = _delete_observers(row)
    elif task in ("deactivate", "inactivate"):
        row.state = "inactive"
    else:
        row.state, row.completed_at = "completed", now
    row.updated_at = now

    def undo_all() -> None:
        undo()
        for follower, state in followers:
            follower.state = state

    return Effect(row, before, undo_all, followers)


def _delete_observers(row: Enrollment) -> tuple[tuple[Enrollment, str], ...]:
    """Enrollments that observe this student here go with the student's."""
    linked = [
        (other, other.state)
        for other in row.section.enrollments
        if other.associated_user is row.user and other.state != "deleted"
    ]
    for other, _ in linked:
        other.state = "deleted"
    return tuple(linked)


def reactivate(world: World, caller: Caller, course: Course, identity: str) -> Effect:
    """``PUT …/reactivate``: only from stored ``inactive``."""
    row = _row(world, course, identity)
    _require_removal(caller, row)
    if row.state != "inactive":
        raise errors.error("enrollment not inactive")
    before, undo = row.state, remember(row)
    row.state, row.updated_at = "active", world.clock.now()
    return Effect(row, before, undo)


def accept(world: World, caller: Caller, course: Course, identity: str) -> Effect | None:
    """``POST …/accept`` by the invited person; None when there is nothing left to accept."""
    row = _own_row(world, caller, course, identity)
    effective = effective_state(row, world.clock.now())
    if effective == "active":
        return None
    _check_invitation(row, effective, answerable=("invited", "rejected"))
    before, undo = row.state, remember(row)
    row.state, row.updated_at = "active", world.clock.now()
    return Effect(row, before, undo)


def reject(world: World, caller: Caller, course: Course, identity: str) -> Effect | None:
    """``POST …/reject`` by the invited person; None when it was rejected before."""
    row = _own_row(world, caller, course, identity)
    if row.state == "rejected":
        return None
    _check_invitation(row, effective_state(row, world.clock.now()), answerable=("invited",))
    before, undo = row.state, remember(row)
    row.state, row.updated_at = "rejected", world.clock.now()
    return Effect(row, before, undo)


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
