"""The states of a target's seats as metrics. Labels are states, kinds and reason classes, never an id."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TypeVar

from services.consumer.guard import holds
from services.consumer.guard.holds import Standing
from services.consumer.ledger import dead_letters, states
from services.consumer.ledger.dead_letters import DeadClass, Timers
from services.consumer.ledger.members import Waiting
from services.consumer.ledger.policies import Policies
from services.consumer.ledger.states import MISSING_KINDS, WORK_STATES, Census, Group, Marked
from services.consumer.metrics import Metrics
from services.consumer.provision import report
from services.consumer.rosters import findings
from services.consumer.rosters.comparing import KINDS
from services.consumer.rosters.findings import Count, Expiring
from services.kit.postgres import Connection

T = TypeVar("T")
_MOST_CLASSES = 50
"""Classes of dead letters that get a label of their own; a target's list of codes is shorter."""


class _Sparingly:
    """Lets a measurement take no more than one percent of the time, however large the ledger is."""

    def __init__(self) -> None:
        self._next_at = 0.0

    def __call__(self, measure: Callable[[], T]) -> T | None:
        """What `measure` returns; None when it is too early for it."""
        began_at = time.monotonic()
        if began_at < self._next_at:
            return None
        try:
            return measure()
        finally:
            ended_at = time.monotonic()
            self._next_at = ended_at + 100 * (ended_at - began_at)


class SeatGauges:
    """Sets every label each time, so that what has become empty reads 0."""

    def __init__(self, metrics: Metrics, policies: Policies, timers: Timers) -> None:
        self._metrics = metrics
        self._policies = policies
        self._target = policies.target
        self._timers = timers
        self._all_seats = 0
        self._count_all, self._count_unsettled, self._count_objects = _Sparingly(), _Sparingly(), _Sparingly()
        self._classes: set[str] = set()

    def observe(self, connection: Connection) -> None:
        """Look at the ledger, unless that is too early: what costs a second is done every two minutes."""
        self._count_all(lambda: self._all(connection))
        self._count_unsettled(lambda: self._unsettled(connection))
        self._count_objects(lambda: self._objects(report.counts(connection, self._target)))

    def _all(self, connection: Connection) -> None:
        self._all_seats = states.count_seats(connection, self._target)

    def _unsettled(self, connection: Connection) -> None:
        census = states.census(connection, self._target)
        self._states(census)
        self._waiting(census)
        self._guard(holds.standing(connection, self._target))
        self._drift(findings.counts(connection, self._target))
        self._expiring(findings.expiring(connection, self._policies))
        self._dead(dead_letters.classes(connection, self._target, self._timers))

    def sections(self, waiting: Waiting) -> None:
        """Large sections whose members are still to be decided."""
        self._metrics.sections_to_decide.set(waiting.sections)
        self._metrics.sections_to_decide_age.set(max(0.0, waiting.oldest_seconds))

    def parked(self, records: int, oldest_seconds: float) -> None:
        """What waits for a newer reader."""
        self._metrics.parked.set(records)
        self._metrics.parked_oldest.set(max(0.0, oldest_seconds))

    def overrides(self, in_force: int) -> None:
        """Registrars' exceptions."""
        self._metrics.overrides.set(in_force)

    def _states(self, census: Census) -> None:
        for state in WORK_STATES:
            groups = census.of_state(state)
            if state != "suspect":
                self._state(state, _marked(groups))
            oldest = max((group.unsettled_seconds for group in groups), default=0.0)
            self._metrics.oldest.labels(self._target, state).set(max(0.0, oldest))
        self._state("shadow", census.shadow)
        self._state("suspect", census.suspect)
        self._state("intent_open", census.intent_open)
        settled = self._all_seats - census.unsettled
        self._metrics.seats.labels(self._target, "settled").set(max(0, settled))

    def _state(self, state: str, seats: Marked) -> None:
        self._metrics.seats.labels(self._target, state).set(seats.seats)
        self._metrics.seats_oldest.labels(self._target, state).set(max(0.0, seats.oldest_seconds))

    def _waiting(self, census: Census) -> None:
        for kind in MISSING_KINDS:
            seats = _marked([group for group in census.of_state("waiting") if group.waits_for == kind])
            self._metrics.waiting.labels(self._target, kind).set(seats.seats)
            self._metrics.waiting_oldest.labels(self._target, kind).set(max(0.0, seats.oldest_seconds))

    def _guard(self, guard: Standing) -> None:
        self._metrics.holds.labels(self._target).set(guard.holds)
        self._metrics.holds_oldest.labels(self._target).set(max(0.0, guard.oldest_seconds))
        self._metrics.removals_paused.labels(self._target).set(guard.paused)

    def _drift(self, counts: Iterable[Count]) -> None:
        found: Counter[tuple[str, str]] = Counter()
        for count in counts:
            found[count.kind, "live" if count.live else "shadow"] += count.findings
        for kind in KINDS:
            for mode in ("live", "shadow"):
                self._metrics.drift.labels(self._target, kind, mode).set(found[kind, mode])

    def _expiring(self, soon: Expiring) -> None:
        for within, count in soon._asdict().items():
            self._metrics.drift_expiring.labels(self._target, within).set(count)

    def _objects(self, counts: Iterable[report.Count]) -> None:
        found: Counter[tuple[str, str]] = Counter()
        oldest: dict[tuple[str, str], float] = {}
        for count in counts:
            place = count.kind, count.state if count.live else "shadow"
            found[place] += count.objects
            oldest[place] = max(oldest.get(place, 0.0), count.oldest_seconds)
        for kind in report.KINDS:
            for state in (*report.STATES, "shadow"):
                self._metrics.objects.labels(self._target, kind, state).set(found[kind, state])
                if state != "settled":
                    self._metrics.objects_oldest.labels(self._target, kind, state).set(oldest.get((kind, state), 0.0))

    def _dead(self, classes: list[DeadClass]) -> None:
        found = {one.dead_class: one.seats for one in classes[:_MOST_CLASSES]}
        for name in self._classes | found.keys():
            self._metrics.dead_seats.labels(self._target, name).set(found.get(name, 0))
        self._classes |= found.keys()
        self._metrics.dead_left.labels(self._target).set(sum(one.left_to_people for one in classes))


def _marked(groups: list[Group]) -> Marked:
    return Marked(sum(group.seats for group in groups), max((group.state_seconds for group in groups), default=0.0))
