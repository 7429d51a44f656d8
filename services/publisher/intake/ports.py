"""What the HTTP routes need from the rest of the publisher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol
from zoneinfo import ZoneInfo

from services.publisher.changes import Change, Receipt, Reject
from services.publisher.translate.dialect import Dialect

MEBIBYTE = 1024 * 1024


class Mirror(Protocol):
    """Takes changes in."""

    async def accept(self, changes: Sequence[Change], source: str) -> Receipt:
        """Return only when every change is committed and published; raise `Unavailable` otherwise. `source` is a metric label."""
        ...


@dataclass(frozen=True, slots=True)
class Poison:
    """What arrived and could not be used, beside the reason: the bytes, or only how many there were."""

    body: bytes | None
    """None when it was too large to be read into memory."""
    bytes: int
    digest: str
    """SHA-256 of what was read."""


class QuarantineStore(Protocol):
    """Keeps what could not be used."""

    async def put(self, channel: str, rejects: Sequence[Reject], poison: Poison) -> None:
        """Return when it is durable; raise `Unavailable` otherwise. The same poison sent again changes nothing."""
        ...


class ChannelBook(Protocol):
    """Remembers who delivered when."""

    def heard(self, channel: str, at: datetime) -> None:
        """Something was delivered."""
        ...


class Callers(Protocol):
    """Knows who may call."""

    def identify(self, authorization: str | None) -> str | None:
        """The caller's name, None when the header proves nobody."""
        ...


@dataclass(frozen=True, slots=True)
class IntakeSettings:
    """What the routes need of the publisher's settings."""

    tenant: str
    site_timezone: ZoneInfo
    """Decides what *today* is for names that start or end on a date."""
    max_body_bytes: int = 5 * MEBIBYTE
    body_timeout_seconds: float = 5
    dialect: Dialect = field(default_factory=Dialect)
    """The site's own names for PeopleSoft records and fields; `dialect_file.read_dialect` reads them."""
    personal: frozenset[str] = frozenset()
    """Which of a person's `login` and `email` are taken and passed on."""
