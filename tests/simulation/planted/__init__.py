"""Planted bugs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

Plant = Any


@contextmanager
def growing(plant: Plant | None, databases: Any) -> Iterator[None]:
    yield
