"""Planted bugs: each is one small change of the product, made while a simulation runs, that the checks have to catch.

A change that finds nothing to change is an error: a bug that was never planted proves nothing.
"""

from __future__ import annotations

import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from tests.simulation.database import Databases


class NotPlanted(RuntimeError):
    """The text that a plant changes is not there any more."""


@dataclass(frozen=True)
class Edit:
    """The source of a function or method with some text replaced."""

    owner: Any
    name: str
    old: str
    new: str


@dataclass(frozen=True)
class Statement:
    """An SQL statement with some text replaced, wherever it is executed."""

    old: str
    new: str


@dataclass(frozen=True)
class Plant:
    """One bug."""

    name: str
    origin: str
    """Where the list of bugs to be caught has it."""
    changes: tuple[Edit | Statement, ...] = ()
    rules: tuple[tuple[str, int], ...] = ()
    """Actions, with their weight, that give the bug room: beside the usual ones."""
    not_built: str = ""
    """Why it cannot be planted: the part that would have it does not exist yet."""
    tolerated: str = ""
    """Why nothing can break: the design does not rely on what the bug takes away."""


@contextmanager
def growing(plant: Plant | None, databases: Databases) -> Iterator[None]:
    """The product has the bug until the end of the block."""
    if plant is None:
        yield
        return
    with ExitStack() as stack:
        statements = [(change.old, change.new) for change in plant.changes if isinstance(change, Statement)]
        databases.rewrites = statements
        stack.callback(databases.rewrites.clear)
        edits: dict[tuple[Any, str], list[Edit]] = {}
        for change in plant.changes:
            if isinstance(change, Edit):
                edits.setdefault((change.owner, change.name), []).append(change)
        for (owner, name), mine in edits.items():
            _edit(owner, name, mine, stack)
        yield


def _edit(owner: Any, name: str, changes: list[Edit], stack: ExitStack) -> None:
    real = inspect.getattr_static(owner, name)
    source = textwrap.dedent(inspect.getsource(real))
    for change in changes:
        if change.old not in source:
            raise NotPlanted(f"{owner.__name__}.{name} has no {change.old!r}")
        source = source.replace(change.old, change.new)
    scope: dict[str, Any] = {}
    code = compile("from __future__ import annotations\n" + source, f"<planted {name}>", "exec")
    exec(code, real.__globals__, scope)  # noqa: S102  (our own source, changed on purpose)
    for holder in [owner] if inspect.isclass(owner) else _importers(real):
        stack.callback(setattr, holder, name, real)
        setattr(holder, name, scope[name])


def _importers(function: Callable[..., Any]) -> list[Any]:
    """Every module of the product that knows the function by its name."""
    name = function.__name__
    return [
        module
        for path, module in list(sys.modules.items())
        if path.startswith(("services.", "schemas")) and getattr(module, name, None) is function
    ]
