"""Returns: what a ledger tells the mirror. It asks for current state again, or gives back an event that the mirror has lost.

Every record may be read twice. `RepublishKeys` and `ReturnedEvent` name the versions they speak of, so that the second time
finds nothing to do; the other two are only repeated work.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, NamedTuple, Self
from uuid import UUID

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from schemas.events import BIGGEST, Identifier, Model, Text
from schemas.keys import EntityKind

WHATEVER_IT_IS = BIGGEST
"""No entity is newer than this."""


class Scope(Model):
    """Which entities; the given fields all have to match. Exactly everything needs ``all``."""

    tenant: Identifier | None = None
    """One SIS id space; the publisher's own when absent."""
    institution: Identifier | None = None
    term: Identifier | None = None
    section: Identifier | None = None
    """Needs its term: section numbers repeat."""
    person: Identifier | None = None
    all: bool = False

    @model_validator(mode="after")
    def _is_meant(self) -> Self:
        narrow = (self.institution, self.term, self.section, self.person)
        if self.all == any(narrow) or (self.section and not self.term):
            raise ValueError("name a term, section (with its term), person or institution, or say `all`")
        return self


class KeyAt(NamedTuple):
    """An entity, and the newest version of it that the ledger has heard of."""

    tenant: Identifier
    kind: EntityKind
    key: Identifier
    version: int
    """`WHATEVER_IT_IS` of one that it has never heard of, and misses."""


class RepublishKeys(Model):
    """The ledger lacks these versions: emit the entities again. An entity that has moved on meanwhile has been emitted."""

    type: Literal["republish_keys"] = "republish_keys"
    keys: list[KeyAt]


class RepublishScope(Model):
    """The ledger, or the log under it, has lost more than it can name."""

    type: Literal["republish"] = "republish"
    request: UUID
    """The same for the same wish sent twice."""
    scope: Scope
    reason: Text


class DigestsWanted(Model):
    """Emit a round of digests that begins after this was read, and name `request` at its end."""

    type: Literal["digests"] = "digests"
    request: UUID


class ReturnedEvent(Model):
    """An event that the ledger has and the mirror does not: newer, of another content, or of a key that the mirror lacks."""

    type: Literal["event"] = "event"
    kind: EntityKind
    event: dict[Text, Any]
    """The event as it was in the log; see `codec.decode`."""


Return = RepublishKeys | RepublishScope | DigestsWanted | ReturnedEvent
_RETURN: TypeAdapter[Return] = TypeAdapter(Annotated[Return, Field(discriminator="type")])


class UnreadableReturn(ValueError):
    """The bytes are no return that this reader knows. The message quotes nothing."""


def encode(returned: Return) -> bytes:
    """The record's value."""
    return returned.model_dump_json(exclude_none=True).encode()


def decode(value: bytes | None) -> Return:
    """Raises `UnreadableReturn`."""
    try:
        return _RETURN.validate_json(value or b"")
    except ValidationError as error:
        raise UnreadableReturn(f"{error.error_count()} problems") from error
