"""Who is called next: suspicions before drops before instructors before adds before claims before repair, the terms of one
priority in turn, one call per person at a time, and within one person and course an add before a removal.

No backlog holds up all the others for good: every fifth call goes to a less urgent priority, if one has anything to do.

Pure and bounded: it holds what the last look at the work table showed.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

LESS_URGENT_EVERY = 5
"""So many calls apart is one that goes to another priority than the most urgent one."""


class Line(NamedTuple):
    """What takes turns with the other terms of its priority."""

    priority: int
    term: str


@dataclass(frozen=True, slots=True)
class Ready:
    """A seat whose time has come."""

    seat: str
    person: str
    course: str | None
    """None while the SIS has not said; then no other seat is known to be of the same course."""
    priority: int
    term: str
    next_at: float
    """Seconds since the epoch; the longest due goes first among equals."""
    removes: bool


class Scheduler:
    """Hands out seats so that no person has two at once. Not thread-safe."""

    def __init__(self) -> None:
        self._plans: dict[str, list[tuple[Ready, int]]] = {}
        """Per person the seats with their effective priority, the next one last."""
        self._queues: dict[int, dict[str, list[tuple[float, str, str]]]] = {}
        """Per priority and term a heap; none of them is empty."""
        self._runnable = 0
        self._cut: set[Line] = set()
        """Lines with a queue here, and more in the table."""
        self._ran_out = False
        self._busy: set[str] = set()
        self._seats: set[str] = set()
        """Seats handed out and not finished."""
        self._blocked: frozenset[str] = frozenset()
        self._turns = 0
        self._last_turns: dict[Line, int] = {}
        self._urgent_in_a_row = 0

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
        self._queues.clear()
        self._runnable = 0
        self._cut.clear()
        self._ran_out = False

    def offer(self, rows: Iterable[Ready], cut: Collection[Line] = ()) -> None:
        """Replace what is ready by a fresh look at the table, which has more to show of the lines in `cut`."""
        self.clear()
        self._plan(self._by_person(rows))
        self._cut = {line for line in cut if line.term in self._queues.get(line.priority, {})}
        present = {Line(priority, term) for priority, terms in self._queues.items() for term in terms}
        self._last_turns = {line: turn for line, turn in self._last_turns.items() if line in present}

    def add(self, rows: Iterable[Ready]) -> bool:
        """What is ready of some people who had nothing to do, beside what the last look showed. False: only another look can tell
        whose turn it is, because the table has more than is here, or one of them had something to do already."""
        if self._cut:
            return False
        by_person = self._by_person(rows)
        if any(self._plans.get(person) for person in by_person):
            return False
        self._plan(by_person)
        return True

    def take(self, count: int) -> list[Ready]:
        """Up to `count` seats of different people, those whose turn it is first; each has to be given back with `finish`."""
        taken: list[Ready] = []
        while self._queues and len(taken) < count:
            person = self._dequeue(self._next_line())
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
        return self._runnable

    @property
    def wants_a_look(self) -> bool:
        """A line has used up what the last look showed of it, and the table has more."""
        return self._ran_out

    def _by_person(self, rows: Iterable[Ready]) -> Mapping[str, list[Ready]]:
        """Those that may be handed out."""
        by_person: defaultdict[str, list[Ready]] = defaultdict(list)
        for row in rows:
            if row.seat not in self._seats and row.person not in self._blocked:
                by_person[row.person].append(row)
        return by_person

    def _plan(self, by_person: Mapping[str, Sequence[Ready]]) -> None:
        for person, mine in by_person.items():
            self._plans[person] = plan(mine)[::-1]
            if person not in self._busy:
                self._enqueue(person)

    def _next_line(self) -> Line:
        """The priority whose turn it is, and of its terms the one that has waited longest for one."""
        priority = min(self._queues)
        others = self._queues.keys() - {priority}
        if others and self._urgent_in_a_row >= LESS_URGENT_EVERY - 1:
            self._urgent_in_a_row = 0
            return min((self._longest_without(other) for other in others), key=self._last_turn)
        self._urgent_in_a_row += 1
        return self._longest_without(priority)

    def _longest_without(self, priority: int) -> Line:
        return min((Line(priority, term) for term in self._queues[priority]), key=self._last_turn)

    def _last_turn(self, line: Line) -> tuple[int, Line]:
        return self._last_turns.get(line, -1), line

    def _enqueue(self, person: str) -> None:
        row, priority = self._plans[person][-1]
        queue = self._queues.setdefault(priority, {}).setdefault(row.term, [])
        heapq.heappush(queue, (row.next_at, row.seat, person))
        self._runnable += 1

    def _dequeue(self, line: Line) -> str:
        terms = self._queues[line.priority]
        _, _, person = heapq.heappop(terms[line.term])
        self._turns += 1
        self._last_turns[line] = self._turns
        self._runnable -= 1
        if not terms[line.term]:
            del terms[line.term]
            self._ran_out |= line in self._cut
        if not terms:
            del self._queues[line.priority]
        return person


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
