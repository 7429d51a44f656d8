"""``docs/benchmarks.md``: a section a scenario, each with the run that it comes from, so that one can be measured again alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"
HEAD = """\
# Benchmarks

What `make bench BENCH="--write"` printed, unedited. Every figure stands beside a baseline of the same run, because absolute
numbers depend on the machine and on who else uses it. What is promised is in the lines that say *met* or *missed*; timings
never decide a test.
"""


def keep(sections: Sequence[str], page: Path = PAGE) -> None:
    """Put the sections (each begins with its ``## `` heading) in the places of their older selves, new ones at the end."""
    old = page.read_text() if page.exists() else HEAD
    known = {_heading(part): part for part in _parts(old)}
    known |= {_heading(section): section.rstrip() for section in sections}
    page.write_text("\n\n".join([HEAD.rstrip(), *known.values()]) + "\n")


def _parts(text: str) -> list[str]:
    return [f"## {part.rstrip()}" for part in text.split("\n## ")[1:]]


def _heading(section: str) -> str:
    return section.partition("\n")[0]
