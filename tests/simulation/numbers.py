"""A registrar who gives numbers of classes to other ones, and the rule that nobody gets in by one before a person has agreed."""

from __future__ import annotations

import random

from services.consumer.nouns import seat_key
from tests.simulation.database import EPOCH_SECONDS
from tests.simulation.lms import Sent
from tests.simulation.world import World


class Numbers:
    """What became of numbers in one run."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.reused = False
        self._seen: dict[str, float] = {}
        """Sections that wait for a person, and when that was first seen, by the ledger's clock."""

    def reuse(self, chance: random.Random) -> None:
        """A class goes, and its number is another one's."""
        sis = self._world.sis
        section = chance.choice(list(sis.sections))
        course = chance.choice(sorted({"C1", "C2", "C3"} - {sis.sections[section]}))
        gone, new = sis.reuse_number(section, course)
        for changes in [[*gone, *new]] if chance.random() < 0.5 else chance.sample([gone, new], 2):
            sis.send(changes)
        self.reused = True
        self._world.bites("number re-used")

    def look(self) -> None:
        """After every step: which sections wait, and since when at the latest."""
        found = self._world.databases.rows("select section from ledger.section_course where reused_as is not null")
        now = EPOCH_SECONDS + self._world.scheduler.now + self._world.databases.wall_offset["ledger"]
        self._seen = {section: self._seen.get(section, now) for (section,) in found}

    def forget(self) -> None:
        """The ledger lost what it knew."""
        self._seen.clear()

    def on_send(self, sent: Sent) -> None:
        """Who is let into a section that waits was about to be when it began to wait."""
        if not self._seen or sent.seat is None:
            return
        found = self._world.databases.rows(
            """select seat.section, extract(epoch from intent.opened_at)::float8
                 from ledger.intent join ledger.seat using (target, seat)
                 join ledger.section_course as number on (number.tenant, number.section) = (seat.tenant, seat.section)
                where intent.seat = %s and intent.closed_at is null and intent.call = 'write' and intent.wanted = 'active'
                  and number.reused_as is not null""",
            seat_key(sent.seat.section, sent.seat.user, sent.seat.role),
        )
        for section, opened_at in found:
            if opened_at > self._seen.get(section, opened_at):
                self._world.violated("reuse", f"somebody is let into {section}, whose number was given to another class")
