"""The newest changes of enrollments, whoever made them: REST, the control side, or what followed from either."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from services.sandbox.canvas.state import Enrollment, Section

_KEPT = 500


class Change(NamedTuple):
    """A row that is in another stored state than before."""

    number: int
    """Gapless from 1, in the order of the changes."""
    at: float
    """Seconds since the epoch."""
    row: Enrollment
    section: Section
    before: str | None
    """None: the row was not there."""
    after: str


class Journal:
    """Bounded: it keeps the newest changes, and of every section when it changed last."""

    def __init__(self) -> None:
        self.number = 0
        """Of the newest change."""
        self.newest: deque[Change] = deque(maxlen=_KEPT)
        """The newest is the last."""
        self.last_of_section: dict[int, int] = {}
        """Id of a section → number of its last change."""

    def record(self, rows: Iterable[Enrollment]) -> None:
        """Write the state that rows have now into their histories, for reads that lag; keep those that had another."""
        for row in rows:
            before = row.history[-1][1] if row.history else None
            row.history.append((time.monotonic(), row.state))
            if row.state == before:
                continue
            self.number += 1
            self.newest.append(Change(self.number, time.time(), row, row.section, before, row.state))
            self.last_of_section[row.section.id] = self.number
