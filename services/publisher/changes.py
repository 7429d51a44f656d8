"""The publisher's nouns: what a source said happened. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from schemas.events import OrderToken
from schemas.keys import EntityKey, join


@dataclass(frozen=True)
class Change:
    """One SIS row as a source reported it: state, not difference."""

    tenant: str
    record: str
    """The SIS record, for example ``STDNT_ENRL``; ``canonical.enrollment`` for canonical JSON."""
    key: dict[str, str]
    """Natural key columns; never depends on the channel."""
    columns: dict[str, str]
    """Allow-listed columns. They are laid over the stored ones: a message that omits a column says nothing about it."""
    entity: EntityKey | None
    """The entity the row belongs to; None when the row (a delete with keys only) does not say, and the mirror looks it up."""
    order: OrderToken
    deleted: bool = False
    event_version: int | None = None
    """Of the event that the row was read back from; None for what a source reported."""

    @cached_property
    def row_key(self) -> str:
        """The natural key as one text, unique within tenant and record."""
        return natural_key(self.key)


def natural_key(key: dict[str, str]) -> str:
    """Key columns as one text; by column name, since neither JSON nor a database keeps the order of columns, and a row that
    comes back from the log has to be the same row."""
    return join(*(value for _, value in sorted(key.items())))


@dataclass(frozen=True, slots=True)
class Reject:
    """A part of a message that cannot be used. It goes to quarantine; the rest of the message goes on."""

    reason: str
    """Closed code, safe as a metric label: ``malformed_xml``, ``dtd``, ``unknown_record``, ``missing_key``, ..."""
    detail: str
    """Where and what, for example ``Transaction[3]/STDNT_ENRL: STDNT_ENRL_STATUS``; never a value that could be personal."""
    columns: dict[str, str] | None = None
    """The row's allow-listed columns when it parsed, for the redacted quarantine copy."""


@dataclass(frozen=True, slots=True)
class Translation:
    """What one message says."""

    changes: list[Change] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)


class MirrorRow(NamedTuple):
    """One source row as the mirror holds it; what the fold reads."""

    record: str
    key: dict[str, str]
    columns: dict[str, str]
    deleted: bool
    order: OrderToken


class Unavailable(RuntimeError):
    """The change could not be made durable in time; the source must send it again (503). `reason` is a closed code."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
        """``kafka``, ``database``, ``overload``, ``recovering``, ``stopping``, ``deadline``; of extracts ``busy``, ``disk``."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What an accepted request did; every count is of source rows, `events` of new entity versions."""

    changed: int
    unchanged: int
    """Duplicates, older rows, and rows whose fold is the same as before."""
    ambiguous: int
    """Rows whose order had to be decided by arrival."""
    events: int
