"""Topics for librdkafka's mock cluster, without its pauses.

The mock's thread empties its queue of orders first and the pipe that wakes it second. An order that comes between the two has
its wake-up call thrown away, and waits until the thread looks again by itself: a second. Of a test's thirteen topics one meets
that on average. Any connection wakes the thread as well.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from schemas.topics import Topics
from services.sandbox.broker import EmbeddedBroker

_KNOCK_SECONDS = 0.005


def few_partitions(topics: Topics) -> dict[str, int]:
    """All topics, with as many partitions as show that there are several."""
    return {name: min(partitions, 3) for name, partitions in topics.all().items()}


def create_topics(broker: EmbeddedBroker, topics: Mapping[str, int]) -> None:
    """Create all of them (name → partition count)."""
    with _kept_awake(broker):
        for name, partitions in topics.items():
            broker.create_topic(name, partitions)


@contextmanager
def embedded_broker_with(topics: Topics) -> Iterator[EmbeddedBroker]:
    """A broker of the caller's own with few partitions of these topics."""
    with EmbeddedBroker({}) as broker:
        create_topics(broker, few_partitions(topics))
        yield broker
        with _kept_awake(broker):
            broker.close()


@contextmanager
def _kept_awake(broker: EmbeddedBroker) -> Iterator[None]:
    host, _, port = broker.bootstrap_servers.partition(",")[0].rpartition(":")
    over = threading.Event()

    def knock() -> None:
        while not over.wait(_KNOCK_SECONDS):
            with suppress(OSError):
                socket.create_connection((host, int(port)), timeout=1).close()

    thread = threading.Thread(target=knock)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
