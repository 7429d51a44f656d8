"""The naive chain's handler under FastStream: what a team that likes frameworks would run."""

from __future__ import annotations

import asyncio
import os

import uvloop
from faststream import FastStream
from faststream.confluent import KafkaBroker, KafkaMessage

from bench.naive.handler import Handler
from schemas.topics import Topics
from services.kit.kafka import KafkaSettings


async def main() -> None:
    """Until SIGTERM."""
    prefix = Topics(os.environ["TOPIC_PREFIX"]).prefix
    handler = Handler(os.environ["CANVAS_URL"])
    broker = KafkaBroker(KafkaSettings().bootstrap_servers, logger=None)
    tasks: set[asyncio.Task[None]] = set()

    @broker.subscriber(f"{prefix}.naive", group_id=f"{prefix}-peer", auto_offset_reset="earliest")
    async def apply(message: KafkaMessage) -> None:
        task = asyncio.create_task(handler.apply(message.body))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    await FastStream(broker).run()


if __name__ == "__main__":
    uvloop.run(main())
