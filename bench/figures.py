"""Numbers and tables. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` (0 to 1) of the values do not exceed; nan without values."""
    if not values:
        return math.nan
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def spread(values: Sequence[float], form: str = "{:,.0f}") -> str:
    """Median and, with several rounds, the range: ``12 (11-14)``."""
    middle = form.format(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({form.format(min(values))}-{form.format(max(values))})"


def ratio(ours: float, baseline: float) -> float:
    """`ours` as a multiple of `baseline`."""
    return ours / baseline if baseline else math.nan


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of what we promise, and what this run showed."""

    promise: str
    seen: str
    met: bool


@dataclass(slots=True)
class Result:
    """What one scenario found: a table to read and the goals it decides."""

    name: str
    method: str
    columns: Sequence[str]
    rows: list[Sequence[str]] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def expect(self, promise: str, seen: str, met: bool) -> None:
        """Add a goal."""
        self.goals.append(Goal(promise, seen, met))

    def markdown(self) -> str:
        """The section of the page."""
        table = [" | ".join(self.columns), " | ".join("---" for _ in self.columns), *map(" | ".join, self.rows)]
        goals = [f"- {'met' if goal.met else '**missed**'}: {goal.promise}: {goal.seen}" for goal in self.goals]
        lines = [f"## {self.name}", "", self.method, "", *(f"| {line} |" for line in table), "", *goals, *self._remarks()]
        return "\n".join(lines).rstrip() + "\n"

    def _remarks(self) -> list[str]:
        return ["", *self.notes] if self.notes else []
