"""The Moodle-shaped LMS as a `Lab`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from services.consumer.nouns import MissingKind, Seat
from services.consumer.targets.port import ObservedState, Target
from services.sandbox.canvas.server import AppServer
from tests.contract.consumer.targets.lab import Features, Mishap
from tests.contract.consumer.targets.moodle_shaped.app import MoodleShapedApp
from tests.contract.consumer.targets.moodle_shaped.client import MoodleShapedClient
from tests.contract.consumer.targets.moodle_shaped.lms import ACTIVE, ROLES, MoodleShapedLms, Place
from tests.contract.consumer.targets.moodle_shaped.target import Canary, MoodleShapedTarget
from tests.serving import serving

CANARY = Canary("canary", "CANARY")


class MoodleShapedLab:
    """`Lab` over the fake."""

    features = Features(states=frozenset({"active", "inactive", "deleted"}), removed="absent")
    call_timeout_seconds = 1.5

    def __init__(self, app: MoodleShapedApp, client: MoodleShapedClient, target: MoodleShapedTarget) -> None:
        self.app = app
        self.client = client
        self.lms = app.lms
        self._target = target
        self.lms.add_user(CANARY.user)
        self.lms.add_course(CANARY.course)

    @property
    def target(self) -> Target:
        return self._target

    def seat(self, person: str = "p1", section: str = "S-1", role: str = "student") -> Seat:
        if person not in self.lms.users.values():
            self.lms.add_user(person)
        if section not in self.lms.courses.values():
            self.lms.add_course(section)
        return _seat(person, section, role)

    def seat_in_another_role(self, person: str = "p1", section: str = "S-1") -> Seat:
        return self.seat(person, section, role="teacher")

    def seat_without(self, *missing: MissingKind) -> Seat:
        there = self.seat()
        person = "nobody" if "user" in missing else there.lms_user
        return _seat(person, "NOWHERE" if "section" in missing else there.lms_section)

    def place(self, seat: Seat) -> Place:
        """Where the seat is, in the LMS's own ids."""
        users = {idnumber: user for user, idnumber in self.lms.users.items()}
        courses = {idnumber: course for course, idnumber in self.lms.courses.items()}
        return Place(users[seat.lms_user], courses[seat.lms_section])

    def put(self, seat: Seat) -> None:
        self.lms.enrolments[self.place(seat), "manual"] = ACTIVE
        self.lms.roles.setdefault(self.place(seat), set()).add(ROLES[seat.role])

    def state(self, seat: Seat) -> ObservedState:
        statuses = self.lms.statuses(self.place(seat))
        if not statuses or ROLES[seat.role] not in self.lms.roles.get(self.place(seat), set()):
            return "absent"
        return "active" if ACTIVE in statuses else "inactive"

    def rows(self, seat: Seat) -> int:
        return len(self.lms.statuses(self.place(seat)))

    def changes(self) -> int:
        return self.lms.changes

    def befall(self, mishap: Mishap, *, changes: int = 1) -> None:
        self.app.mishaps.extend([mishap] * changes)

    def forbid_changes(self) -> None:
        self.lms.may_change = False

    def hang(self) -> None:
        self.app.hanging = True

    def violations(self) -> list[str]:
        return ["two changes of one person at once"] * self.app.overlaps


def _seat(person: str, section: str, role: str = "student") -> Seat:
    return Seat("moodle", "main", person, f"U/1/{section}", None, section, person, role, role)


@contextlib.asynccontextmanager
async def moodle_shaped_lab(folder: Path | None = None) -> AsyncIterator[MoodleShapedLab]:
    """An LMS of its own, and a target for it; neither needs a `folder`."""
    app = MoodleShapedApp(MoodleShapedLms(), "token")
    with serving(AppServer(app, "moodle-shaped-lms")) as server:
        client = MoodleShapedClient(server.url, app.token)
        target = MoodleShapedTarget(client, ROLES, CANARY, MoodleShapedLab.call_timeout_seconds)
        yield MoodleShapedLab(app, client, target)
        await target.close()
