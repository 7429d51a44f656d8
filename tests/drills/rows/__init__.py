"""The drills, one module for each table of the fault matrix, one function for each row."""

from __future__ import annotations

import importlib

_TABLES = ("publisher", "kafka", "consumer", "ledger", "mirror", "canvas", "clock")


def load() -> None:
    """Import every table, which puts its rows into the catalogue."""
    for table in _TABLES:
        importlib.import_module(f"{__name__}.{table}")
