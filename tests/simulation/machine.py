"""The same rules under Hypothesis: it chooses the actions, and shrinks a run that breaks a promise to the few that it needs."""

from __future__ import annotations

from contextlib import ExitStack

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.simulation.checks import Checks
from tests.simulation.rules import ACTIONS, Run
from tests.simulation.runner import Simulator

_SIMULATOR: list[Simulator] = []


class Machine(RuleBasedStateMachine):
    """One world; each rule is an action, and the safety rules are looked at after each."""

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self._run: Run | None = None

    @initialize(seed=st.integers(0, 2**16))
    def begin(self, seed: int) -> None:
        world = self._stack.enter_context(_SIMULATOR[0].simulated(seed))
        world.calm = False
        self._run = Run(world, Checks(world))
        self._run.begin()

    @rule(name=st.sampled_from(sorted(ACTIONS)), number=st.integers(0, 2**16 - 1))
    def act(self, name: str, number: int) -> None:
        assert self._run is not None
        self._run.step((name, number))

    @invariant()
    def safe(self) -> None:
        if self._run is not None and self._run.world.violations:
            raise self._run.world.violations[0]

    def teardown(self) -> None:
        try:
            if self._run is not None and not self._run.world.violations:
                self._run.heal()
                self.safe()
        finally:
            self._stack.close()


def explore(examples: int, steps: int = 20) -> int:
    """0 when `examples` runs of at most `steps` actions kept every promise."""
    _SIMULATOR.append(Simulator())
    try:
        run_state_machine_as_test(
            Machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                derandomize=True,
                database=None,
                phases=(Phase.generate, Phase.shrink),
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        _SIMULATOR.pop().close()
    print(f"Hypothesis  {examples} runs, no violation")
    return 0
