"""Topic names. A prefix separates cells (sets of tenants) that share one Kafka cluster."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

from schemas.keys import EntityKind

ENTITY_KINDS: tuple[EntityKind, ...] = ("enrollment", "person", "section", "course", "term")
DEFAULT_PARTITIONS = 12
PARTITIONER = "murmur2_random"
"""Java's partitioner; librdkafka's default differs. Frozen for the life of a topic."""


class Topics(NamedTuple):
    """All topic names under one prefix, for example ``enrollstream.enrollment.v1``."""

    prefix: str = "enrollstream"

    def entity(self, kind: EntityKind) -> str:
        """The topic that carries one kind of event."""
        return f"{self.prefix}.{kind}.v1"

    def kind(self, topic: str) -> EntityKind | None:
        """The kind of event on `topic`, None for a topic that is not ours."""
        return _kinds(self.prefix).get(topic)

    def dead_letter(self, topic: str) -> str:
        """Where undecodable records of `topic` go, bytes untouched."""
        return f"dlq.{topic}"

    @property
    def markers(self) -> str:
        """One partition, compacted: which database the mirror is, and the version floor. See `schemas.markers`."""
        return f"{self.prefix}.marker.v1"

    @property
    def digests(self) -> str:
        """One partition, a day: what the mirror holds, for the ledger to compare. See `schemas.digests`."""
        return f"{self.prefix}.digests.v1"

    @property
    def returns(self) -> str:
        """One partition: what the ledger asks of the mirror, and gives back to it. See `schemas.returns`."""
        return f"{self.prefix}.returns.v1"

    def all(self) -> dict[str, int]:
        """Every topic with the number of partitions that we create it with."""
        entities = {self.entity(kind): DEFAULT_PARTITIONS for kind in ENTITY_KINDS}
        others = dict.fromkeys((self.markers, self.digests, self.returns), 1)
        return entities | {self.dead_letter(topic): 1 for topic in entities} | others


@cache
def _kinds(prefix: str) -> dict[str, EntityKind]:
    return {Topics(prefix).entity(kind): kind for kind in ENTITY_KINDS}
