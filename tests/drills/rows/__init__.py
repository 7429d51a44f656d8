"""The drills, a module or two for each table of the fault matrix, one function for each row."""

from __future__ import annotations

import importlib

_MODULES = (
    "publisher", "sources", "kafka", "consumer", "ledger", "mirror",
    "canvas", "addressing", "rosters", "clock", "replays", "operators",
)  # fmt: skip


def load() -> None:
    """Import every module, which puts its rows into the catalogue."""
    for module in _MODULES:
        importlib.import_module(f"{__name__}.{module}")
