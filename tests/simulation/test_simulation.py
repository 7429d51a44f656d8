"""A few seeds in every run of the tests; `make simulate` runs as many as there is time for.

In processes of their own: a seed repeats only where texts hash alike, and a simulation replaces names of the standard library.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation.planted.bugs import PLANTS

ROOT = Path(__file__).parents[2]


def started(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.simulation", *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "0"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def said(process: subprocess.Popen[str]) -> str:
    """All of it, once it has ended well."""
    text, _ = process.communicate()
    assert process.returncode == 0, text
    return text


def test_no_promise_is_broken_in_the_first_seeds() -> None:
    text = said(started("--seeds", "24"))
    assert re.search(r"^violations  0$", text, re.MULTILINE)
    assert len(re.findall(r"^ +\d+  ", text, re.MULTILINE)) > 20, "hardly any fault bit"


def test_what_once_failed_holds() -> None:
    said(started("--corpus"))


def test_a_seed_repeats() -> None:
    both = [started("--seed", "7") for _ in range(2)]
    assert len({re.findall(r"digest (\w+)", said(one))[0] for one in both}) == 1


def test_planted_bugs_are_caught() -> None:
    names = ("commit before apply", "404 counted as done", "settle without looking at the current desired")
    text = said(started("--planted", *(word for name in names for word in ("--plant", name)), "--workers", "1"))
    assert "3 of 3 caught" in text


@pytest.mark.timeout(110)
def test_hypothesis_drives_the_same_rules() -> None:
    said(started("--hypothesis", "3"))


def test_every_bug_of_the_lists_is_accounted_for() -> None:
    origins = [plant.origin for plant in PLANTS]
    lists = {"reliability": 16, "design": 15, "rosters": 3, "policy": 3}
    assert origins == [f"{name} {number}" for name, length in lists.items() for number in range(1, length + 1)]
    assert all(plant.changes or plant.not_built for plant in PLANTS)
