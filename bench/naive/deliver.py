"""A concurrent consumer: a task per record. (A serial one manages 6.5 calls a second at 150 ms.)"""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import uvloop
from confluent_kafka import Consumer

from bench.naive.handler import Handler
from schemas.topics import Topics
from services.kit.kafka import KafkaSettings


async def deliver() -> None:
    """Until SIGTERM."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    handler = Handler(os.environ["CANVAS_URL"])
    prefix = Topics(os.environ["TOPIC_PREFIX"]).prefix
    consumer = Consumer(KafkaSettings().client() | {"group.id": f"{prefix}-naive", "auto.offset.reset": "earliest"})
    consumer.subscribe([f"{prefix}.naive"])
    tasks: set[asyncio.Task[None]] = set()

    def apply(value: bytes) -> None:
        task = loop.create_task(handler.apply(value))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def poll() -> None:
        while not stopped.is_set():
            message = consumer.poll(0.5)
            if message is not None and message.error() is None:
                loop.call_soon_threadsafe(apply, message.value() or b"")
        consumer.close()

    thread = threading.Thread(target=poll)
    thread.start()
    await stopped.wait()
    thread.join()


if __name__ == "__main__":
    uvloop.run(deliver())
