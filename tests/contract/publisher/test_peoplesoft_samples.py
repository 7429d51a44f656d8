"""What PeopleSoft sends, and exactly what we make of it. Each sample is a message with invented people and its expected reading.

After a deliberate change: ``UPDATE_SAMPLES=1 pytest tests/contract/publisher/test_peoplesoft_samples.py``, then read the diff.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest

from services.publisher.changes import Change
from services.publisher.translate.peoplesoft import PeopleSoftContext, translate

SAMPLES = sorted((Path(__file__).parent / "samples").glob("*.xml"))
HEADERS = {"content-type": "text/xml; charset=UTF-8", "from": "PSFT_CS", "origtimestamp": "2026-11-23T08:15:30.000000-0600"}
CONTEXT = PeopleSoftContext("main", datetime(2026, 11, 23, 14, 15, 31, tzinfo=UTC), ZoneInfo("America/Chicago"))


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_sample_reads_as_expected(sample: Path) -> None:
    message = translate(sample.read_bytes(), HEADERS, CONTEXT)
    found = {
        "ping": message.ping,
        "changes": [_plain(change) for change in message.changes],
        "rejects": [{"reason": reject.reason, "detail": reject.detail, "columns": reject.columns} for reject in message.rejects],
    }
    expected = sample.with_suffix(".json")
    if os.environ.get("UPDATE_SAMPLES"):
        expected.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2) + b"\n")
    assert found == orjson.loads(expected.read_bytes())


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.stem)
def test_nothing_beyond_the_allow_list_leaves_the_parser(sample: Path) -> None:
    said = repr(translate(sample.read_bytes(), HEADERS, CONTEXT))
    for unwanted in ("never-keep-me", "2005-05-05", "quist017", "Former", "secret", "UNT_TAKEN", "CRSE_GRADE"):
        assert unwanted not in said


def _plain(change: Change) -> dict[str, Any]:
    entity = f"{change.entity.kind} {change.entity.key}" if change.entity else None
    order = [change.order.channel, change.order.position, "extract" if change.order.snapshot else "delta"]
    return {
        "record": change.record,
        "key": "/".join(change.key.values()),
        "columns": change.columns,
        "entity": entity,
        "order": order,
        "deleted": change.deleted,
    }
