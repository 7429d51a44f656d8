"""librdkafka settings in one place, and what the admin API tells about topics."""

from __future__ import annotations

from typing import NamedTuple

import structlog
from confluent_kafka import IsolationLevel, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec  # type: ignore[attr-defined]  # exported without saying so
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

from schemas.topics import PARTITIONER

log = structlog.get_logger()
Configuration = dict[str, str | int | float | bool]


class KafkaSettings(BaseSettings):
    """How to reach Kafka. Read from variables that start with ``KAFKA_``."""

    model_config = {"env_prefix": "KAFKA_"}

    bootstrap_servers: str = Field(description="host:port[,host:port...]")
    security_protocol: str = Field(default="PLAINTEXT", description="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL")
    sasl_mechanism: str | None = Field(default=None, description="for example SCRAM-SHA-512")
    sasl_username: str | None = Field(default=None, description="for SASL")
    sasl_password: SecretStr | None = Field(default=None, description="for SASL")
    ssl_ca_location: str | None = Field(default=None, description="CA bundle; the system's when absent")
    group_protocol: str = Field(
        default="consumer", pattern="^(consumer|classic)$", description="consumer needs brokers from 4.0 on"
    )
    fetch_wait_max_ms: int = Field(default=500, description="20-50 for the embedded broker, which answers late; 500 otherwise")
    linger_ms: int = Field(default=0, description="at least 5 for the embedded broker, which keeps one set per batch")

    def client(self) -> Configuration:
        """What every client shares."""
        configuration: Configuration = {
            "bootstrap.servers": self.bootstrap_servers,
            "security.protocol": self.security_protocol,
            "reconnect.backoff.ms": 250,
            "reconnect.backoff.max.ms": 5000,
            "socket.keepalive.enable": True,
            "topic.metadata.refresh.interval.ms": 60_000,
            "allow.auto.create.topics": False,
        }
        optional = {
            "sasl.mechanism": self.sasl_mechanism,
            "sasl.username": self.sasl_username,
            "sasl.password": self.sasl_password.get_secret_value() if self.sasl_password else None,
            "ssl.ca.location": self.ssl_ca_location,
        }
        return configuration | {name: value for name, value in optional.items() if value is not None}

    def producer(self, delivery_timeout_ms: int) -> Configuration:
        """Idempotent, acknowledged by all in-sync replicas, bounded in memory. ``linger.ms`` 0: latency before batching."""
        return self.client() | {
            "enable.idempotence": True,
            "acks": "all",
            "delivery.timeout.ms": delivery_timeout_ms,
            "linger.ms": self.linger_ms,
            "compression.type": "lz4",
            "partitioner": PARTITIONER,
            "queue.buffering.max.messages": 20_000,
            "queue.buffering.max.kbytes": 65_536,
            "message.max.bytes": 1_000_000,
        }

    def reader(self, group: str) -> Configuration:
        """A consumer that commits by hand and never jumps: a missing offset is an error, not a new start."""
        return self.client() | {
            "group.id": group,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "error",
            "isolation.level": "read_committed",
            "queued.min.messages": 2_000,
            "queued.max.messages.kbytes": 4_096,
            "fetch.queue.backoff.ms": 20,
            "fetch.wait.max.ms": self.fetch_wait_max_ms,
            "max.partition.fetch.bytes": 262_144,
            "fetch.max.bytes": 2 * 1024 * 1024,
        }

    def group_member(self, group: str) -> Configuration:
        """`reader` plus the rebalance protocol."""
        configuration = self.reader(group) | {"group.protocol": self.group_protocol, "max.poll.interval.ms": 300_000}
        if self.group_protocol == "classic":
            configuration |= {"partition.assignment.strategy": "cooperative-sticky", "session.timeout.ms": 45_000}
        return configuration


def topic_ids(settings: KafkaSettings, topics: list[str], timeout_seconds: float = 10) -> dict[str, str]:
    """Kafka's own id of each topic that exists; a topic deleted and created anew has another one."""
    admin = AdminClient(settings.client())
    answers = admin.describe_topics(TopicCollection(topics), request_timeout=timeout_seconds)
    found = {}
    for topic, answer in answers.items():
        try:
            found[topic] = str(answer.result().topic_id)
        except KafkaException as error:
            log.warning("topic_not_described", topic=topic, code=error.args[0].code())
    return found


class LogEnd(NamedTuple):
    """Where one partition of one incarnation of a topic ends."""

    topic: str
    topic_id: str
    partition: int
    offset: int
    """The next one to be written."""


def log_ends(settings: KafkaSettings, topics: list[str], timeout_seconds: float = 10) -> list[LogEnd]:
    """The ends of all partitions, in two requests; raises `KafkaException`, also when a topic is missing."""
    admin = AdminClient(settings.client())
    answers = admin.describe_topics(TopicCollection(topics), request_timeout=timeout_seconds)
    described = [answer.result() for answer in answers.values()]
    ids = {one.name: str(one.topic_id) for one in described}
    latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    wanted = {TopicPartition(one.name, partition.id): latest for one in described for partition in one.partitions}
    found = admin.list_offsets(wanted, isolation_level=IsolationLevel.READ_COMMITTED, request_timeout=timeout_seconds)
    return [LogEnd(place.topic, ids[place.topic], place.partition, end.result().offset) for place, end in found.items()]


def create_topics(settings: KafkaSettings, topics: dict[str, int], replication: int = 1, timeout_seconds: float = 30) -> None:
    """Create what is missing; existing topics stay as they are.

    Records are kept for 30 days, digests for one, the newest marker for good.
    """
    admin = AdminClient(settings.client())
    existing = admin.list_topics(timeout=timeout_seconds).topics
    missing = [
        NewTopic(name, num_partitions=partitions, replication_factor=replication, config=_topic_settings(name))
        for name, partitions in topics.items()
        if name not in existing
    ]
    for answer in (admin.create_topics(missing) if missing else {}).values():
        answer.result(timeout_seconds)


def _topic_settings(name: str) -> dict[str, str]:
    if name.endswith(".marker.v1"):
        return {"cleanup.policy": "compact"}
    if name.endswith(".digests.v1"):  # an old round says nothing that the next one does not say better
        return {"cleanup.policy": "delete", "retention.ms": str(24 * 3600 * 1000)}
    return {"cleanup.policy": "delete", "retention.ms": str(30 * 24 * 3600 * 1000)}
