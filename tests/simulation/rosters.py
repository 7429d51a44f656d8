"""A teacher who changes rows of Canvas, and an operator who has rosters compared and takes the target in and out of shadow."""

from __future__ import annotations

import contextlib
import random
import uuid
from collections.abc import Callable
from typing import Any

from services.consumer.ledger import writing
from services.consumer.ledger.policies import Policies
from services.consumer.ledger.writing import ALL_TERMS
from services.consumer.rosters import runs
from services.consumer.rosters.runs import AlreadyRunning, Scope
from services.sandbox.canvas.interference import Act, interfere
from tests.simulation.lms import SeatName, Sent
from tests.simulation.world import CONSUMERS, World


class Rosters:
    """What people do about rosters in one run, and what must hold."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.meddled = False
        """Somebody changed a row that is ours: only a comparison finds it."""

    # --- what people do ---

    def meddle(self, chance: random.Random) -> None:
        """A teacher, or another tool, changes a row."""
        rows = sorted(self._world.lms.canvas.world.enrollments)
        if rows:
            act = chance.choice(("delete", "delete", "conclude", "deactivate", "reactivate"))
            before = self._world.lms.states()
            interfere(self._world.lms.canvas.world, Act.model_validate({"act": act, "id": chance.choice(rows)}))
            if self._world.lms.states() != before:
                self.meddled = True
                self._world.bites("canvas row changed by somebody else")

    def compare(self, slot: str) -> None:
        """The operator has everything compared, and repaired."""

        def work(connection: Any) -> None:
            with contextlib.suppress(AlreadyRunning):
                runs.start(connection, "canvas", uuid.uuid4(), Scope(), Policies("canvas"), "operator", repair=True)
                self._world.bites("rosters compared")

        self._perform(slot, work)

    def into_shadow(self, slot: str) -> None:
        """The operator stops all writing."""

        def work(connection: Any) -> None:
            writing.shadow(connection, "canvas", ALL_TERMS, "a doubt", "operator")
            self._world.bites("into shadow")

        self._perform(slot, work)

    def go_live(self, slot: str) -> None:
        """The operator has writing begin again."""

        def work(connection: Any) -> None:
            writing.go_live(connection, "canvas", ALL_TERMS, "all is well", "operator", compared=None)

        self._perform(slot, work)

    def mend(self) -> bool:
        """What an operator does when everything is well again: go live, compare. True when nothing of it is left to do."""
        slot = next((slot for slot in CONSUMERS if self._world.running(slot) and slot in self._world.programs), None)
        rows = self._world.databases.rows
        if slot is None:
            return False
        if rows("select from ledger.writing where not live"):
            self.go_live(slot)
            return False
        if rows("select from ledger.roster_run where state = 'running'"):
            return False
        if self.meddled and not self._agrees():
            self.compare(slot)
            return False
        return not self._is_compared_after_a_recovery()

    def _is_compared_after_a_recovery(self) -> bool:
        """Whether the comparison is still to come that shows which overrides a restored ledger has forgotten."""
        return self._world.overridden and bool(
            self._world.databases.rows(
                """select from ledger.recovery
                    where ended_at is not null
                      and not exists (select from ledger.roster_run where state = 'done' and created_at > ended_at)"""
            )
        )

    def is_left_to_people(self, seat: SeatName) -> bool:
        """Whether a seat that nobody gives is listed, or is one that the policy says not to look for."""
        return seat.role != "StudentEnrollment" or bool(
            self._world.databases.rows(
                """select from ledger.roster_finding
                    where kind in ('extra_manual', 'extra_sis') and (lms_section, lms_user, role) = (%s, %s, %s)""",
                *seat,
            )
        )

    def _agrees(self) -> bool:
        truth, found = self._world.sis.truth(), self._world.lms.states()
        there = {seat for seat in truth.keys() | found.keys() if truth.get(seat, "deleted") != "deleted" or seat in found}
        return all(truth.get(seat, "deleted") == found.get(seat, "absent") for seat in there)

    def _perform(self, slot: str, work: Callable[[Any], None]) -> None:
        self._world.perform(slot, "operator", "rosters", work)

    # --- what must hold ---

    def on_send(self, sent: Sent) -> None:
        """In shadow nothing is sent but what was on its way before."""
        world = self._world
        if not world.databases.rows("select from ledger.writing where not live"):
            return
        if sent.seat is None or world.hurt_ledger_at > -1:
            return
        opened = world.databases.rows(
            """select from ledger.intent, ledger.writing
                where intent.closed_at is null and intent.call = 'write' and intent.opened_at < writing.since
                  and intent.person = %s""",
            sent.seat.user,
        )
        if not opened:
            world.violated("shadow", f"a change of {sent.seat} was sent although everything is in shadow")
