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


def simulate(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.simulation", *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONHASHSEED": "0"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_no_promise_is_broken_in_the_first_seeds() -> None:
    ran = simulate("--seeds", "24")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert re.search(r"^violations  0$", ran.stdout, re.MULTILINE)
    assert len(re.findall(r"^ +\d+  ", ran.stdout, re.MULTILINE)) > 20, "hardly any fault bit"


def test_what_once_failed_holds() -> None:
    ran = simulate("--corpus")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_seed_repeats() -> None:
    digests = {re.findall(r"digest (\w+)", simulate("--seed", "7").stdout)[0] for _ in range(2)}
    assert len(digests) == 1


def test_a_planted_bug_is_caught() -> None:
    ran = simulate("--planted", "--plant", "commit before apply", "--workers", "1")
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.timeout(110)
def test_hypothesis_drives_the_same_rules() -> None:
    ran = simulate("--hypothesis", "4")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_bug_of_both_lists_is_accounted_for() -> None:
    origins = [plant.origin for plant in PLANTS]
    assert origins == [*(f"reliability {number}" for number in range(1, 17)), *(f"design {number}" for number in range(1, 16))]
    assert all(plant.changes or plant.not_built for plant in PLANTS)
