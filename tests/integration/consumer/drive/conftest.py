"""A ledger per test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.sandbox.canvas.server import CanvasServer
from tests.integration.consumer.drive.drive_support import ScriptedLms, SeatLedger, Told
from tests.integration.consumer.drive.provision_support import ALL, Campus
from tests.serving import serving


@pytest.fixture
def ledger(database_url: str) -> Iterator[SeatLedger]:
    ledger = SeatLedger(database_url)
    yield ledger
    ledger.close()


@pytest.fixture
def lms() -> ScriptedLms:
    return ScriptedLms()


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def campus(ledger: SeatLedger, tmp_path: Path) -> Iterator[Campus]:
    """An empty Canvas, and a policy that makes everything."""
    with serving(CanvasServer()) as server:
        campus = Campus(ledger, server, tmp_path)
        campus.policy(*ALL)
        yield campus
