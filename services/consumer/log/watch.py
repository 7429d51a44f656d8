"""Noticing what happens to a topic as a whole: gone, made anew, or shorter than what was read of it."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]  # exported without saying so

from services.consumer.log.clients import sparse_logger
from services.consumer.log.records import Place
from services.kit.kafka import KafkaSettings


class LogWatch:
    """Looks now and then whether the topics are still the ones that are read, and as long as what was read of them.

    The client notices neither by itself: a topic that was made anew and has grown past our position is read on as if nothing had
    happened, and a position behind the end of a log that became shorter waits in silence. Nothing here blocks: the answers of one
    look are collected by a later call.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._admin = AdminClient(settings.client(), logger=sparse_logger())
        self._asked: _Asked | None = None

    @property
    def asked(self) -> bool:
        """Whether a look is under way."""
        return self._asked is not None

    def forget(self) -> None:
        """What was asked is out of date."""
        self._asked = None

    def ask(self, ids: Mapping[str, str], positions: Mapping[Place, int]) -> None:
        """Begin a look: do the topics still have these `ids`, and their partitions what lies before these `positions`?"""
        topics = sorted({place.topic for place in positions})
        newest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        ends = {TopicPartition(*place): newest for place in positions}
        self._asked = _Asked(
            {topic: ids[topic] for topic in topics},
            dict(positions),
            self._admin.describe_topics(TopicCollection(topics), request_timeout=10) if topics else {},
            self._admin.list_offsets(ends, request_timeout=10) if ends else {},
        )

    def found(self) -> Change | None:
        """What is not as it was, once the answers are there; None also when Kafka did not answer."""
        asked = self._asked
        if asked is None or not all(answer.done() for answer in (*asked.topics.values(), *asked.ends.values())):
            return None
        self._asked = None
        gone = [topic for topic, answer in asked.topics.items() if _code(answer) in _NO_SUCH_TOPIC]
        if gone:
            return Change("topic_missing", gone[0])
        anew = [topic for topic, answer in asked.topics.items() if not answer.exception() and _id(answer) != asked.ids[topic]]
        if anew:
            return Change("topic_recreated", anew[0])
        shorter = [
            one.topic
            for one, answer in asked.ends.items()
            if not answer.exception() and answer.result().offset < asked.positions[Place(one.topic, one.partition)]
        ]
        return Change("log_shorter", shorter[0]) if shorter else None


class Change(NamedTuple):
    """What happened to a topic that we read."""

    what: Literal["topic_missing", "topic_recreated", "log_shorter"]
    topic: str


@dataclass(frozen=True, slots=True)
class _Asked:
    """One look, and its answers to be."""

    ids: dict[str, str]
    positions: dict[Place, int]
    topics: dict[str, Future[Any]]
    ends: dict[TopicPartition, Future[Any]]


_NO_SUCH_TOPIC = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})


def _code(answer: Future[Any]) -> int | None:
    error = answer.exception()
    return error.args[0].code() if isinstance(error, KafkaException) else None


def _id(answer: Future[Any]) -> str:
    return str(answer.result().topic_id)
