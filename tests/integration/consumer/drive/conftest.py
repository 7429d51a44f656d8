"""A ledger per test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.consumer.drive.drive_support import ScriptedLms, SeatLedger, Told


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
