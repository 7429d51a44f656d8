"""Running seeds: one after the other in this process, and what came of each."""

from __future__ import annotations

import gc
import hashlib
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from tests.simulation import planted
from tests.simulation.checks import Checks
from tests.simulation.database import Databases, Server
from tests.simulation.fibers import Stuck
from tests.simulation.rules import Action, Run, choose, is_calm
from tests.simulation.world import Trace, Violation, World, prepare, simulated


@dataclass
class Result:
    """What one run showed."""

    seed: int
    actions: Sequence[Action]
    violations: list[Violation]
    bitten: Counter[str] = field(default_factory=Counter)
    steps: int = 0
    seconds: float = 0.0
    """Virtual."""
    digest: str = ""
    """Of the trace, when one was wanted: the same seed has the same."""
    trace: Trace = field(default_factory=Trace)


class Simulator:
    """A server and a pool of connections for many runs."""

    def __init__(self) -> None:
        self._server = Server()
        self._databases = Databases(self._server)
        self._folder = tempfile.TemporaryDirectory(prefix="enrollstream-sim-files-")
        prepare(Path(self._folder.name))
        gc.collect()
        gc.freeze()  # what is here now stays, and need not be looked at after every seed
        gc.disable()  # a collection at a moment that no seed decides could run a `finally` of the product

    def close(self) -> None:
        gc.unfreeze()
        gc.enable()
        self._server.close()
        self._folder.cleanup()

    def simulated(self, seed: int, trace: Trace | None = None) -> AbstractContextManager[World]:
        """A new world on this server."""
        return simulated(self._databases, Path(self._folder.name), seed, trace)

    def forget_rewritten(self) -> None:
        """Another bug is planted from here on."""
        self._databases.rewritten.clear()

    def rewritten(self) -> set[str]:
        """Statements that a planted bug has changed so far."""
        return set(self._databases.rewritten)

    def run(
        self, seed: int, actions: Sequence[Action] | None = None, *, traced: bool = False, plant: planted.Plant | None = None
    ) -> Result:
        """One seed from begin to heal; never raises for what the product does."""
        actions = choose(seed, plant.rules if plant else ()) if actions is None else actions
        trace = Trace(wanted=traced)
        steps = 0
        try:
            with (
                planted.growing(plant, self._databases),
                simulated(self._databases, Path(self._folder.name), seed, trace) as world,
            ):
                world.calm = is_calm(list(actions))
                run = Run(world, Checks(world))
                try:
                    run.begin()
                    for action in actions:
                        run.step(action)
                        steps += 1
                        if world.violations:
                            break
                    if not world.violations:
                        run.heal()
                        steps += 1
                    if not world.violations and seed % 4 == 0:
                        run.replay()
                        steps += 1
                except Stuck as error:
                    world.violated("progress", str(error))
                result = Result(seed, actions, world.violations, world.bitten, steps, world.scheduler.now, trace=trace)
        finally:
            gc.collect()
        if traced:
            result.digest = hashlib.sha256("\n".join(trace.lines).encode()).hexdigest()[:16]
        return result
