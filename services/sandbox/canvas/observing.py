"""Enrollments of observers that come and go with those of the students they are linked to.

Upstream: ``app/models/enrollment.rb`` (``create_linked_enrollments``, ``update_linked_enrollments``, ``update_from``) and
``app/models/user_observation_link.rb``. A link is between people: an observer who was enrolled with ``associated_user_id`` alone
follows nobody.
"""

from __future__ import annotations

from services.sandbox.canvas import sticky
from services.sandbox.canvas.effects import Effect
from services.sandbox.canvas.state import Enrollment, EnrollmentKey, User
from services.sandbox.canvas.world import World

_OBSERVER = "ObserverEnrollment"
_ACTIVE_OR_PENDING = ("active", "invited", "creation_pending", "inactive")


def link(world: World, observer: User, student: User) -> None:
    """From now on `observer` is enrolled wherever `student` is; where the student is already, at once."""
    if observer in student.observers:
        return
    student.observers.append(observer)
    effect = Effect(world)
    for row in student.enrollments:
        if row.type == "StudentEnrollment" and row.state in _ACTIVE_OR_PENDING:
            _join(world, row, observer, effect)
    world.journal.record(effect.rows)


def unlink(world: World, observer: User, student: User) -> bool:
    """End a link; false when there is none. Every row in which `observer` observes `student` is deleted, one made by hand too."""
    if observer not in student.observers:
        return False
    student.observers.remove(observer)
    gone = [row for row in observer.enrollments if row.associated_user is student and row.state != "deleted"]
    for row in gone:
        row.state, row.updated_at = "deleted", world.clock.now()
    world.journal.record(gone)
    return True


def follow(world: World, effect: Effect) -> None:
    """After the named row of `effect` was written: let the linked observers' rows follow it."""
    row, before = effect.row, effect.before
    if row.type != "StudentEnrollment":
        return
    for observer in row.user.observers:
        linked = _linked(world, row, observer)
        if before is None:
            _join(world, row, observer, effect)
        elif linked and (linked.state != "deleted" or before == "deleted"):
            # What somebody deleted by hand stays deleted, unless the student comes back from a deletion too.
            _copy(world, effect.change(linked), row)
        elif before == "inactive" != row.state:
            _join(world, row, observer, effect)


def _linked(world: World, row: Enrollment, observer: User) -> Enrollment | None:
    role = world.built_in(_OBSERVER)
    return world.find(EnrollmentKey(row.section.id, observer.id, _OBSERVER, role.id, row.user.id, None))


def _join(world: World, row: Enrollment, observer: User, effect: Effect) -> None:
    linked = _linked(world, row, observer)
    if linked and linked.state != "deleted":
        return
    if observer.state == "deleted" or observer.login() is None:
        return
    if linked:
        _copy(world, effect.change(linked), row)
        return
    made = world.add_enrollment(row.section, observer, world.built_in(_OBSERVER), "active", row.user)
    made.start_at, made.end_at = row.start_at, row.end_at
    sticky.made(world, made)
    made.state = _state_of_observer(row)
    effect.add(made)


def _copy(world: World, linked: Enrollment, row: Enrollment) -> None:
    """State and dates follow; the section limit and the login link do not."""
    sticky.write(linked, start_at=row.start_at, end_at=row.end_at)
    linked.state = _state_of_observer(row)
    linked.updated_at = world.clock.now()


def _state_of_observer(row: Enrollment) -> str:
    return "active" if row.state == "invited" else row.state
