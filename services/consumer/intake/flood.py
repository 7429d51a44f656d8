"""How many records of a partition may go to the dead letters before the line stops instead. Pure.

One bad record stops nothing but itself. A reader that finds *most* records bad is more likely to be wrong than they are: a bad
release would otherwise empty a whole topic into the dead letters within minutes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from services.consumer.log.records import Place, Record


@dataclass(frozen=True, slots=True)
class Limit:
    """More than `most` of the last `window` records of one partition, and more than `share` of them: then it is a flood."""

    most: int
    window: int
    share: float


@dataclass(frozen=True, slots=True)
class Flood:
    """A partition in which too much cannot be used."""

    place: Place
    offset: int
    """Of the record that would be one too many."""
    bad: int
    """So many of the last `seen` records."""
    seen: int


@dataclass
class FloodGauge:
    """Remembers, for each partition, which of its last records were set aside."""

    limit: Limit
    _recent: dict[Place, deque[bool]] = field(default_factory=dict)
    _allowed: dict[Place, int] = field(default_factory=dict)

    def flood(self, records: Sequence[Record], bad: Collection[tuple[Place, int]]) -> Flood | None:
        """Whether setting these `bad` ones aside would be too much; nothing is remembered yet."""
        for place in dict.fromkeys(record.place for record in records):
            recent = deque(self._recent.get(place, ()), self.limit.window)
            for record in records:
                if record.place != place or record.offset < self._allowed.get(place, 0):
                    continue
                recent.append((place, record.offset) in bad)
                count = sum(recent) if recent[-1] else 0
                if count > self.limit.most and count > self.limit.share * len(recent):
                    return Flood(place, record.offset, count, len(recent))
        return None

    def note(self, records: Sequence[Record], bad: Collection[tuple[Place, int]]) -> None:
        """These are stored, the `bad` ones among them as dead letters."""
        for record in records:
            if record.offset >= self._allowed.get(record.place, 0):
                recent = self._recent.setdefault(record.place, deque(maxlen=self.limit.window))
                recent.append((record.place, record.offset) in bad)

    def begin_anew(self, place: Place, allowed_before: int = 0) -> None:
        """Forget what was. Below `allowed_before` everything may be set aside: a person has said so."""
        self._recent.pop(place, None)
        self._allowed[place] = allowed_before

    def forget(self, places: Collection[Place]) -> None:
        """These partitions are not ours any more."""
        for place in places:
            self._recent.pop(place, None)
            self._allowed.pop(place, None)
