"""The time that dates are compared with; tests and demos may move or stop it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


class Clock:
    """Wall-clock time plus an offset, or one frozen moment. The throttle and the write log do not use it."""

    def __init__(self) -> None:
        self._offset = timedelta()
        self._frozen: datetime | None = None

    def now(self) -> datetime:
        """The current moment, with a zone."""
        return self._frozen or datetime.now(UTC) + self._offset

    def advance(self, seconds: float) -> None:
        """Move forward (backward when negative)."""
        if self._frozen:
            self._frozen += timedelta(seconds=seconds)
        else:
            self._offset += timedelta(seconds=seconds)

    def set(self, moment: datetime, *, frozen: bool = False) -> None:
        """Continue from `moment`, or stay there."""
        self._frozen = moment if frozen else None
        self._offset = moment - datetime.now(UTC)

    def reset(self) -> None:
        """Back to the wall clock."""
        self._offset, self._frozen = timedelta(), None
