"""The verdict, computed from the outside: the SIS's own rosters and post times against what Canvas shows and logged. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from services.sandbox.sis.client import Delivery
from services.sandbox.sis.messages import Message
from services.sandbox.sis.morning import Morning, Transition
from services.sandbox.sis.truth import Seat, section_id


class Placement(NamedTuple):
    """One enrollment row that Canvas holds."""

    seat: Seat
    state: str


class Write(NamedTuple):
    """One change that Canvas applied."""

    seat: Seat
    state: str
    """Afterwards."""
    at: float
    """Seconds since the epoch."""


class Difference(NamedTuple):
    """One person in one section, seen differently by the SIS and by Canvas."""

    seat: Seat
    kind: Literal["missing", "unexpected", "duplicate"]
    """`unexpected`: Canvas shows somebody whom the SIS does not have there; `duplicate`: more than one row of one seat."""
    state: str
    """Canvas's state of the row, or ``absent``."""


def compare(expected: set[Seat], placements: Iterable[Placement]) -> list[Difference]:
    """Person by person; an empty list is a match. Deleted rows are as good as none, any other state counts as being there."""
    present: dict[Seat, list[str]] = defaultdict(list)
    for placement in placements:
        if placement.state != "deleted":
            present[placement.seat].append(placement.state)
    found = [Difference(seat, "missing", "absent") for seat in expected - present.keys()]
    for seat, states in present.items():
        if seat not in expected:
            found.append(Difference(seat, "unexpected", ", ".join(states)))
        elif states[0] != "active":
            found.append(Difference(seat, "missing", ", ".join(states)))
        if len(states) > 1:
            found.append(Difference(seat, "duplicate", ", ".join(states)))
    return sorted(found)


@dataclass(frozen=True, slots=True)
class Latencies:
    """Seconds from the first post of a change to Canvas applying it."""

    values: tuple[float, ...] = ()

    def percentile(self, share: float) -> float | None:
        """The smallest value that at least `share` of all do not exceed; None without values."""
        if not self.values:
            return None
        ordered = sorted(self.values)
        return ordered[max(0, math.ceil(round(share * len(ordered), 6)) - 1)]


@dataclass(frozen=True, slots=True)
class Timing:
    """What became of the moves that the SIS made."""

    adds: Latencies
    drops: Latencies
    waited: Latencies
    """Moves made before Canvas knew the person or the section; measured from the moment that it did."""
    coalesced: int
    """Moves taken back or overtaken before Canvas had to hear of them."""


def measure(morning: Morning, deliveries: Sequence[Delivery], writes: Sequence[Write], started: float) -> Timing:
    """Match each write with the newest move that asked for it; moves without a write were coalesced."""
    sent = {each.message.number: each.first_sent for each in deliveries}
    moves: dict[Seat, list[tuple[float, Transition]]] = defaultdict(list)
    for transition in morning.transitions:
        if transition.message in sent:
            moves[transition.seat].append((sent[transition.message], transition))
    measured: dict[str, list[float]] = {"add": [], "drop": [], "waited": []}
    matched: set[tuple[Seat, int]] = set()
    for write in sorted(writes, key=lambda each: each.at):
        move = _asked_by(moves[write.seat], write)
        if move is None or (write.seat, move[1].message) in matched:
            continue
        matched.add((write.seat, move[1].message))
        appeared = started + morning.appears_at(write.seat)
        if move[0] < appeared:
            measured["waited"].append(max(0.0, write.at - appeared))
        else:
            measured["add" if move[1].active else "drop"].append(write.at - move[0])
    return Timing(
        Latencies(tuple(measured["add"])),
        Latencies(tuple(measured["drop"])),
        Latencies(tuple(measured["waited"])),
        sum(len(each) for each in moves.values()) - len(matched),
    )


def _asked_by(moves: list[tuple[float, Transition]], write: Write) -> tuple[float, Transition] | None:
    """The newest move (in the SIS's order) posted before the write that wanted what it did."""
    active = write.state == "active"
    fitting = [move for move in moves if move[0] <= write.at and move[1].active == active]
    return fitting[-1] if fitting else None


def unexplained(morning: Morning, deliveries: Sequence[Delivery], writes: Sequence[Write]) -> list[Write]:
    """Writes that the SIS never asked for in this order: a dropped student back, or somebody removed for no reason.

    The writes of a seat must be a subsequence of its moves in the SIS's order, each after its move was posted.
    """
    moves, told = _told(morning, deliveries)
    reached: dict[Seat, int] = defaultdict(int)
    found = []
    for write in sorted(writes, key=lambda each: each.at):
        open_moves = enumerate(moves[write.seat][reached[write.seat] :], start=reached[write.seat])
        fitting = (
            position for position, move in open_moves if move.active == (write.state == "active") and told[move] <= write.at
        )
        position = next(fitting, None)
        if position is None:
            found.append(write)
        else:
            reached[write.seat] = position + 1
    return found


def _told(morning: Morning, deliveries: Sequence[Delivery]) -> tuple[dict[Seat, list[Transition]], dict[Transition, float]]:
    """The moves of each seat in the SIS's order, and since when each was told: by its own message, or by one that changes
    something else of its row and has overtaken it."""
    sent = {each.message.number: each.first_sent for each in deliveries}
    moves: dict[Seat, list[Transition]] = defaultdict(list)
    for transition in morning.transitions:
        if transition.message in sent:
            moves[transition.seat].append(transition)
    told = {move: sent[move.message] for theirs in moves.values() for move in theirs}
    of_row: dict[tuple[str, str], list[Transition]] = defaultdict(list)
    for move in told:
        of_row[move.seat.section, move.seat.person].append(move)
    for delivery in deliveries:
        for row in _touched(delivery.message):
            newest = max((move.message for move in of_row[row] if move.message < delivery.message.number), default=None)
            told |= {move: min(told[move], delivery.first_sent) for move in of_row[row] if move.message == newest}
    return moves, told


def _touched(message: Message) -> list[tuple[str, str]]:
    """Section and person of rows that the message repeats with their state, because something else of them has changed."""
    if message.note != "no_op":
        return []
    rows = [row.fields for row in message.rows if row.record == "STDNT_ENRL" and row.action != "K"]
    return [(section_id(fields["CLASS_NBR"]), fields["EMPLID"]) for fields in rows]


@dataclass(frozen=True, slots=True)
class Scene:
    """What came of a feed that drops nearly all of a class. A time is None when it did not happen."""

    dropped: int
    """Seats that the feed would have removed."""
    held: int
    hold_seconds: float | None
    """From the bad message to the hold."""
    cause: str
    """Of the hold, in the words of the consumer."""
    add_seconds: float | None
    """From a student's registration for the same class, meanwhile, to Canvas."""
    lost: int
    """Seats that Canvas did not show while the hold was open, or showed wrongly."""
    over: bool
    """The hold ended by itself when the SIS took its message back, and Canvas shows what the SIS holds."""

    @property
    def went_well(self) -> bool:
        """Whether the guard kept its promise."""
        in_time = self.hold_seconds is not None and self.add_seconds is not None
        return in_time and self.held == self.dropped and self.lost == 0 and self.over


@dataclass(frozen=True, slots=True)
class Verdict:
    """Everything that the demo says at the end."""

    changes_in: int
    """Changed SIS rows delivered, duplicates included."""
    events_out: int
    suppressed: int
    """Changed rows that gave no event: duplicates, older rows, and rows that moved nobody."""
    memberships: int
    """Enrolment and instructor rows among the changes: a chain without memory makes a write for each."""
    calls: Mapping[str, int]
    """Calls that Canvas received, by what they were for."""
    writes: int
    timing: Timing
    answers: Latencies
    """From a post to the publisher's answer: by then the change is in the mirror and in Kafka."""
    expected: int
    """Active seats by the SIS's books."""
    differences: Sequence[Difference]
    unexplained: Sequence[Write] = ()
    refused: int = 0
    """Messages that the publisher did not accept."""
    violations: Sequence[str] = ()
    """Rules of good conduct that Canvas saw broken."""
    scene: Scene | None = None
    """What a bad feed did after the morning; None when it was not played."""

    @property
    def match(self) -> bool:
        """Whether Canvas shows what the SIS holds, and nothing forbidden happened on the way."""
        broken = self.differences or self.unexplained or self.refused or self.violations
        return not broken and (self.scene is None or self.scene.went_well)

    @property
    def saved(self) -> int:
        """Writes that a chain without memory would have made on top."""
        return max(0, self.memberships - self.writes)
