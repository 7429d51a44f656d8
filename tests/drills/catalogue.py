"""Which rows of the fault matrix are drilled, by which function, and with which injectors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tests.drills.injectors import clock, disk, firewall, names, points, proxy, signals, tls
from tests.drills.world import World

Run = Callable[[World], None]
TABLES = "PKCLMVTO"
"""As the matrix has them: publisher, Kafka, consumer, ledger, mirror, Canvas, time, operators."""


class Injector(NamedTuple):
    """A way to break something."""

    prove: Callable[[], None]
    """Its self-test: raises `AssertionError` when the fault does not bite."""
    missing: Callable[[], str | None] = lambda: None
    """Why this machine cannot do it; None when it can."""


INJECTORS = {
    "signals": Injector(signals.prove_pause),
    "memory": Injector(signals.prove_memory),
    "failpoints": Injector(points.prove),
    "proxy": Injector(proxy.prove),
    "firewall": Injector(firewall.prove, firewall.missing),
    "disk": Injector(disk.prove, disk.missing),
    "clock": Injector(clock.prove, clock.missing),
    "names": Injector(names.prove, names.missing),
    "tls": Injector(tls.prove),
}


class NotRun(Exception):
    """This row cannot be drilled here; the message says why."""


@dataclass(frozen=True, slots=True)
class Drill:
    """One row of the matrix."""

    id: str
    fault: str
    how: str
    run: Run
    injectors: Sequence[str]
    smoke: bool
    own_world: bool
    """It needs a world that nobody used before, or leaves one that nobody should use."""


DRILLS: dict[str, Drill] = {}


def drill(
    identity: str, fault: str, how: str, *, uses: Sequence[str] = (), smoke: bool = False, own_world: bool = False
) -> Callable[[Run], Run]:
    """Put a function into the catalogue. It raises `AssertionError` for what must not be, and `NotRun`."""

    def register(run: Run) -> Run:
        assert identity not in DRILLS, identity
        assert set(uses) <= INJECTORS.keys(), uses
        DRILLS[identity] = Drill(identity, fault, how, run, uses, smoke, own_world)
        return run

    return register


def selected(words: Iterable[str], *, smoke: bool) -> list[Drill]:
    """By id (``K1``), by table (``K``), or all. Rows that keep the world come first. Raises `KeyError` for an unknown word."""
    from tests.drills import rows  # noqa: PLC0415  (the rows import this module)

    rows.load()
    chosen: set[str] = set()
    for word in words:
        found = {identity for identity in DRILLS if identity == word or re.sub(r"\d.*", "", identity) == word}
        if not found:
            raise KeyError(f"no drill {word}; there are {', '.join(sorted(DRILLS, key=order))}")
        chosen |= found
    if not chosen:
        chosen = {identity for identity, one in DRILLS.items() if one.smoke or not smoke}
    return sorted((DRILLS[identity] for identity in chosen), key=lambda one: (one.own_world, order(one.id)))


def order(identity: str) -> tuple[int, int, str]:
    """Table by table."""
    found = re.fullmatch(r"([A-Z]+)(\d+)(.*)", identity)
    assert found is not None, identity
    return TABLES.index(found[1]), int(found[2]), found[3]
