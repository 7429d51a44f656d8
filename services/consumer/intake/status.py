"""What other threads may know about the intake."""

from __future__ import annotations

from dataclasses import dataclass, field

from services.consumer.intake.flood import Flood


@dataclass
class Status:
    """Written by the intake's thread alone."""

    history_known: bool = False
    """Kafka has been asked what it remembers of this ledger; before, nobody may act upon what the ledger says."""
    assigned_once: bool = False
    ledger_reachable: bool = False
    misplaced: bool = False
    """Partitions are ours of which nobody could say where to begin."""
    missing_topics: set[str] = field(default_factory=set)
    letters_wait: bool = False
    """A partition stands still until Kafka takes a dead letter."""
    stopped_by: Flood | None = None
    """More could not be used than is believable; the line stands still until a person has looked."""
    stopped_reason: str = ""

    def ready(self) -> dict[str, bool]:
        """What has to hold before this process counts as ready."""
        return {
            "assigned": self.assigned_once,
            "ledger": self.ledger_reachable,
            "placed": not self.misplaced,
            "flowing": self.stopped_by is None,
        }

    def reasons(self) -> dict[str, str]:
        """Why the intake does not do all that it should, in closed codes and names of topics."""
        found = {"letters": "dead letters not taken by Kafka"} if self.letters_wait else {}
        if missing := sorted(self.missing_topics):
            found["topics"] = f"missing: {', '.join(missing)}"
        if (flood := self.stopped_by) is not None:
            found["flowing"] = (
                f"{flood.bad} of the last {flood.seen} records of {flood.place.topic} [{flood.place.partition}] cannot be used "
                f"({self.stopped_reason}); stopped before offset {flood.offset}"
            )
        return found
