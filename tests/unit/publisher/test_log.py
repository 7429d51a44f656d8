"""Sending to Kafka: what a cancelled sender does."""

from __future__ import annotations

import asyncio

import pytest

from services.kit.kafka import KafkaSettings
from services.publisher.log import Delivered, KafkaLog, Record

RECORD = Record("topic", b"key", b"value", [])


class Unsent(KafkaLog):
    """Hands every record to nobody; the test says what became of it."""

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._producer = None  # type: ignore[assignment]

    def _produce(self, producer: object, record: Record, batch: object, number: int) -> None:
        self.batch = batch


@pytest.mark.parametrize("turns", range(4))
async def test_whoever_is_cancelled_just_after_the_acknowledgement_ends(turns: int) -> None:
    """`asyncio.wait_for` of Python 3.11 returns the result instead: a loop that is to stop would go on for ever."""
    log = Unsent(KafkaSettings(bootstrap_servers="127.0.0.1:1"), 1000, "probe")
    await log.start()
    sending = asyncio.create_task(log.send([RECORD]))
    await asyncio.sleep(0)
    log.batch.settle(0, Delivered(0, 0))  # type: ignore[attr-defined]
    for _ in range(turns):
        await asyncio.sleep(0)

    if sending.cancel():
        with pytest.raises(asyncio.CancelledError):
            await sending
    else:
        assert await sending == [Delivered(0, 0)]
