"""What a create does to an enrollment: the checks in their order, then the effect; no HTTP in here.

Upstream: ``app/controllers/enrollments_api_controller.rb`` for the checks, ``app/models/course.rb#enroll_user`` for the effect,
``app/models/enrollment.rb`` for the validation.
"""

from __future__ import annotations

from datetime import datetime

from services.sandbox.canvas import errors, mails, observing, sticky
from services.sandbox.canvas.addressing import find_section, find_user
from services.sandbox.canvas.dates import course_concluded, effective_state, section_concluded
from services.sandbox.canvas.effects import Effect
from services.sandbox.canvas.parameters import Parameters, boolean, moment, text
from services.sandbox.canvas.state import STAFF_TYPES, Course, Enrollment, EnrollmentKey, Role, Section, User
from services.sandbox.canvas.tokens import Caller, permission_to_add
from services.sandbox.canvas.world import World

NO_PARAMETERS = "No parameters given"
NO_USER = "Can't create an enrollment without a user. Include enrollment[user_id] to create an enrollment"
NO_SIS_ID = "Can't create an enrollment without a sis_user_id or integration_id when root_account is provided"
BAD_TYPE = "Invalid type"
BAD_ROLE = "Invalid role"
INACTIVE_ROLE = "Cannot create an enrollment with this role because it is inactive."
TYPE_MISMATCH = "The specified type must match the base type for the role"
CONCLUDED = "Can't add an enrollment to a concluded course."


def create(world: World, caller: Caller, course: Course, section: Section | None, parameters: Parameters) -> Effect:
    """`section` is the one in the path, if any; it wins over the parameter. Raises `Refusal` in upstream's order of checks."""
    wanted = parameters.get("enrollment")
    wanted = wanted if isinstance(wanted, dict) else {}
    role = _checked_role(world, wanted, boolean(parameters.get("root_account")))
    caller.require(permission_to_add(role.base_role_type))
    kept_out = ["StudentEnrollment", *([] if world.assumptions.blueprint_takes_observers else ["ObserverEnrollment"])]
    if course.template or (course.blueprint and role.base_role_type in kept_out):
        raise errors.unauthorized(caller.unauthorized_status)
    section = _checked_section(world, course, section, wanted)
    user = _checked_user(world, caller, wanted)
    _check_not_concluded(world, course, section, user)
    return enroll(world, caller, section or world.default_section(course), user, role, wanted)


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


def enroll(world: World, caller: Caller, section: Section, user: User, role: Role, wanted: Parameters) -> Effect:
    """The effect, once everything is checked (``app/models/course.rb#enroll_user``)."""
    associated = _associated(world, section, user, role, wanted)
    temporary = text(wanted, "temporary_enrollment_source_user_id")
    state = _requested_state(section.course, user, role, text(wanted, "enrollment_state"), temporary)
    source = int(temporary) if temporary and temporary.isdigit() else None
    key = EnrollmentKey(section.id, user.id, role.base_role_type, role.id, associated.id if associated else None, source)
    row = world.find(key)
    effect = Effect(world)
    if row is None:
        row = effect.add(world.add_enrollment(section, user, role, state, associated, source))
        row.start_at, row.end_at = _dates(wanted)
        sticky.made(world, row)
    else:
        effect.change(row)
        _set_state(world, row, state)
        start_at, end_at = _dates(wanted)
        sticky.write(row, start_at=start_at, end_at=end_at)
        row.updated_at = world.clock.now()
    # Written on every match, sent or not: this is why a repeated create is not a no-op.
    row.limit_privileges = boolean(wanted.get("limit_privileges_to_course_section"))
    row.self_enrolled = boolean(wanted.get("self_enrolled"))
    row.sis_pseudonym = None
    observing.follow(world, effect)
    mails.after_create(world, row, effect.before, notify=boolean(wanted.get("notify")))
    if section.course.state == "created" and role.base_role_type in STAFF_TYPES:
        sticky.write(section.course, state="claimed")
    return effect


def _set_state(world: World, row: Enrollment, state: str) -> None:
    """Only what is effectively active keeps its state; a revival strips the SIS's ownership."""
    if effective_state(row, world.clock.now()) == "active":
        return
    if row.state == "deleted":
        row.sis_batch_id = None
    if not world.assumptions.revival_keeps_completed_at:
        row.completed_at = None
    row.state = state


def _dates(wanted: Parameters) -> tuple[datetime | None, datetime | None]:
    return moment(wanted.get("start_at")), moment(wanted.get("end_at"))


def _associated(world: World, section: Section, user: User, role: Role, wanted: Parameters) -> User | None:
    """Check 14, what a client can cause of it. Whom somebody observes is named by Canvas's own id; what is none names nobody, and
    that only the database notices."""
    if user.fake_student:
        raise errors.invalid("user_id", "cannot add a student view student in a regular role")
    named = text(wanted, "associated_user_id")
    if named is None:
        return None
    if role.base_role_type != "ObserverEnrollment":
        raise errors.invalid("associated_user_id", "only ObserverEnrollments may have an associated_user_id")
    other = world.users.get(int(named)) if named.isascii() and named.isdigit() else None
    if other is None:
        raise errors.crash()
    if other is user:
        raise errors.invalid("associated_user_id", "Cannot observe yourself")
    here = (row for row in other.enrollments if row.course is section.course and row.state != "deleted")
    if any(row.associated_user is user for row in here):
        raise errors.invalid("associated_user_id", "Cannot observe observer observing self")
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
