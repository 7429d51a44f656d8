"""What the tests of provisioning share: events, ledger, driver and Canvas together."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from schemas import codec
from schemas.events import AnyEvent, CourseEvent, EnrollmentEvent, PersonEvent, SectionEvent, TermEvent
from schemas.keys import EntityKind
from services.consumer.drive.driver import Driver
from services.consumer.ledger import policies, storing
from services.consumer.ledger.entities import Arrival
from services.consumer.ledger.policies import Policies
from services.consumer.ledger.storing import Batch
from services.consumer.metrics import Metrics
from services.consumer.targets.canvas.client import CanvasClient
from services.consumer.targets.canvas.objects import CanvasObjects
from services.consumer.targets.canvas.target import CanvasTarget
from services.kit.credentials import SecretFile
from services.kit.postgres import identity
from services.sandbox.canvas.server import CanvasServer
from tests.integration.consumer.drive.drive_support import TARGET, SeatLedger, Timing, Told, eventually
from tests.policies import making

TIMING = replace(Timing(), late_bound_seconds=1.2)
ALL = ("terms", "courses", "sections", "people")
SECTION, COURSE, TERM, PERSON = "PSUNV-1259-1001", "PSUNV-MUS201", "PSUNV-1259", "9000001"
_MODELS: dict[EntityKind, type[AnyEvent]] = {
    "enrollment": EnrollmentEvent,
    "person": PersonEvent,
    "section": SectionEvent,
    "course": CourseEvent,
    "term": TermEvent,
}


class Campus:
    """A ledger that takes events as the intake does, and the Canvas that it drives."""

    def __init__(self, ledger: SeatLedger, canvas: CanvasServer, folder: Path) -> None:
        self.ledger = ledger
        self.canvas = canvas
        self.control = canvas.control
        self.policies = Policies(TARGET, swap_settle_seconds=0)
        self._folder = folder
        self._version = 0

    def policy(self, *kinds: str, **rules: str) -> None:
        """From now on this is made."""
        policies.ensure(self.ledger.connection, "main", making(*kinds, **rules))
        policies.store(self.ledger.connection, "main", making(*kinds, **rules), "registrar")

    def tell(self, kind: EntityKind, **fields: Any) -> None:
        """An event of the student system, taken in a transaction of its own."""
        self.tell_all({"kind": kind, **fields})

    def tell_all(self, *events: dict[str, Any]) -> None:
        """Several, in one batch of the log."""
        connection = self.ledger.connection
        arrivals = [self._arrival(**event) for event in events]
        storing.store(connection, Batch(arrivals), self.policies, identity(connection))

    def _arrival(self, kind: EntityKind, **fields: Any) -> Arrival:
        self._version += 1
        common = {"tenant": "main", "version": self._version, "content_hash": "0" * 32, "accepted_at": "2026-09-01T08:00:00Z"}
        event = _MODELS[kind].model_validate(common | fields)
        event = event.model_copy(update={"content_hash": codec.content_hash(codec.state(event))})
        return Arrival.of(event, codec.encode(event), f"enrollstream.{kind}.v1", 0, self._version)

    def term(self, **more: Any) -> None:
        self.tell("term", **{"institution": "PSUNV", "term": "1259", "status": "active"} | more)

    def course(self, **more: Any) -> None:
        of = {"institution": "PSUNV", "course": "MUS201", "status": "active", "subject": "MUS", "catalog_number": "201"}
        self.tell("course", **of | more)

    def section(self, section: str = "1001", **more: Any) -> None:
        of = {"institution": "PSUNV", "term": "1259", "section": section, "status": "active", "course": "MUS201"}
        self.tell("section", **of | more)

    def person(self, person: str = PERSON, name: str | None = "Clara Wieck", status: str = "active", **more: Any) -> None:
        self.tell("person", person=person, status=status, display_name=name, **more)

    def enroll(self, person: str = PERSON, section: str = "1001", status: str = "enrolled", term: str = "1259") -> None:
        of = {"institution": "PSUNV", "term": term, "section": section, "person": person}
        self.tell("enrollment", **of, role_family="learner", status=status, role="student")

    def school(self) -> None:
        """Everything is told but who is enrolled."""
        self.term()
        self.course()
        self.section()
        self.person()

    @contextlib.asynccontextmanager
    async def driving(self, objects: bool = True) -> AsyncIterator[None]:
        token = self._folder / "token"
        token.write_text(self.canvas.token)
        client = CanvasClient(self.canvas.url, SecretFile(token))
        target = CanvasTarget(client, "self", TIMING.call_timeout_seconds)
        made = CanvasObjects(client, "self", TIMING.call_timeout_seconds) if objects else None
        driver = Driver(TIMING, self.ledger.url, TARGET, target, self.policies, Metrics(), Told(), objects=made)
        running = asyncio.create_task(driver.run())
        try:
            yield
        finally:
            driver.stop()
            await asyncio.wait_for(running, 20)
            await target.close()

    async def by_hand(self, path: str, form: dict[str, str]) -> None:
        """What an administrator changes in Canvas."""
        await self._by_hand("PUT", path, form)

    async def delete_by_hand(self, path: str) -> None:
        """What an administrator deletes there."""
        await self._by_hand("DELETE", path, {})

    async def _by_hand(self, method: str, path: str, form: dict[str, str]) -> None:
        headers = {"authorization": f"Bearer {self.canvas.token}"}
        async with httpx.AsyncClient(base_url=f"{self.canvas.url}/api/v1/", headers=headers, trust_env=False) as client:
            (await client.request(method, path, data=form)).raise_for_status()

    async def settled(self, within: float = 20) -> None:
        """Every seat and every object is as wanted."""
        unsettled = "select (select count(*) from work) + (select count(*) from lms_object where state <> 'settled')"
        await eventually(lambda: self.ledger.one(unsettled) == 0, within)

    async def state(self, sis_id: str, state: str, reason: str | None = None, within: float = 10) -> None:
        """Until the object is in this state."""
        found = "select state, reason from lms_object where object = %s"
        await eventually(lambda: self.ledger.one(found, sis_id) == (state, reason), within)

    def row(self, kind: str, sis_id: str) -> dict[str, Any]:
        return next(row for row in self.control.dump(kind) if sis_id in row.values())

    def user(self, sis_id: str = PERSON) -> dict[str, Any]:
        login = self.row("logins", sis_id)
        return next(row for row in self.control.dump("users") if row["id"] == login["user"])

    def address(self) -> str:
        """The default one of the person."""
        return str(self.user()["channels"][0][0])

    def roster(self, section: str = SECTION) -> dict[str, str]:
        return {row["user"]: row["state"] for row in self.control.roster(section)}

    def calls(self) -> Counter[str]:
        return Counter({one["endpoint"]: one["count"] for one in self.control.calls()["calls"]})
