"""What drills saw, as lines on the terminal and as the table in docs/reliability.md."""

from __future__ import annotations

import enum
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from tests.drills.catalogue import TABLES, Drill, order

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- drills: begin -->", "<!-- drills: end -->"
HEAD = "| row | fault | how it was injected | what was seen | seed, date | verdict |\n|---|---|---|---|---|---|"


class Verdict(enum.Enum):
    """What became of a drill."""

    PASSED = "passed"
    FAILED = "**failed**"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class Result:
    """One drill, done."""

    drill: Drill
    verdict: Verdict
    why: str
    """Why it failed or was not run."""
    seen: dict[str, object]
    seed: int
    day: date
    seconds: float

    def line(self) -> str:
        """For the terminal."""
        return f"{'':<5} {self.verdict.value.strip('*')} after {self.seconds:.0f} s: {self.evidence()[:1200]}"

    def evidence(self) -> str:
        """In words and numbers."""
        numbers = ", ".join(f"{name} {value}" for name, value in self.seen.items())
        return "; ".join(filter(None, [self.why, numbers])) or "-"

    def row(self) -> str:
        """For the table."""
        cells = [self.drill.id, self.drill.fault, self.drill.how, self.evidence(), f"{self.seed}, {self.day}", self.verdict.value]
        return "| " + " | ".join(re.sub(r"\s+", " ", cell).replace("|", "\\|")[:700] for cell in cells) + " |"


def summary(results: Sequence[Result]) -> str:
    """The last lines of a run."""
    counts = Counter(result.verdict for result in results)
    lines = [f"{result.drill.id}: {result.verdict.value.strip('*')}: {result.why}" for result in results if result.why]
    total = ", ".join(f"{counts[verdict]} {verdict.value.strip('*')}" for verdict in Verdict)
    return "\n".join([*lines, f"drills: {total}; {sum(result.seconds for result in results):.0f} s without building"])


def record(results: Sequence[Result]) -> None:
    """Put these rows into the page; rows of other drills stay as they are."""
    text = PAGE.read_text()
    before, rest = text.split(BEGIN)
    table, after = rest.split(END)
    rows = {found[1]: line for line in table.splitlines() if (found := re.match(rf"\| ([{TABLES}]\d+\w*) \|", line))}
    rows |= {result.drill.id: result.row() for result in results}
    lines = [rows[identity] for identity in sorted(rows, key=order)]
    draft = PAGE.with_name(f".{PAGE.name}.{os.getpid()}")
    draft.write_text(f"{before}{BEGIN}\n{HEAD}\n" + "\n".join(lines) + f"\n{END}{after}")
    draft.replace(PAGE)
