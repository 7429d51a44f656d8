"""A driver of Canvas as a process of its own, for tests that stop it: `python -m … DATABASE_URL CANVAS_URL TOKEN_FILE`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import uvloop

from services.consumer.drive.driver import Driver
from services.consumer.ledger.policies import Policies
from services.consumer.metrics import Metrics
from services.consumer.targets.canvas.client import CanvasClient
from services.consumer.targets.canvas.target import CanvasTarget
from services.kit.credentials import SecretFile
from tests.integration.consumer.drive.drive_support import TARGET, Timing

TIMING = Timing()


async def main(database_url: str, canvas_url: str, token_file: str) -> None:
    """Drive until killed."""
    target = CanvasTarget(CanvasClient(canvas_url, SecretFile(Path(token_file))), "self", TIMING.call_timeout_seconds)
    await asyncio.create_task(Driver(TIMING, database_url, TARGET, target, Policies(TARGET), Metrics()).run())


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
