"""A registrar who limits removals, an operator who approves holds, and the rule that no class loses more without a person."""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from services.consumer.guard import holds
from services.consumer.ledger import policies
from services.consumer.ledger.policies import Policies
from services.consumer.nouns import seat_key
from services.consumer.policy.model import default_text
from tests.simulation.lms import Sent
from tests.simulation.sis import TENANT
from tests.simulation.world import CONSUMERS, World

LIMIT = 2
"""Members that a class may lose without a person. A run is shorter than the guard's 15 minutes."""
_POLICY = f"""{default_text().partition(chr(10) + "guard:")[0]}
guard:
  wait_seconds: 1
  section: {{quarter_hour: {{most: {LIMIT}}}}}
  course: {{}}
  term: {{}}
  tenant: {{}}
  cancelled_section: null
  cancelled_term: null

drift:{default_text().partition(chr(10) + "drift:")[2]}"""
_Decision = tuple[str, int]
"""A seat's key and the number of its decision."""


class Guard:
    """What people do about removals in one run, and what the checker remembers of it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._limited = False
        self._allowed: set[_Decision] = set()
        """What a person approved, or what was let through before there was a limit."""
        self._seen: dict[int, tuple[int, set[_Decision]]] = {}
        """Holds as the operator last saw them: the snapshot and what was in it."""
        self._gone: dict[str, set[str]] = defaultdict(set)
        """Per section the seats whose removal was sent without a person."""

    # --- what people do ---

    def limit(self, slot: str) -> None:
        """The registrar applies a policy with a limit."""

        def work(connection: Any) -> None:
            policies.store(connection, TENANT, _POLICY, "registrar")
            self._allowed.update(connection.execute("select seat, cleared from work where cleared is not null").fetchall())
            if not self._limited:
                self._limited = True
                self._world.bites("removals limited")

        self._perform(slot, work)

    def look(self, slot: str) -> None:
        """The operator looks at the holds."""
        self._perform(slot, self._look)

    def approve(self, slot: str) -> None:
        """The operator approves what was seen, whenever that was."""
        self._perform(slot, self._approve)

    def approve_everything(self, *, numbers: bool) -> None:
        """Look and approve at once, in whichever consumer runs. Holds are where removals are limited, or `numbers` re-used."""
        slot = next((slot for slot in CONSUMERS if self._world.running(slot) and slot in self._world.programs), None)
        if slot is not None and (self._limited or numbers):

            def work(connection: Any) -> None:
                self._look(connection)
                self._approve(connection)

            self._perform(slot, work)

    def _look(self, connection: Any) -> None:
        for hold in holds.find(connection, "canvas", undecided=True, after=None, limit=50):
            members = connection.execute(
                """select seat, decision from work join seat using (target, seat)
                    where hold = %s and state = 'held' and hold_number <= %s""",
                [hold.hold, hold.snapshot],
            ).fetchall()
            if members:
                self._seen[hold.hold] = (hold.snapshot, set(members))

    def _approve(self, connection: Any) -> None:
        for hold, (snapshot, members) in self._seen.items():
            with contextlib.suppress(holds.Over, holds.UnknownSnapshot):
                done = holds.approve(connection, Policies("canvas"), hold, snapshot, "operator")
                if isinstance(done, holds.Decided) and done.approved:
                    self._allowed |= members
                    self._world.bites("hold approved")
        self._seen.clear()

    def _perform(self, slot: str, work: Callable[[Any], None]) -> None:
        self._world.perform(slot, "operator", "guard", work)

    # --- what must hold ---

    def on_send(self, sent: Sent) -> None:
        """R10: of a class that takes place, no more members are removed than the limit allows and a person approved."""
        world, seat = self._world, sent.seat
        if not self._limited or seat is None or (seat.section, None) in world.sis.tangled:
            return  # a cancelled class is let through
        if world.hurt_ledger_at > -1 or world.lms.states().get(seat) != "active":
            return  # a ledger that lost history has forgotten what it let through
        key = seat_key(seat.section, seat.user, seat.role)
        found = world.databases.rows(
            "select wanted, decision from ledger.intent where seat = %s and closed_at is null and call = 'write'", key
        )
        unasked = [decision for wanted, decision in found if wanted != "active" and (key, decision) not in self._allowed]
        if unasked and self._was_held(key, unasked[0]):
            world.violated("R10", f"a removal of {seat} was held, and sent without a person")
        gone = self._gone[seat.section]
        gone.update(key for _ in unasked)
        if len(gone) > LIMIT:
            world.violated("R10", f"{len(gone)} members of {seat.section} were removed without a person")

    def _was_held(self, key: str, decision: int) -> bool:
        return bool(
            self._world.databases.rows(
                """select from ledger.history
                    where what = 'held' and seat = %s and (detail ->> 'decision')::bigint = %s limit 1""",
                key,
                decision,
            )
        )
