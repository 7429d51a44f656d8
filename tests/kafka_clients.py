"""Kafka clients that the tests share, one of a kind and broker for the whole run.

A new idempotent producer sends nothing for half a second: it asks for its id before it is connected, and librdkafka asks again no
sooner. Any new client takes a tenth of a second to connect. Tests have topics of their own; their clients need not be.
"""

from __future__ import annotations

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from services.kit.kafka import KafkaSettings

_producers: dict[str, Producer] = {}
_readers: dict[str, Consumer] = {}
_admins: dict[str, AdminClient] = {}


def producer(kafka: KafkaSettings) -> Producer:
    """As the services make theirs. Whoever produces flushes, so that nothing of one test is left to the next."""
    known = _producers.get(kafka.bootstrap_servers)
    return known or _producers.setdefault(kafka.bootstrap_servers, Producer(kafka.producer(10_000)))


def admin(kafka: KafkaSettings) -> AdminClient:
    """For topics and what is in them."""
    known = _admins.get(kafka.bootstrap_servers)
    return known or _admins.setdefault(kafka.bootstrap_servers, AdminClient(kafka.client()))


def ends(kafka: KafkaSettings, topic: str) -> dict[int, int]:
    """One past the newest offset of each partition."""
    known = _readers.get(kafka.bootstrap_servers)
    reader = known or _readers.setdefault(kafka.bootstrap_servers, Consumer(kafka.reader("ends")))
    partitions = reader.list_topics(topic, timeout=10).topics[topic].partitions
    return {one: reader.get_watermark_offsets(TopicPartition(topic, one), timeout=10)[1] for one in partitions}


def forget(bootstrap_servers: str) -> None:
    """Close what is connected to a broker that ends."""
    _producers.pop(bootstrap_servers, None)
    _admins.pop(bootstrap_servers, None)
    reader = _readers.pop(bootstrap_servers, None)
    if reader is not None:
        reader.close()
