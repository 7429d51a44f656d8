"""``python -m tests.drills``: break a real system on purpose and say what was seen. See docs/reliability.md."""

from __future__ import annotations

import argparse
import random
import signal
import sys
import time
import traceback
from contextlib import ExitStack
from datetime import UTC, datetime

from tests.drills import report
from tests.drills.catalogue import INJECTORS, Drill, NotRun, selected
from tests.drills.report import Result, Verdict
from tests.drills.world import LOGS, World


class Runner:
    """Runs drills one after the other, in one world as long as it stays whole."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.results: list[Result] = []
        self._stack = ExitStack()
        self._world: World | None = None
        self._worlds = 0
        self._proved: dict[str, str | None] = {}

    def run(self, drill: Drill) -> Result:
        """Never raises for what the drill finds."""
        begun = time.monotonic()
        seen: dict[str, object] = {}
        try:
            self._prove(drill)
            if drill.own_world:
                self.leave_world()
            world = self._enter_world()
            world.begin_drill()
            begun = time.monotonic()
            drill.run(world)
            verdict, why = Verdict.PASSED, ""
        except NotRun as reason:
            verdict, why = Verdict.NOT_RUN, str(reason)
        except (Exception, ExceptionGroup) as error:
            verdict, why = Verdict.FAILED, f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            traceback.print_exc()
        if self._world is not None:
            seen = dict(self._world.seen)
            if verdict is Verdict.FAILED or drill.own_world:
                self.leave_world()
        result = Result(drill, verdict, why, seen, self.seed, datetime.now(UTC).date(), time.monotonic() - begun)
        self.results.append(result)
        return result

    def _prove(self, drill: Drill) -> None:
        for name in drill.injectors:
            if name not in self._proved:
                self._proved[name] = INJECTORS[name].missing()
                if self._proved[name] is None:
                    INJECTORS[name].prove()
            if reason := self._proved[name]:
                raise NotRun(reason)

    def _enter_world(self) -> World:
        if self._world is None:
            self._worlds += 1
            begun = time.monotonic()
            self._world = self._stack.enter_context(World(self.seed + self._worlds, f"world-{self._worlds}"))
            print(f"      world {self._worlds} stands after {time.monotonic() - begun:.0f} s", flush=True)
        return self._world

    def leave_world(self) -> None:
        """Stop everything; the logs stay."""
        self._world = None
        self._stack.close()


def main() -> int:
    """0 when no drill failed, 1 otherwise, 2 for words that name none."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills", description=__doc__)
    parser.add_argument("drills", nargs="*", help="rows (K1) or tables (K) of the fault matrix; all without any")
    parser.add_argument("--smoke", action="store_true", help="only the rows that run in CI")
    parser.add_argument("--seed", type=int, default=None, help="of the traffic (default: a new one)")
    parser.add_argument("--record", action="store_true", help="write the results into docs/reliability.md")
    arguments = parser.parse_args()
    try:
        drills = selected(arguments.drills, smoke=arguments.smoke)
    except KeyError as error:
        sys.stderr.write(f"{error.args[0]}\n")
        return 2
    seed = arguments.seed if arguments.seed is not None else random.randrange(1_000_000)  # noqa: S311
    print(f"{len(drills)} drills, seed {seed}; logs are in {LOGS}", flush=True)
    runner = Runner(seed)
    # Whoever ends us wants the brokers to end too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        for drill in drills:
            print(f"{drill.id:<5} {drill.fault} ...", flush=True)
            print(runner.run(drill).line(), flush=True)
            if arguments.record:
                report.record(runner.results[-1:])
    finally:
        runner.leave_world()
    print(report.summary(runner.results))
    return 1 if any(result.verdict is Verdict.FAILED for result in runner.results) else 0


if __name__ == "__main__":
    sys.exit(main())
