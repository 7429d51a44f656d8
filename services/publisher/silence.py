"""Whether a source has been silent for longer than it should be: time counts in its active hours only. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo

_NOTHING = timedelta()
_ENOUGH_DAYS = 40
"""Looking further back would change no answer: no cadence is longer."""
LONGEST = timedelta(days=_ENOUGH_DAYS // 4)


@dataclass(frozen=True, slots=True)
class Cadence:
    """How often a channel delivers, and when; in the site's time zone."""

    every: timedelta
    """Longest usual pause, `LONGEST` at most."""
    days: frozenset[int] = frozenset(range(7))
    """Monday is 0."""
    begins: time = time(0)
    ends: time | None = None
    """None: midnight."""


def silent_for(last: datetime, now: datetime, cadence: Cadence, zone: tzinfo) -> timedelta:
    """Active time that has gone by since the last message."""
    first = max(last.astimezone(zone).date(), now.astimezone(zone).date() - timedelta(days=_ENOUGH_DAYS))
    days = (now.astimezone(zone).date() - first).days
    return sum((_overlap(first + timedelta(days=day), last, now, cadence, zone) for day in range(days + 1)), _NOTHING)


def _overlap(day: date, last: datetime, now: datetime, cadence: Cadence, zone: tzinfo) -> timedelta:
    if day.weekday() not in cadence.days:
        return _NOTHING
    begins = datetime.combine(day, cadence.begins, zone).astimezone(UTC)
    next_midnight = datetime.combine(day + timedelta(days=1), time(0), zone)
    ends = (datetime.combine(day, cadence.ends, zone) if cadence.ends else next_midnight).astimezone(UTC)
    return max(_NOTHING, min(ends, now) - max(begins, last))


def is_silent(last: datetime, now: datetime, cadence: Cadence, zone: tzinfo) -> bool:
    """Whether somebody should look."""
    return silent_for(last, now, cadence, zone) > cadence.every
