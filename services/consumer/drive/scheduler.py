"""Who is called next: drops before instructors before adds before claims before repair, one call per person at a time, and
within one person and course an add before a removal. Pure and bounded: it holds what the last look at the work table showed.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Ready:
    """A seat whose time has come."""

    seat: str
    person: str
    course: str | None
    """None while the SIS has not said; then no other seat is known to be of the same course."""
    priority: int
    next_at: float
    """Seconds since the epoch; the longest due goes first among equals."""
    removes: bool


class Scheduler:
    """Hands out seats so that no person has two at once. Not thread-safe."""

    def __init__(self) -> None:
        self._plans: dict[str, list[tuple[Ready, int]]] = {}
        """Per person the seats with their effective priority, the next one last."""
        self._queue: list[tuple[int, float, str, str]] = []
        self._busy: set[str] = set()
        self._seats: set[str] = set()
        """Seats handed out and not finished."""
        self._blocked: frozenset[str] = frozenset()

    @property
    def blocked(self) -> frozenset[str]:
        """People whose open intents were inherited; they are left alone until those are settled."""
        return self._blocked

    def block(self, people: Iterable[str]) -> None:
        """Leave these people alone (in addition to those blocked before)."""
        self._blocked |= frozenset(people)

    def unblock(self, people: Iterable[str]) -> None:
        """Their inherited calls are settled."""
        self._blocked -= frozenset(people)

    def clear(self) -> None:
        """Forget what is ready; what was handed out stays handed out."""
        self._plans.clear()
        self._queue.clear()

    def offer(self, rows: Iterable[Ready]) -> None:
        """Replace what is ready by a fresh look at the table."""
        self.clear()
        by_person: defaultdict[str, list[Ready]] = defaultdict(list)
        for row in rows:
            if row.seat not in self._seats and row.person not in self._blocked:
                by_person[row.person].append(row)
        for person, mine in by_person.items():
            self._plans[person] = plan(mine)[::-1]
            if person not in self._busy:
                self._enqueue(person)

    def take(self, count: int) -> list[Ready]:
        """Up to `count` seats of different people, the most urgent first; each has to be given back with `finish`."""
        taken: list[Ready] = []
        while self._queue and len(taken) < count:
            _, _, _, person = heapq.heappop(self._queue)
            row, _ = self._plans[person].pop()
            self._busy.add(person)
            self._seats.add(row.seat)
            taken.append(row)
        return taken

    def finish(self, row: Ready, *, still_ready: bool) -> None:
        """The seat's call has ended. `still_ready`: it will be due again at once, so nothing else of this person may overtake
        it on an old plan; the next look at the table makes a new one."""
        self._seats.discard(row.seat)
        self._busy.discard(row.person)
        if still_ready:
            self._plans.pop(row.person, None)
        elif self._plans.get(row.person):
            self._enqueue(row.person)

    @property
    def runnable(self) -> int:
        """How many people could be taken now."""
        return len(self._queue)

    def _enqueue(self, person: str) -> None:
        row, priority = self._plans[person][-1]
        heapq.heappush(self._queue, (priority, row.next_at, row.seat, person))


def plan(rows: Sequence[Ready]) -> list[tuple[Ready, int]]:
    """One person's seats in the order to be called, each with its effective priority.

    An add lends its place from a removal of the same course that has to wait for it; otherwise a flood of drops would hold the
    add back, and with it the removal that it holds back.
    """
    adds = {row.course for row in rows if not row.removes} - {None}
    lends: dict[str | None, int] = {}
    for row in rows:
        if row.removes and row.course in adds:
            lends[row.course] = min(row.priority, lends.get(row.course, row.priority))

    def effective(row: Ready) -> int:
        return row.priority if row.removes else min(row.priority, lends.get(row.course, row.priority))

    def urgency(row: Ready) -> tuple[int, bool, float, str]:
        return (effective(row), row.removes and row.course in lends, row.next_at, row.seat)

    return [(row, effective(row)) for row in sorted(rows, key=urgency)]
