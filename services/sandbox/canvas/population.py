"""An account with many people, filled in one call and always in the same way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Self

from pydantic import Field, model_validator

from services.sandbox.canvas.seeding import Strict
from services.sandbox.canvas.state import Enrollment, EnrollmentKey, Pseudonym, Section
from services.sandbox.canvas.world import World


class Population(Strict):
    """How much of what. Row ``n`` seats person ``n % people`` in a section of its own, so no two rows have one key."""

    prefix: str = ""
    """Before every SIS id: ``C1``, ``S1``, ``P1`` and so on."""
    courses: int = Field(default=50, ge=1)
    sections: int = Field(default=100, ge=1)
    """Dealt out to the courses in turn."""
    people: int = Field(default=5_000, ge=1)
    imported: int = Field(default=20_000, ge=0)
    """Enrollments made by a SIS import: ``sis_import_id`` set, linked to the login that the row named."""
    manual: int = Field(default=500, ge=0)
    """Enrollments made by hand or over REST: owned by nobody."""
    import_id: int = 1
    state: str = "active"
    dated_every: int = Field(default=5, ge=0)
    """Every so manieth row has a start and an end of its own, around now; 0: none."""
    limited_every: int = Field(default=7, ge=0)
    """Every so manieth row is limited to its section; 0: none."""

    @model_validator(mode="after")
    def _has_seats(self) -> Self:
        if self.imported + self.manual > self.people * self.sections:
            raise ValueError("more enrollments than people times sections")
        return self


def populate(world: World, wanted: Population) -> dict[str, Any]:
    """Make it; what is there already is filled anew. Returns the SIS ids of the sections and the number of people."""
    sections = _sections(world, wanted)
    logins = [_login(world, f"{wanted.prefix}P{number}", wanted.import_id) for number in range(1, wanted.people + 1)]
    role = world.built_in("StudentEnrollment")
    for number in range(wanted.imported + wanted.manual):
        person, round_ = number % wanted.people, number // wanted.people
        login, section = logins[person], sections[(person + round_) % wanted.sections]
        key = EnrollmentKey(section.id, login.user.id, role.base_role_type, role.id, None, None)
        row = world.find(key) or world.add_enrollment(section, login.user, role, wanted.state)
        _fill(row, number, login, wanted)
    return {"sections": [section.sis_section_id for section in sections], "people": wanted.people}


def _sections(world: World, wanted: Population) -> list[Section]:
    courses = []
    for number in range(1, wanted.courses + 1):
        sis_id = f"{wanted.prefix}C{number}"
        course = world.courses_by_sis.get(sis_id) or world.add_course(sis_id, sis_id)
        course.sis_batch_id = wanted.import_id
        courses.append(course)
    sections = []
    for number in range(1, wanted.sections + 1):
        sis_id = f"{wanted.prefix}S{number}"
        section = world.sections_by_sis.get(sis_id)
        section = section or world.add_section(courses[(number - 1) % wanted.courses], sis_id, sis_id)
        section.sis_batch_id = wanted.import_id
        sections.append(section)
    return sections


def _login(world: World, sis_id: str, import_id: int) -> Pseudonym:
    login = world.logins_by_sis.get(sis_id)
    login = login or world.add_login(world.add_user(f"Person {sis_id}"), f"{sis_id}@example.invalid", sis_id)
    login.sis_batch_id = import_id
    return login


def _fill(row: Enrollment, number: int, login: Pseudonym, wanted: Population) -> None:
    row.history.append((float("-inf"), row.state))
    if number < wanted.imported:
        row.sis_batch_id, row.sis_pseudonym = wanted.import_id, login
    if wanted.dated_every and number % wanted.dated_every == 0:
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        row.start_at, row.end_at = today - timedelta(days=30), today + timedelta(days=100)
    row.limit_privileges = bool(wanted.limited_every) and number % wanted.limited_every == 0
