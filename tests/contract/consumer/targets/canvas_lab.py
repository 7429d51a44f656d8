"""The sandbox's Canvas as a `Lab`."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from services.consumer.nouns import MissingKind, Seat
from services.consumer.targets.canvas.client import CanvasClient
from services.consumer.targets.canvas.target import CanvasTarget
from services.consumer.targets.port import ObservedState, Target
from services.kit.credentials import SecretFile
from services.sandbox.canvas.server import CanvasServer
from tests.contract.consumer.targets.lab import Features, Mishap
from tests.serving import serving

_STATES: dict[str, ObservedState] = {"active": "active", "inactive": "inactive", "completed": "completed", "deleted": "deleted"}
_MISHAPS: dict[Mishap, tuple[str, dict[str, object]]] = {
    "lost": ("reset", {"apply": False}),
    "done_but_lost": ("reset", {"apply": True}),
    "hangs": ("hang", {}),
    "ignored": ("unchanged", {}),
    "page": ("html", {"apply": False}),
    "done_but_page": ("html", {"apply": True}),
    "fails": ("status", {"status": 503}),
}


class CanvasLab:
    """`Lab` over the sandbox."""

    features = Features(states=frozenset({"active", "inactive", "completed", "deleted"}), removed="deleted")
    call_timeout_seconds = 1.5

    def __init__(self, server: CanvasServer, target: CanvasTarget, token_file: Path) -> None:
        self.server = server
        self.control = server.control
        self.token_file = token_file
        self._target = target

    @property
    def target(self) -> Target:
        return self._target

    def seat(self, person: str = "p1", section: str = "S-1", role: str = "StudentEnrollment", **more: str) -> Seat:
        self.control.sections(section, course="C-1")
        self.control.users(person)
        return self._seat(person, section, role, **more)

    @staticmethod
    def _seat(person: str, section: str, role: str = "StudentEnrollment", base: str = "StudentEnrollment", **more: str) -> Seat:
        base = role if role.endswith("Enrollment") else base
        return Seat("canvas", "main", person, f"U/1/{section}", None, section, person, role, base, **more)

    def seat_in_another_role(self, person: str = "p1", section: str = "S-1") -> Seat:
        return self.seat(person, section, role="TeacherEnrollment")

    def seat_without(self, *missing: MissingKind) -> Seat:
        there = self.seat()
        person = "nobody" if "user" in missing else there.lms_user
        return self._seat(person, "NOWHERE" if "section" in missing else there.lms_section)

    def put(self, seat: Seat, **more: object) -> None:
        row = {"section": seat.lms_section, "user": seat.lms_user, "role": seat.role}
        self.control.objects(enrollments=[row | more])

    def _roster(self, seat: Seat) -> list[dict[str, Any]]:
        return [row for row in self.control.roster(seat.lms_section) if row["user"] == seat.lms_user]

    def state(self, seat: Seat) -> ObservedState:
        found = [row["state"] for row in self._roster(seat) if row["role"] == seat.role]
        return _STATES.get(found[0], "other") if found else "absent"

    def rows(self, seat: Seat) -> int:
        return len(self._roster(seat))

    def changes(self) -> int:
        return len([write for write in self.control.writes() if write["applied"]])

    def attempts(self) -> int:
        return len(self.control.writes())

    def befall(self, mishap: Mishap, *, changes: int = 1) -> None:
        kind, limits = _MISHAPS[mishap]
        self.control.fault(kind, methods=["POST", "PUT", "DELETE"], count=changes, **limits)

    def forbid_changes(self) -> None:
        self.control.token("enrollstream", permissions=["read_roster", "read_sis"])

    def hang(self) -> None:
        self.control.fault("hang")

    def violations(self) -> list[str]:
        return [str(violation) for violation in self.control.violations()]


@contextlib.asynccontextmanager
async def canvas_lab(folder: Path) -> AsyncIterator[CanvasLab]:
    """A Canvas of its own, and a target for it whose token lies in `folder`."""
    token_file = folder / "token"
    with serving(CanvasServer()) as server:
        token_file.write_text(server.token + "\n")
        client = CanvasClient(server.url, SecretFile(token_file))
        target = CanvasTarget(client, "self", CanvasLab.call_timeout_seconds)
        yield CanvasLab(server, target, token_file)
        await target.close()
