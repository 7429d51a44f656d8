"""Runs that once failed, kept as their lists of actions: a rule that is added tomorrow does not change what they do."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tests.simulation.rules import Action


@dataclass(frozen=True)
class Case:
    """One of them."""

    name: str
    why: str
    """What was wrong when it failed."""
    seed: int
    actions: list[Action]


def cases() -> list[Case]:
    """All files of the folder ``past``."""
    found = []
    for file in sorted((Path(__file__).parent / "past").glob("*.json")):
        data = json.loads(file.read_text())
        actions = [(name, int(number)) for name, _, number in (word.partition(":") for word in data["actions"].split())]
        found.append(Case(file.stem, data["why"], data["seed"], actions))
    return found
