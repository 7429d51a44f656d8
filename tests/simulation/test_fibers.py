"""The scheduler keeps its promises to the simulation: what is dead holds nothing."""

from __future__ import annotations

from tests.simulation.fibers import Process, Scheduler


def test_a_killed_process_loses_every_connection_it_has() -> None:
    """Each takes itself off the list when it is cut. One that was passed over would keep its locks for good."""
    process = Process("publisher-1", 0)
    cut: list[int] = []

    def connect(number: int) -> None:
        def cut_this() -> None:
            process.on_death.remove(cut_this)
            cut.append(number)

        process.on_death.append(cut_this)

    for number in range(4):
        connect(number)
    Scheduler(0).kill(process)
    assert cut == [0, 1, 2, 3]
