"""Digests: what the mirror holds, page by page, so that a ledger can compare it with what it holds itself.

A *round* is every entity of the mirror in key order, cut into pages that leave no gap: a page speaks for every key after its
`after` up to its `upto`, so that a key it does not list is one that the mirror does not have. Keys are ordered by the bytes of
(tenant, kind, key). The topic has one partition, so a round's pages come in their order and its end comes last.
"""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple
from uuid import UUID

from pydantic import Field, TypeAdapter, ValidationError

from schemas.events import BIGGEST, Identifier, Model, Text


class Bound(NamedTuple):
    """A place in the order of all keys."""

    tenant: Text
    kind: Text
    key: Text


class Entry(NamedTuple):
    """One entity as the mirror holds it."""

    tenant: Identifier
    kind: Identifier
    key: Identifier
    version: int
    content_hash: str
    published: bool
    """Kafka had this version when the page was read: a reader that has read the log up to now must have it."""


class DigestPage(Model):
    """All entities of one range of keys."""

    type: Literal["page"] = "page"
    round: UUID
    number: int = Field(ge=0)
    """Counts the pages of the round from 0."""
    after: Bound | None
    """The range begins behind this key; None: with the first."""
    upto: Bound | None
    """The range ends with this key; None: with the last there is."""
    complete_to: int = Field(le=BIGGEST)
    """Whatever has a version up to this and is not in the page, the mirror does not have, or not any more."""
    log_ends: dict[Text, int]
    """By ``topic/partition``: every event below these offsets had been committed in the mirror before the page was read."""
    entries: list[Entry]


class DigestEnd(Model):
    """The round is complete."""

    type: Literal["end"] = "end"
    round: UUID
    pages: int = Field(ge=1)
    """How many it has; whoever has compared them all has compared everything."""
    answers: list[UUID] = Field(default_factory=list)
    """Wishes (`returns.DigestsWanted`) that had been read before the round began."""


Digest = DigestPage | DigestEnd
_DIGEST: TypeAdapter[Digest] = TypeAdapter(Annotated[Digest, Field(discriminator="type")])


class UnreadableDigest(ValueError):
    """The bytes are no digest that this reader knows. The message quotes nothing."""


def encode(digest: Digest) -> bytes:
    """The record's value."""
    return digest.model_dump_json().encode()


def decode(value: bytes | None) -> Digest:
    """Raises `UnreadableDigest`."""
    try:
        return _DIGEST.validate_json(value or b"")
    except ValidationError as error:
        raise UnreadableDigest(f"{error.error_count()} problems") from error
