"""A teacher who changes rows of Canvas, and an operator who has rosters compared and takes the target in and out of shadow."""

from __future__ import annotations

import contextlib
import random
import re
import uuid
from collections.abc import Callable
from typing import Any

from services.consumer.ledger import overruling, policies, writing
from services.consumer.ledger.overrides import ADOPTER
from services.consumer.ledger.overruling import Filter
from services.consumer.ledger.policies import Policies
from services.consumer.ledger.writing import ALL_TERMS
from services.consumer.policy.model import default_text
from services.consumer.rosters import runs
from services.consumer.rosters.runs import AlreadyRunning, Scope
from services.sandbox.canvas.interference import Act, interfere
from tests.simulation.lms import SeatName, Sent
from tests.simulation.sis import TENANT, section_name
from tests.simulation.world import CONSUMERS, World

_COMPARISONS = 4
"""After which every adoption has followed: of a seat that has just been confirmed a roster says nothing."""


def _drift(rule_of_seats: str, rule_of_guests: str) -> str:
    """The policy's part about drift."""
    rules = dict.fromkeys(("missing", "wrong_state", "wrong_role"), rule_of_seats)
    rules |= dict.fromkeys(("extra_manual", "extra_sis"), rule_of_guests)
    text = default_text().partition("\ndrift:")[2]
    for kind, rule in rules.items():
        text = re.sub(rf"^  {kind}: \w+", f"  {kind}: {rule}", text, flags=re.MULTILINE)
    return f"\ndrift:{text}"


_ADOPTED = _drift("{adopt_for_days: 1}", "{adopt_for_days: 1}")
_UNDONE = _drift("repair", "{remove_after_days: 0}")


class Rosters:
    """What people do about rosters in one run, and what must hold."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.meddled = False
        """Somebody changed a row that is ours: only a comparison finds it."""
        self._adopting = False
        """The policy has taken, or takes, what teachers do for right."""
        self._met: set[str] = set()
        """People of whom somebody else changed a row."""
        self._comparisons = 0
        """Since everything is well again, to see whether adoptions follow."""

    # --- what people do ---

    def meddle(self, chance: random.Random) -> None:
        """A teacher, or another tool, changes a row; or gives one to a guest, where the policy says what becomes of that."""
        canvas = self._world.lms.canvas.world
        rows = sorted(canvas.enrollments)
        if self._adopting and chance.random() < 0.4:
            section, person = chance.choice(list(self._world.sis.sections)), chance.choice(self._world.sis.people)
            if section_name(section) in canvas.sections_by_sis and person in canvas.logins_by_sis:
                self._interfere({"act": "import", "section": section_name(section), "user": person})
        elif rows:
            act = chance.choice(("delete", "delete", "conclude", "deactivate", "reactivate"))
            self._interfere({"act": act, "id": chance.choice(rows)})

    def _interfere(self, act: dict[str, object]) -> None:
        before = self._world.lms.states()
        interfere(self._world.lms.canvas.world, Act.model_validate(act))
        after = self._world.lms.states()
        if after != before:
            self.meddled = True
            self._met |= {seat.user for seat, state in after.items() if before.get(seat) != state}
            self._world.bites("canvas row changed by somebody else")
        if self._adopting:
            self._promise_no_order()

    def adopt(self, slot: str) -> None:
        """The registrar has what teachers do hold for a day. Of those people only the end is to be checked."""
        self._adopting = self._world.overridden = True
        self._promise_no_order()
        self._apply(slot, _ADOPTED)
        self._world.bites("drift adopted")

    def _promise_no_order(self) -> None:
        for person in sorted(self._met):
            for section in self._world.sis.sections:
                self._world.sis.promise_no_order_in(section, person)

    def _apply(self, slot: str, drift: str) -> None:
        """The registrar applies the policy with this part about drift."""

        def work(connection: Any) -> None:
            (body,) = connection.execute("select body from policy where tenant = %s and active", [TENANT]).fetchone()
            policies.store(connection, TENANT, body.partition("\ndrift:")[0] + drift, "registrar")

        self._perform(slot, work)

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
        if self._adopting and not self._have_followed(slot):
            return False
        if self.meddled and not self._agrees():
            self.compare(slot)
            return False
        return not self._is_compared_after_a_recovery()

    def _have_followed(self, slot: str) -> bool:
        """Whether all adoptions have followed what Canvas has, and were taken back then."""
        rows = self._world.databases.rows
        if rows("select from ledger.roster_adoption"):
            return False
        if self._comparisons < _COMPARISONS:
            self._comparisons += 1
            self.compare(slot)
            return False
        if self._comparisons == _COMPARISONS:
            self._comparisons += 1
            self._every_adoption_follows()
            self._apply(slot, _UNDONE)
        if rows("select from ledger.override where ended_at is null and actor = %s", ADOPTER):
            self._perform(slot, self._withdraw_all)
            return False
        return True

    def _withdraw_all(self, connection: Any) -> None:
        """The registrar has the student system decide again."""
        for one in overruling.find(connection, TENANT, Filter(state="in_force"), 2**62, 100):
            overruling.withdraw(connection, Policies("canvas"), TENANT, one.number, "registrar", "the end")
            self._world.bites("adoption withdrawn")

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
        return all(
            truth.get(seat, "deleted") == found.get(seat, "absent") or self.is_nobodys(seat, found.get(seat, "absent"))
            for seat in there
        )

    def is_nobodys(self, seat: SeatName, state: str) -> bool:
        """Whether it is a guest's whom no comparison looks for: without access, or in a cancelled class without a seat."""
        rows = self._world.databases.rows
        return (
            self._adopting
            and not rows("select from ledger.seat where (lms_section, lms_user, role) = (%s, %s, %s)", *seat)
            and (state != "active" or not rows("select from ledger.roster_section where lms_section = %s", seat.section))
        )

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

    def on_write(self, seat: SeatName, state: str) -> None:
        """A guest whom a teacher has sent away is not given back, unless a person or a loss had everything looked at anew."""
        rows = self._world.databases.rows
        if (
            self._adopting
            and state == "active"
            and seat not in self._world.sis.history
            and not rows("select from ledger.override where actor <> %s", ADOPTER)
            and not rows("select from ledger.writing")
            and not rows("select from ledger.replay")
            and not rows("select from ledger.recovery where reason <> 'first start'")
        ):
            self._world.violated("adoption", f"{seat} was given, whom the student system never gave")

    def after_step(self) -> None:
        """Only what somebody else did is adopted."""
        if self._adopting and self._world.hurt_ledger_at == -1:
            for (person,) in self._world.databases.rows("select person from ledger.override where actor = %s", ADOPTER):
                if person not in self._met:
                    self._world.violated("adoption", f"nobody changed a row of {person}, and one was adopted")

    def _every_adoption_follows(self) -> None:
        """What was adopted is as Canvas shows it, or listed because that cannot be believed."""
        found = self._world.lms.states()
        for section, person, role, wanted in self._world.databases.rows(
            """select seat.lms_section, seat.lms_user, seat.role, seat.desired
                 from ledger.override
                 join ledger.entitlement on entitlement.kind = 'override' and entitlement.key = override.override::text
                 join ledger.seat using (target, seat)
                where override.ended_at is null and override.actor = %s
                  and not exists (select from ledger.roster_finding as finding where finding.seat = seat.seat
                                                                                and finding.kind = 'missing')""",
            ADOPTER,
        ):
            is_now = found.get(SeatName(section, person, role), "deleted")
            if is_now != wanted:
                self._world.violated("adoption", f"{section} {person} {role} was adopted as {wanted} and is {is_now}")
