"""What a replay asks of the log: a port, implemented by `log.ranges` over Kafka."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple, Protocol


class LogUnavailable(RuntimeError):
    """Kafka did not answer in time; trying again later may help."""


class LogRefused(RuntimeError):
    """Kafka will not let us read this partition; `reason` is the client's name of the error."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Bounds(NamedTuple):
    """What a partition holds."""

    topic_id: str
    low: int
    """The oldest offset."""
    high: int
    """One past the newest offset that a reader may see."""


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record as it is in the log."""

    offset: int
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Missing:
    """An offset that the log cannot give: trimmed away (`expired`), or never visible to readers (`absent`)."""

    offset: int
    fate: Literal["expired", "absent"]


class Reader(Protocol):
    """Names every offset of its range once, in order. Owned by one thread at a time; `close` it."""

    @property
    def done(self) -> bool:
        """Whether the whole range has been named."""

    def read(self, limit: int, wait_seconds: float) -> list[LogRecord | Missing]:
        """At most `limit` further offsets; empty when the range is done, or when the log gave nothing in time.

        Raises `LogRefused` or `LogUnavailable`.
        """

    def close(self) -> None:
        """Let go of the connection."""


class Log(Protocol):
    """The partitions of one cluster, by range. Every call may block for some seconds."""

    def bounds(self, topic: str, partition: int) -> Bounds | None:
        """What the partition holds; None when it does not exist. Raises `LogUnavailable`."""

    def between(self, topic: str, since: datetime, until: datetime) -> Mapping[int, Bounds]:
        """What each partition of the topic holds from the first record at or after `since` to before the first at or after
        `until`, by the log's own timestamps; partitions without any are left out. Raises `LogUnavailable`.
        """

    def read(self, topic: str, partition: int, first: int, last: int) -> Reader:
        """A reader of the offsets `first` to `last`, both included. Raises `LogUnavailable`."""
