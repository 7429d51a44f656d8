"""Who hears of committed work."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.consumer.ledger import announcing, database
from services.consumer.nouns import WORK_CHANNEL
from tests.integration.consumer.ledger_support import Ledger, seat


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    it = Ledger(database_url)
    yield it
    it.close()


@pytest.mark.parametrize(("driven_here", "payloads"), [(False, ["canvas", "end"]), (True, ["end"])])
def test_other_processes_are_told_unless_this_one_drives(ledger: Ledger, driven_here: bool, payloads: list[str]) -> None:
    with database.connect(ledger.url) as other:
        other.execute(f"listen {WORK_CHANNEL}")
        announcing.tell(ledger.connection, [seat()], lambda _: driven_here)
        announcing.tell(ledger.connection, [], lambda _: False)
        ledger.connection.execute("select pg_notify(%s, 'end')", [WORK_CHANNEL])

        assert [told.payload for told in other.notifies(timeout=5, stop_after=len(payloads))] == payloads
