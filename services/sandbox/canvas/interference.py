"""What others do to enrollments behind the sync's back: instructors in the user interface, other tools, other SIS imports.

Everybody here uses the rules of the model, not those of the API: no right is asked for, nothing enters the write log.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from services.sandbox.canvas import leaving, observing, sticky
from services.sandbox.canvas.effects import Effect
from services.sandbox.canvas.seeding import Missing, Strict
from services.sandbox.canvas.state import Enrollment, EnrollmentKey, Pseudonym, Role, Section
from services.sandbox.canvas.world import World

_STATES = {"delete": "deleted", "conclude": "completed", "deactivate": "inactive", "reactivate": "active"}


class Act(Strict):
    """Which enrollment (by its id, or by section, user and role), and what becomes of it."""

    act: Literal["delete", "conclude", "deactivate", "reactivate", "role", "dates", "import"]
    id: int | None = None
    section: str | None = None
    user: str | None = None
    role: str = "StudentEnrollment"
    to_role: str | None = None
    """Of ``role``: the new role. The old row is deleted and another one made, as "Edit course roles" does."""
    start_at: datetime | None = None
    """Of ``dates`` and ``import``. A person's dates become sticky; an import writes what is not sticky, missing ones as NULL."""
    end_at: datetime | None = None
    import_id: int = 1
    status: Literal["active", "completed", "inactive", "deleted"] = "active"
    """Of ``import``: the row's status."""
    limit_privileges: bool | None = None
    """Of ``import``: only written when the cell is filled."""


def interfere(world: World, act: Act) -> list[int]:
    """Do it; the ids of the rows that were touched, the new one of a role change first."""
    if act.act == "import":
        return _finished(world, _imported(world, act))
    row = _row(world, act)
    if act.act == "role":
        return _finished(world, _changed_role(world, row, act), leaving.move(world, row, "deleted"))
    if act.act == "dates":
        return _finished(world, _dated(world, row, act))
    return _finished(world, leaving.move(world, row, _STATES[act.act]))


def _finished(world: World, *effects: Effect) -> list[int]:
    touched = [row for effect in effects for row in effect.rows]
    world.journal.record(touched)
    return [row.id for row in touched]


def _row(world: World, act: Act) -> Enrollment:
    found = world.enrollments.get(act.id) if act.id else world.find(_key(*_named(world, act)))
    if found is None:
        raise Missing("enrollment", f"{act.id or ''} {act.section or ''} {act.user or ''} {act.role}".strip())
    return found


def _named(world: World, act: Act) -> tuple[Section, Pseudonym, Role]:
    section = world.sections_by_sis.get(act.section or "")
    login = world.logins_by_sis.get(act.user or "")
    if section is None:
        raise Missing("section", act.section or "")
    if login is None:
        raise Missing("user", act.user or "")
    return section, login, _role(world, act.role)


def _role(world: World, name: str) -> Role:
    role = world.role_named(name)
    if role is None:
        raise Missing("role", name)
    return role


def _key(section: Section, login: Pseudonym, role: Role) -> EnrollmentKey:
    return EnrollmentKey(section.id, login.user.id, role.base_role_type, role.id, None, None)


def _changed_role(world: World, row: Enrollment, act: Act) -> Effect:
    """``app/controllers/courses_controller.rb#enroll_users`` after the old enrollment is gone."""
    role = _role(world, act.to_role or act.role)
    effect = Effect(world)
    other = world.find(row.key._replace(type=role.base_role_type, role=role.id))
    if other is None:
        effect.add(world.add_enrollment(row.section, row.user, role, row.state))
        return effect
    effect.change(other)
    if other.state == "deleted":
        other.sis_batch_id = None
    other.state, other.updated_at = row.state, world.clock.now()
    observing.follow(world, effect)
    return effect


def _dated(world: World, row: Enrollment, act: Act) -> Effect:
    effect = Effect(world)
    effect.change(row)
    sticky.write(row, start_at=act.start_at, end_at=act.end_at)
    row.updated_at = world.clock.now()
    return effect


def _row_of_file(row: Enrollment, act: Act, login: Pseudonym) -> dict[str, Any]:
    """The columns that a row of the file writes: no sticky dates, the limit only when its cell is filled."""
    written: dict[str, Any] = {"state": act.status, "sis_pseudonym": login}
    written |= {name: getattr(act, name) for name in ("start_at", "end_at") if name not in row.stuck_sis_fields}
    return written if act.limit_privileges is None else written | {"limit_privileges": act.limit_privileges}


def _imported(world: World, act: Act) -> Effect:
    """One row of somebody's enrollments.csv (``lib/sis/enrollment_importer.rb``): it claims the row, whoever made it."""
    section, login, role = _named(world, act)
    row = world.find(_key(section, login, role))
    effect = Effect(world)
    now = world.clock.now()
    if row is None:
        row = effect.add(world.add_enrollment(section, login.user, role, act.status))
    else:
        effect.change(row)
    written = _row_of_file(row, act, login)
    if any(getattr(row, name) != value for name, value in written.items()):
        row.updated_at = now
        row.completed_at = now if act.status == "completed" else row.completed_at
    for name, value in written.items():
        setattr(row, name, value)
    row.sis_batch_id = act.import_id  # a row that says nothing new is stamped all the same
    observing.follow(world, effect)
    return effect
