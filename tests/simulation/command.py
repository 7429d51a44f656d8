"""``python -m tests.simulation``: run seeds, replay one, plant bugs. ``make simulate`` calls it."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import SpawnContext
from multiprocessing.util import Finalize
from typing import Any

from tests.simulation import corpus
from tests.simulation.planted import NotPlanted, Statement
from tests.simulation.planted.bugs import BY_NAME, PLANTS
from tests.simulation.rules import Action, choose
from tests.simulation.runner import Result, Simulator

SEEDS_PER_PLANT = 300
_SEED_SECONDS = 180
"""Real seconds: a run that takes longer hangs, which is a defect as well."""
_SHOWN = 10


def main(words: Sequence[str] | None = None) -> int:
    """0 when every promise held and every bug was caught."""
    arguments = _parser().parse_args(words)
    if os.environ.get("PYTHONHASHSEED") != "0":  # sets of texts are walked in the order of their hashes: a seed has to repeat
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-W", "ignore", "-m", "tests.simulation", *(words or sys.argv[1:])])  # noqa: S606
    if arguments.seed is not None:
        return _replay(arguments.seed, next(iter(arguments.plant), None), shrink=arguments.shrink)
    if arguments.planted:
        return _plant(arguments.plant, arguments.seeds or SEEDS_PER_PLANT, arguments.workers)
    if arguments.corpus:
        return _corpus()
    if arguments.hypothesis:
        from tests.simulation import machine  # needs Hypothesis, which nothing else here does

        return machine.explore(arguments.hypothesis)
    return _seeds(arguments.first, arguments.seeds or 1000, arguments.workers)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=0, help="how many seeds (1000); of --planted: at most, for each bug")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1), help="processes, each with a PostgreSQL")
    parser.add_argument("--seed", type=int, help="run this seed and print what happened")
    parser.add_argument("--shrink", action="store_true", help="of --seed: leave out every action that the failure does not need")
    parser.add_argument("--planted", action="store_true", help="plant each bug in turn and tell which are caught")
    parser.add_argument("--plant", action="append", default=[], help="only this bug, by its name; may be repeated")
    parser.add_argument("--corpus", action="store_true", help="run what once failed")
    parser.add_argument("--hypothesis", type=int, default=0, metavar="N", help="let Hypothesis choose the actions of N runs")
    return parser


# --- many seeds ---

_SIMULATOR: list[Simulator] = []


def _begin(cores: Any) -> None:
    """In a worker: its own server, and a core for the two of them, because they take turns."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if cores is not None:
        os.sched_setaffinity(0, {cores.get()})
    simulator = Simulator()
    _SIMULATOR.append(simulator)
    Finalize(None, simulator.close, exitpriority=10)


class _Hangs(Exception):
    """A run took too long."""


def _late(*_: object) -> None:
    raise _Hangs


def _one(seed: int, plant: str | None = None) -> tuple[int, int, float, Counter[str], list[str], list[Action]]:
    """One seed in a worker."""
    signal.signal(signal.SIGALRM, _late)
    signal.alarm(_SEED_SECONDS)
    try:
        result = _SIMULATOR[0].run(seed, plant=BY_NAME[plant] if plant else None)
    except _Hangs:
        return seed, 0, 0.0, Counter(), ["progress: the run hangs"], choose(seed)
    except NotPlanted:
        raise
    except Exception as error:  # the other seeds go on
        return seed, 0, 0.0, Counter(), [f"simulation: {error!r}"], choose(seed)
    finally:
        signal.alarm(0)
    return seed, result.steps, result.seconds, result.bitten, [str(one) for one in result.violations], list(result.actions)


@contextlib.contextmanager
def _workers(count: int) -> Iterator[ProcessPoolExecutor]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, context, _begin, (_cores(context, count),)) as pool:
        yield pool


def _cores(context: SpawnContext, workers: int) -> Any:
    """A queue with a core for each worker; None where there are cores left over, which the system may choose from."""
    if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) > workers:
        return None
    queue = context.SimpleQueue()
    for _, core in zip(range(workers), itertools.cycle(sorted(os.sched_getaffinity(0))), strict=False):
        queue.put(core)
    return queue


def _seeds(first: int, count: int, workers: int) -> int:
    begun = time.monotonic()
    steps, virtual, failed = 0, 0.0, 0
    bitten: Counter[str] = Counter()
    with _workers(workers) as pool:
        for done, (seed, taken, seconds, bites, violations, actions) in enumerate(pool.map(_one, range(first, first + count)), 1):
            steps += taken
            virtual += seconds
            bitten += bites
            if violations:
                failed += 1
                _tell_failure(seed, violations, actions, shown=failed <= _SHOWN)
            if done % 500 == 0:
                print(f"{done} of {count} seeds, {failed} failed", file=sys.stderr)
    took = time.monotonic() - begun
    print(f"seeds       {count} ({first} to {first + count - 1})")
    print(f"steps       {steps}")
    print(f"time        {virtual / 3600:.1f} h simulated in {took:.0f} s: {took * workers / count:.2f} s a seed and worker")
    print(f"faults      {sum(bitten.values())} bit:")
    for fault, number in sorted(bitten.items()):
        print(f"  {number:8d}  {fault}")
    print(f"violations  {failed}")
    return 1 if failed else 0


def _tell_failure(seed: int, violations: Sequence[str], actions: Sequence[Action], *, shown: bool) -> None:
    if shown:
        print(f"seed {seed} failed; again with: make simulate SEED={seed}")
        for text in violations[:5]:
            print(f"  {text}")
        print("  actions: " + " ".join(f"{name}:{number}" for name, number in actions), flush=True)


# --- one seed ---


def _replay(seed: int, plant: str | None, *, shrink: bool) -> int:
    simulator = Simulator()
    try:
        planted = BY_NAME[plant] if plant else None
        result = simulator.run(seed, traced=True, plant=planted)
        if shrink and result.violations:
            result = _shrunk(simulator, result, planted)
    finally:
        simulator.close()
    print("\n".join(result.trace.lines))
    print(f"seed {seed}, digest {result.digest}, {len(result.actions)} actions:")
    print(" ".join(f"{name}:{number}" for name, number in result.actions))
    for violation in result.violations:
        print(f"VIOLATION {violation}")
    return 1 if result.violations else 0


def _shrunk(simulator: Simulator, result: Result, plant: Any) -> Result:
    """The same failure with fewer actions: each is left out in turn, as long as the same rule is broken without it."""
    rule = result.violations[0].rule
    number = 0
    while number < len(result.actions):
        fewer = [*result.actions[:number], *result.actions[number + 1 :]]
        again = simulator.run(result.seed, fewer, traced=True, plant=plant)
        if again.violations and again.violations[0].rule == rule:
            result = again
        else:
            number += 1
    return result


def _corpus() -> int:
    simulator = Simulator()
    failed = 0
    try:
        for case in corpus.cases():
            result = simulator.run(case.seed, case.actions)
            failed += bool(result.violations)
            print(f"{'FAILED' if result.violations else 'holds '}  {case.name}: {case.why}")
            for violation in result.violations[:3]:
                print(f"        {violation}")
    finally:
        simulator.close()
    return 1 if failed else 0


# --- planted bugs ---


def _hunt(name: str, seeds: int) -> tuple[str, str, str]:
    """In a worker: plant one bug and run seeds until it is caught."""
    plant = BY_NAME[name]
    simulator = _SIMULATOR[0]
    simulator.forget_rewritten()
    try:
        for seed in range(seeds):
            _, _, _, _, violations, actions = _one(seed, name)
            if violations and simulator.run(seed, actions).violations:
                return name, "UNPROVEN", f"seed {seed} fails without the bug as well"
            if violations:
                return name, "caught", f"by seed {seed}: {violations[0][:110]}"
    except NotPlanted as error:
        return name, "NOT PLANTED", str(error)
    lacking = [one.old for one in plant.changes if isinstance(one, Statement) and one.old not in simulator.rewritten()]
    if lacking:
        return name, "NOT PLANTED", f"no statement has {lacking[0]!r}"
    return name, "SURVIVED", f"{seeds} seeds"


def _plant(only: Sequence[str], seeds: int, workers: int) -> int:
    chosen = [plant for plant in PLANTS if not only or plant.name in only]
    bad = 0
    with _workers(workers) as pool:
        hunts = {plant.name: pool.submit(_hunt, plant.name, seeds) for plant in chosen if plant.changes}
        for plant in chosen:
            if plant.not_built:
                print(f"{plant.origin:15s} {plant.name}: not built yet: {plant.not_built}")
                continue
            _, verdict, how = hunts[plant.name].result()
            bad += verdict != "caught"
            print(f"{plant.origin:15s} {plant.name}: {verdict} ({how})", flush=True)
    print(f"{len(hunts) - bad} of {len(hunts)} caught, {len(chosen) - len(hunts)} not built yet")
    return 1 if bad else 0
