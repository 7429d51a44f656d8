"""FastAPI: parse the rowset, one Kafka record a row, answer when Kafka has them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator

import orjson
import uvicorn
from confluent_kafka import KafkaError, Message, Producer
from defusedxml.ElementTree import fromstring
from fastapi import FastAPI, Request, Response

from schemas.topics import Topics
from services.kit.kafka import KafkaSettings

TOPIC = Topics(os.environ["TOPIC_PREFIX"]).prefix + ".naive"
producer = Producer(KafkaSettings().producer(6000))


@contextlib.asynccontextmanager
async def _polling(_: FastAPI) -> AsyncIterator[None]:
    task = asyncio.create_task(_poll())
    yield
    task.cancel()


async def _poll() -> None:
    while True:
        await asyncio.to_thread(producer.poll, 0.1)


app = FastAPI(lifespan=_polling)


@app.get("/readyz")
async def ready() -> Response:
    """Always."""
    return Response()


@app.post("/intake/peoplesoft")
async def intake(request: Request) -> Response:
    """202 when every row is acknowledged."""
    loop = asyncio.get_running_loop()
    waiting = []
    for row in fromstring(await request.body()).iter("STDNT_ENRL"):
        fields = {field.tag: field.text for field in row}
        person = fields.get("EMPLID")
        if person is None:
            continue  # the description of the fields at the head of the message
        acknowledged: asyncio.Future[None] = loop.create_future()
        producer.produce(TOPIC, orjson.dumps(fields), person, on_delivery=_Report(loop, acknowledged))
        waiting.append(acknowledged)
    await asyncio.gather(*waiting)
    return Response(status_code=202)


class _Report:
    def __init__(self, loop: asyncio.AbstractEventLoop, future: asyncio.Future[None]) -> None:
        self._loop = loop
        self._future = future

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        self._loop.call_soon_threadsafe(self._future.set_result, None)


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["PORT"]), loop="uvloop", log_level="warning", access_log=False)
