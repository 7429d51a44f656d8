"""In what state the seats are, how many and since when: for gauges every few seconds, and for people by term.

A seat without work is settled; of the others the work row says what is next. Beside that, a seat may be *suspect* (a call of
unknown outcome may still land, whatever its work is) and have an *open intent* (a call is under way, or was when its driver
died).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple, get_args

from schemas import keys
from services.consumer.ledger.writing import is_live
from services.consumer.nouns import MissingKind, WorkState
from services.kit.postgres import Connection

WORK_STATES: tuple[WorkState, ...] = get_args(WorkState)
MISSING_KINDS: tuple[MissingKind, ...] = get_args(MissingKind)
LATELY = timedelta(minutes=5)
_BY_ITSELF = frozenset({"pending", "retrying", "guarded", "suspect"})
"""Work that goes on without a person, and without an object that is not there yet."""


class Group(NamedTuple):
    """Unsettled seats that are in one state for one cause."""

    state: WorkState
    waits_for: MissingKind | None
    """Of waiting seats: what kind of object the LMS lacks."""
    dead_class: str | None
    """Of dead letters: the refusing outcome and its code."""
    seats: int
    state_seconds: float
    """Since the longest one entered the state."""
    unsettled_seconds: float
    """Since the longest one has not been as wanted."""


class Marked(NamedTuple):
    """Seats with something about them beside the state of their work."""

    seats: int
    oldest_seconds: float


NOBODY = Marked(0, 0.0)


@dataclass(frozen=True, slots=True)
class Census:
    """Every seat of a target that needs attention."""

    groups: Sequence[Group]
    """Without the seats of terms in shadow, for which nothing is done."""
    shadow: Marked
    """Those: not as they should be, in terms that are not written to."""
    suspect: Marked
    intent_open: Marked

    @property
    def unsettled(self) -> int:
        """Seats with work."""
        return sum(group.seats for group in self.groups) + self.shadow.seats

    def of_state(self, state: WorkState) -> list[Group]:
        """The groups of one state."""
        return [group for group in self.groups if group.state == state]


# One pass over the unsettled seats, at most some hundred thousand narrow rows; never over the settled ones.
_GROUPS = f"""
select state, waits_kind, dead_class, count(*), extract(epoch from clock_timestamp() - min(state_since))::float8,
       extract(epoch from clock_timestamp() - min(created_at))::float8, live
  from (select *, {is_live("work.target", "work.term")} as live from work where target = %s) as work
 group by live, state, waits_kind, dead_class order by state, waits_kind, dead_class
"""  # noqa: S608  (a constant of ours)
_SUSPECT = """
select count(*), coalesce(extract(epoch from clock_timestamp() - min(suspect_since)), 0)::float8
  from seat where target = %s and suspect_since is not null
"""
_INTENT_OPEN = """
select count(*), coalesce(extract(epoch from clock_timestamp() - min(opened_at)), 0)::float8
  from intent where target = %s and closed_at is null
"""


def census(connection: Connection, target: str) -> Census:
    """The states as they are now; costs a tenth of a second at 500,000 unsettled seats, whatever the number of settled ones."""
    rows = connection.execute(_GROUPS.encode(), [target]).fetchall()
    shadow = [Group(*group) for *group, live in rows if not live]
    return Census(
        groups=[Group(*group) for *group, live in rows if live],
        shadow=Marked(sum(one.seats for one in shadow), max((one.unsettled_seconds for one in shadow), default=0.0)),
        suspect=_marked(connection.execute(_SUSPECT, [target]).fetchall()),
        intent_open=_marked(connection.execute(_INTENT_OPEN, [target]).fetchall()),
    )


def count_seats(connection: Connection, target: str) -> int:
    """All seats of a target, settled or not. Reads an index from end to end: not for every few seconds."""
    row = connection.execute("select count(*) from seat where target = %s", [target]).fetchone()
    assert row is not None  # noqa: S101  (an aggregate always gives a row)
    return int(row[0])


def _marked(rows: Iterable[tuple[Any, ...]]) -> Marked:
    return next((Marked(*row) for row in rows), NOBODY)


# For people: with the settled seats, and narrowed to what they ask about. Reads all seats of the target, seconds at millions.
_SUMMARY = f"""
select coalesce(work.state, 'settled') as state, work.waits_kind, work.dead_class, count(*),
       min(coalesce(work.state_since, seat.applied_at)), min(work.next_at) filter (where work.state <> 'dead'),
       count(*) filter (where seat.suspect_until is not null), min(seat.suspect_since),
       count(*) filter (where intent.opened_at is not null), min(intent.opened_at),
       count(*) filter (where seat.applied_at > clock_timestamp() - make_interval(secs => {LATELY.total_seconds()}))
  from seat
  left join work using (target, seat)
  left join (select target, seat, min(opened_at) as opened_at from intent where closed_at is null group by target, seat) as intent
      using (target, seat)
 where seat.target = %(target)s and starts_with(seat.section, %(prefix)s)
 group by 1, 2, 3
"""  # noqa: S608  (a number of ours)


class Summary(NamedTuple):
    """One line of `summary`."""

    state: str
    waits_for: str | None
    dead_class: str | None
    seats: int
    oldest_at: datetime | None
    """When the longest one entered the state; of settled seats, when the longest confirmed one was confirmed."""
    next_at: datetime | None
    """When the first of them is tried again by itself; not of dead letters, see `dead_letters`."""
    suspect: int
    suspect_oldest_at: datetime | None
    intent_open: int
    intent_oldest_at: datetime | None
    confirmed_lately: int
    """Within the last `LATELY`."""


class Backlog(NamedTuple):
    """What the driver has before it that needs nobody else."""

    seats: int
    per_minute: float
    """What was confirmed lately."""

    @property
    def eta_seconds(self) -> float | None:
        """Until all of it is done at this pace; None while nothing is being done."""
        if not self.seats:
            return 0.0
        return 60 * self.seats / self.per_minute if self.per_minute else None


def backlog(lines: Sequence[Summary]) -> Backlog:
    """Of a summary."""
    seats = sum(line.seats for line in lines if line.state in _BY_ITSELF)
    return Backlog(seats, sum(line.confirmed_lately for line in lines) / (LATELY.total_seconds() / 60))


def summary(connection: Connection, target: str, institution: str | None, term: str | None) -> list[Summary]:
    """All seats of a target by state, or those of an institution or of one of its terms."""
    parts = [part for part in (institution, term if institution else None) if part is not None]
    prefix = keys.join(*parts) + "/" if parts else ""
    rows = connection.execute(_SUMMARY, {"target": target, "prefix": prefix}, prepare=False).fetchall()
    order = {state: place for place, state in enumerate(("settled", *WORK_STATES))}
    return sorted((Summary(*row) for row in rows), key=lambda one: (order[one.state], one.waits_for or "", one.dead_class or ""))
