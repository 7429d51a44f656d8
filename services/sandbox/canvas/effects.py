"""What a request changed among the enrollments, so that it can be logged, and taken back when a fault only pretends."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from services.sandbox.canvas.state import Enrollment
from services.sandbox.canvas.world import World


class Effect:
    """Begun before a row is touched: `change` a row that is there, or `add` one. The first row is the one the caller named."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._columns: dict[Enrollment, dict[str, Any] | None] = {}
        self._mails = len(world.mails)

    def change(self, row: Enrollment) -> Enrollment:
        """Remember every column of `row` as it is now; the first memory of a row counts."""
        if row not in self._columns:
            columns = {column.name: getattr(row, column.name) for column in fields(row)}
            self._columns[row] = columns | {"history": list(row.history)}
        return row

    def add(self, row: Enrollment) -> Enrollment:
        """`row` was not there before."""
        self._columns[row] = None
        return row

    @property
    def rows(self) -> list[Enrollment]:
        """The named row, then those that changed along with it."""
        return list(self._columns)

    @property
    def row(self) -> Enrollment:
        """The enrollment the caller named."""
        return self.rows[0]

    def state_before(self, row: Enrollment) -> str | None:
        """The stored state that `row` had, None for a new one."""
        columns = self._columns[row]
        return None if columns is None else str(columns["state"])

    @property
    def before(self) -> str | None:
        """The stored state of the named row before."""
        return self.state_before(self.row)

    def undo(self) -> None:
        """As if it had never happened."""
        del self._world.mails[self._mails :]
        for row, columns in self._columns.items():
            if columns is None:
                self._world.forget(row)
                continue
            for name, value in columns.items():
                setattr(row, name, value)
