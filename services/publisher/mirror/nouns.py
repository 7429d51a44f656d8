"""What the mirror's modules hand to each other. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, TypedDict

from schemas.events import OrderToken
from schemas.keys import EntityKey, EntityKind
from services.publisher.changes import Change, MirrorRow

Fold = Callable[[EntityKind, EntityKey, Sequence[MirrorRow]], dict[str, Any]]
"""All rows of one entity to the event's state fields; pure. Not even a deleted row is left out, and there may be none."""

Meaning = Callable[[EntityKind, EntityKey, MirrorRow], object]
"""What one row says to the fold, today or on a later day; pure. Equal meanings are interchangeable beside any other rows."""


class RowKey(NamedTuple):
    """The primary key of a source row."""

    tenant: str
    record: str
    key: str


def row_key(change: Change) -> RowKey:
    """The row that a change speaks of."""
    return RowKey(change.tenant, change.record, change.row_key)


class Left(TypedDict):
    """An entity that a row moved away from, and the version that said so."""

    kind: EntityKind
    key: str
    version: int


@dataclass(slots=True)
class StoredRow:
    """A source row as the database holds it, and as a running transaction will leave it."""

    key: RowKey
    key_columns: dict[str, str]
    entity: EntityKey | None
    """None: the deletion of a row that was never seen, so that nobody knows what it belonged to."""
    columns: dict[str, str]
    deleted: bool
    order: OrderToken
    positions: dict[str, int]
    applied_version: int = 0
    seen_version: int | None = None
    """The version of the event that this copy was read back from."""
    left: list[Left] = field(default_factory=list)
    """Moves whose event may be unpublished."""
    leaves: set[EntityKey] = field(default_factory=set)
    """Moves of the running transaction."""
    before: MirrorRow | None = None
    """The copy that the running transaction found, once it has changed it."""
    is_new: bool = False
    """Not in the database yet."""
    content_changed: bool = False
    token_changed: bool = False

    @property
    def known_version(self) -> int:
        """The version of its entity that this copy belongs to: an event below it cannot be news."""
        return self.applied_version if self.seen_version is None else self.seen_version

    @property
    def changed(self) -> bool:
        """Since it was read."""
        return self.content_changed or self.token_changed

    def as_mirror_row(self) -> MirrorRow:
        """The copy that the fold reads."""
        return MirrorRow(self.key.record, self.key_columns, self.columns, self.deleted, self.order)


@dataclass(slots=True)
class EntityRow:
    """An entity under its lock."""

    key: EntityKey
    version: int
    content_hash: str | None
    next_version: int
    """What the next state gets: above the last version, above the floor, not behind the database's clock."""
    issued: bool = False
    """This transaction gave it a new version."""
    status: str | None = None
    """The event's, of a new version that has one."""
    was_unfoldable: bool = False
    unfoldable: str | None = None
    """Why the newest rows could not be made into an event: the type of the error."""

    def lacks(self, claim: Claim) -> bool:
        """Whether the history of this entity that the claim comes from is not ours."""
        same = self.version == claim.version and self.content_hash == claim.content_hash
        return self.version <= claim.version and not same


class Moved(Exception):
    """A row belongs to an entity that is not locked: roll back, and look anew."""


class Locked(NamedTuple):
    """What a transaction has locked: entities, and all rows that are folded into them."""

    rows: dict[RowKey, StoredRow]
    entities: dict[EntityKey, EntityRow]


class OutboxKey(NamedTuple):
    """One version of one entity."""

    tenant: str
    kind: EntityKind
    key: str
    version: int


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """An event on its way to Kafka."""

    key: OutboxKey
    topic: str
    record_key: bytes
    headers: dict[str, str]
    value: bytes


class Claim(NamedTuple):
    """An event of ours that a ledger has, in short."""

    version: int
    content_hash: str
    has_rows: bool
    """It carries source rows, and this request brings them."""


@dataclass(frozen=True, slots=True)
class Request:
    """What one caller asks of a transaction."""

    changes: Sequence[Change]
    source: str
    """Who delivered, for the event's headers: a protocol, never a person."""
    accepted_at: datetime
    republish: Collection[EntityKey] = ()
    """Entities that get a new version even when nothing changed."""
    returned: Mapping[EntityKey, Claim] = field(default_factory=dict)
    """What a ledger gave back. An entity that the mirror has lost this event of gets a version above it (rule R1)."""


@dataclass(slots=True)
class Result:
    """What a committed transaction did for one request."""

    changed: int = 0
    unchanged: int = 0
    ambiguous: int = 0
    stored: list[Change] = field(default_factory=list)
    """The changes whose row exists; the others had nothing to act on. Rule R2 is asked for these."""
    events: list[OutboxKey] = field(default_factory=list)
    """New versions of the entities whose rows this request changed."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A committed transaction: one result per request, and the events that now have to be produced."""

    results: list[Result]
    outbox: list[OutboxRow]
    unfoldable: list[EntityRow]
    """Entities whose rows were stored although no event could be made of them."""
