"""In-memory twins of what the intake routes talk to. They keep the same promises as the real ones."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from services.publisher.changes import Change, Receipt, Reject, Unavailable
from services.publisher.intake.ports import Poison


class FakeMirror:
    """Takes everything, remembers what it holds, and counts a repeated change as unchanged."""

    def __init__(self) -> None:
        self.accepted: list[Change] = []
        """In the order of arrival, duplicates left out."""
        self.sources: set[str] = set()
        self.fails_with: Exception | None = None

    async def accept(self, changes: Sequence[Change], source: str) -> Receipt:
        if self.fails_with is not None:
            raise self.fails_with
        self.sources.add(source)
        new = [change for change in changes if change not in self.accepted]
        self.accepted += new
        return Receipt(changed=len(new), unchanged=len(changes) - len(new), ambiguous=0, events=len(new))


class FakeQuarantine:
    """Keeps each poison once, as the table's unique index does."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str, str], tuple[Reject, Poison]] = {}
        """By channel, digest and detail."""
        self.is_down = False

    async def put(self, channel: str, rejects: Sequence[Reject], poison: Poison) -> None:
        if self.is_down:
            raise Unavailable("database")
        for reject in rejects:
            self.kept.setdefault((channel, poison.digest, reject.detail), (reject, poison))

    @property
    def reasons(self) -> list[str]:
        """Why each part is here, in the order of arrival."""
        return [reject.reason for reject, _ in self.kept.values()]


class FakeCallers:
    """Knows callers by the whole header they send."""

    def __init__(self, names: dict[str, str]) -> None:
        self.names = names

    def identify(self, authorization: str | None) -> str | None:
        return self.names.get(authorization or "")


class FakeChannels:
    """Remembers who delivered when."""

    def __init__(self) -> None:
        self.last: dict[str, datetime] = {}

    def heard(self, channel: str, at: datetime) -> None:
        self.last[channel] = at
