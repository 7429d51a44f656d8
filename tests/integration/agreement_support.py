"""A mirror and a ledger that agree over one Kafka, with the parts of both services that see to it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from schemas import returns
from schemas.keys import EntityKey
from schemas.returns import Return
from services.consumer.digests import DigestReader
from services.publisher.changes import Change
from services.publisher.metrics import Metrics
from services.publisher.mirror.writer import MirrorWriter
from services.publisher.returns import Returns
from services.publisher.returns_log import ReturnsLog
from tests.integration.consumer.intake_support import Running, settings
from tests.integration.consumer.ledger_support import Ledger
from tests.integration.publisher.mirror.bench import Bench, eventually


@dataclass
class Pair:
    """Both sides at work."""

    bench: Bench
    writer: MirrorWriter
    ledger: Ledger
    intake: Running
    publisher_metrics: Metrics

    async def send(self, *changes: Change) -> None:
        """Changes go in, and have arrived in the ledger when this returns."""
        await self.writer.accept(changes, "test")
        await self.settled()

    async def settled(self) -> None:
        """What the mirror has is in the ledger."""
        await eventually(self._is_settled)

    async def _is_settled(self) -> bool:
        return self.versions("mirror") == self.versions("ledger")

    def versions(self, schema: str) -> dict[str, tuple[int, str]]:
        """By key."""
        rows = self.ledger.rows(f"select key, version, content_hash from {schema}.entity where version > 0")  # noqa: S608
        return {key: (version, digest) for key, version, digest in rows}

    def version(self, key: EntityKey, schema: str = "mirror") -> int:
        """0 without one."""
        return self.versions(schema).get(key.key, (0, ""))[0]

    async def round(self) -> None:
        """A round that begins now has been compared."""
        before = self._compared_at()
        await self.writer.ask_for_digests("test")

        async def compared() -> bool:
            return bool(self._compared_at() != before)

        await eventually(compared)

    def _compared_at(self) -> Any:
        return self.ledger.rows("select compared_at from digest_reading")

    async def reading(self) -> None:
        """The ledger's side has found its place in the topic of digests."""

        async def begun() -> bool:
            return bool(self.ledger.rows("select from digest_reading"))

        await eventually(begun)

    def returned(self) -> list[Return]:
        """Everything that the ledger ever sent to the mirror."""
        return [returns.decode(value) for value in read_all(self.bench, self.bench.topics.returns)]

    def difference(self, name: str) -> float:
        return self._sample("sis_digest_differences_total", name)

    def repaired(self, name: str) -> float:
        return self._sample("sis_digest_repaired_total", name)

    def _sample(self, name: str, difference: str) -> float:
        return self.intake.metrics.registry.get_sample_value(name, {"difference": difference}) or 0

    def seats(self) -> list[tuple[Any, ...]]:
        """All that the driver would act on."""
        return self.ledger.rows("select s.*, w.* from seat s left join work w using (target, seat) order by s.target, s.seat")


@asynccontextmanager
async def pair(bench: Bench, **consumer_settings: Any) -> AsyncIterator[Pair]:
    """Start everything, and stop it at the end."""
    ledger = Ledger(bench.database_url)
    chosen = settings(bench.database_url, bench.topics, digest_tell_again_seconds=0.2, **consumer_settings)
    async with bench.writer(digest_settled_seconds=0) as writer:
        metrics = Metrics()
        source = partial(ReturnsLog, bench.kafka, bench.topics, f"{bench.topics.prefix}-mirror")
        obeying = Returns(writer, source, metrics, 500)
        await obeying.start()
        intake = Running(bench.kafka, chosen)
        reader = DigestReader(chosen, bench.kafka, intake.metrics)
        thread = threading.Thread(target=reader.run, daemon=True)
        await asyncio.to_thread(intake.__enter__)
        thread.start()
        both = Pair(bench, writer, ledger, intake, metrics)
        try:
            await both.reading()
            yield both
        finally:
            reader.stop()
            await asyncio.to_thread(thread.join, 20)
            await asyncio.to_thread(intake.__exit__, None, None, None)
            await obeying.stop()
            ledger.connection.close()
            assert not thread.is_alive(), "the reader of digests does not stop"


def read_all(bench: Bench, topic: str) -> list[bytes]:
    """The values of a topic with one partition."""
    consumer = Consumer(bench.kafka.reader("all"))
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=10)
        consumer.assign([TopicPartition(topic, 0, low)])
        found: list[bytes] = []
        while low + len(found) < high:
            message = consumer.poll(10)
            assert message is not None
            assert message.error() is None
            found.append(message.value() or b"")
        return found
    finally:
        consumer.close()
