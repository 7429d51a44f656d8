"""When an owner of a connection has its statements planned anew."""

from __future__ import annotations

from typing import cast

from services.kit.postgres import Connection, Plans


class Recorder:
    """Stands where the connection would."""

    def __init__(self) -> None:
        self.executed: list[str] = []

    def execute(self, statement: str) -> None:
        self.executed.append(statement)


def test_single_rows_add_up_to_a_new_plan_as_a_large_batch_does_but_once_a_second() -> None:
    now, recorder = [100.0], Recorder()
    plans = Plans(lambda: now[0])

    def rows(count: int) -> int:
        """How often that many single rows had the statements planned."""
        before = len(recorder.executed)
        for _ in range(count):
            plans.keep_fresh(cast(Connection, recorder), 1)
        return len(recorder.executed) - before

    assert rows(49) == 0  # a few changes meet kept plans
    assert rows(1) == 1
    assert rows(500) == 0  # not again within the second
    now[0] += 1
    assert rows(1) == 1
    now[0] += 3600
    assert rows(49) == 0
