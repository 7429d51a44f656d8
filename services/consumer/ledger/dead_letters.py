"""Seats that the LMS refuses for good: by class, with a timer for each class, and never forgotten.

A dead letter is a work row in the state `dead`. Its class is the outcome that made it one, with the outcome's own code
(``refused:unknown_role``). Three things bring it back: a newer decision, a person (a replay), or the timer of its class. What is
tried again is always what the seat should be *by then*.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from services.consumer.nouns import PRIORITY_REPAIR, SeatRef
from services.kit.postgres import Connection


class Timer(NamedTuple):
    """When the dead letters of a class are tried again without a person."""

    seconds: float
    """After each death."""
    times: int | None
    """At most so often for one decision; None: for as long as it takes."""


@dataclass(frozen=True, slots=True)
class Timers:
    """One timer for each class. A class with a code (``refused:validation``) has the timer of its outcome."""

    of_outcome: Mapping[str, Timer]
    otherwise: Timer

    def of(self, dead_class: str) -> Timer:
        """The class's timer."""
        return self.of_outcome.get(dead_class.partition(":")[0], self.otherwise)


class DeadClass(NamedTuple):
    """The dead letters of one class."""

    dead_class: str
    seats: int
    oldest_at: datetime
    newest_at: datetime
    left_to_people: int
    """No timer brings these back."""
    next_at: datetime | None
    """When a timer brings the first of the others back."""


class Place(NamedTuple):
    """Behind which dead letter a page of a class begins."""

    since: datetime
    seat: str


class DeadLetter(NamedTuple):
    """One seat that needs a person, or more time."""

    seat: str
    since: datetime
    unsettled_since: datetime
    tenant: str
    person: str
    section: str
    lms_section: str
    lms_user: str
    role: str
    desired: str
    applied: str
    version: int
    releases: int

    @property
    def place(self) -> Place:
        """Where it is in the order of its class."""
        return Place(self.since, self.seat)


_CLASSES = "select dead_class from work where target = %s and state = 'dead' group by dead_class order by dead_class"
_COUNT = """
select count(*), min(state_since), max(state_since),
       count(*) filter (where releases >= %(times)s), min(state_since) filter (where releases < %(times)s)
  from work where target = %(target)s and state = 'dead' and dead_class = %(class)s
"""
_UNLIMITED = 2**31 - 1

# Both from the class's own part of the index, in its order: oldest first.
_PAGE = """
select seat.seat, work.state_since, work.created_at, seat.tenant, seat.person, seat.section, seat.lms_section, seat.lms_user,
       seat.role, seat.desired, seat.applied, seat.version, work.releases
  from work join seat using (target, seat)
 where work.target = %(target)s and work.state = 'dead' and work.dead_class = %(class)s
   and (work.state_since, work.seat) > (%(since)s::timestamptz, %(seat)s::text)
 order by work.state_since, work.seat limit %(limit)s
"""
# A row that somebody decides, settles or re-opens at this moment is passed over: it is being looked after.
_RELEASE = """
with due as (
  select target, seat from work
   where target = %(target)s and state = 'dead' and dead_class = %(class)s
     and state_since <= clock_timestamp() - %(seconds)s * interval '1 s' and releases < %(times)s
   order by state_since limit %(limit)s
     for update skip locked),
released as (
  update work
     set state = 'pending', priority = %(priority)s, next_at = clock_timestamp(), attempts = 0, reason = null, code = null,
         releases = releases + 1
    from due where (work.target, work.seat) = (due.target, due.seat)
  returning work.target, work.seat, work.releases)
insert into history (tenant, person, section, target, seat, what, version, detail)
select seat.tenant, seat.person, seat.section, seat.target, seat.seat, 'released', seat.version,
       jsonb_build_object('class', %(class)s::text, 'times', released.releases)
  from released join seat using (target, seat)
returning target, seat
"""


def classes(connection: Connection, target: str, timers: Timers) -> list[DeadClass]:
    """Every class that has dead letters now."""
    return [_counted(connection, target, name, timers.of(name)) for name in _names(connection, target)]


def _counted(connection: Connection, target: str, name: str, timer: Timer) -> DeadClass:
    parameters = {"target": target, "class": name, "times": _times(timer)}
    row = connection.execute(_COUNT, parameters).fetchone()
    assert row is not None  # noqa: S101  (an aggregate always gives a row)
    seats, oldest_at, newest_at, left, first = row
    return DeadClass(name, seats, oldest_at, newest_at, left, first and first + timedelta(seconds=timer.seconds))


def page(connection: Connection, target: str, dead_class: str, after: Place | None, limit: int) -> list[DeadLetter]:
    """Up to `limit` dead letters of a class, those that died first first, behind the given one."""
    since, seat = after or ("-infinity", "")
    parameters = {"target": target, "class": dead_class, "since": since, "seat": seat, "limit": limit}
    return [DeadLetter(*row) for row in connection.execute(_PAGE, parameters, prepare=False).fetchall()]


def release_due(connection: Connection, target: str, timers: Timers, limit: int) -> set[SeatRef]:
    """Try again, behind everything else, what its class's timer brings back; at most `limit` seats of each class.

    In a transaction of its own. Nothing is decided here: the driver applies what the seat should be when it gets there.
    """
    released: set[SeatRef] = set()
    for name in _names(connection, target):
        timer = timers.of(name)
        parameters = {
            "target": target,
            "class": name,
            "seconds": timer.seconds,
            "times": _times(timer),
            "limit": limit,
            "priority": PRIORITY_REPAIR,
        }
        released |= {SeatRef(*row) for row in connection.execute(_RELEASE, parameters).fetchall()}
    return released


def _names(connection: Connection, target: str) -> list[str]:
    return [name for (name,) in connection.execute(_CLASSES, [target]).fetchall()]


def _times(timer: Timer) -> int:
    return _UNLIMITED if timer.times is None else timer.times
