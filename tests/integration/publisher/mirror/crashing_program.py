"""A publisher's mirror in a process of its own, for tests that kill it: posts one change and says how that went."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from schemas.topics import Topics
from services.kit import logs
from services.kit.kafka import KafkaSettings
from services.publisher.changes import Unavailable
from tests.integration.publisher.mirror.bench import Bench, change


async def main(database_url: str, servers: str, prefix: str, folder: str, person: str, position: str) -> None:
    """Post one change of one person."""
    logs.configure("test")
    kafka = KafkaSettings(bootstrap_servers=servers, fetch_wait_max_ms=20, linger_ms=5)
    async with Bench(database_url, kafka, Topics(prefix), Path(folder)).writer() as writer:
        try:
            await writer.accept([change(person, position=int(position))], "peoplesoft")
            print("accepted", flush=True)
        except Unavailable as error:
            print(error.reason, flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
