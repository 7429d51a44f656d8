"""What can be done with each offset of a batch before the ledger is asked."""

from __future__ import annotations

from datetime import UTC, datetime

from schemas import codec
from schemas.events import TermEvent
from services.consumer.ledger.replays import Judged, Range
from services.consumer.replay.log import LogRecord, Missing
from services.consumer.replay.steps import set_aside, sort_out

NOW = datetime(2026, 9, 1, tzinfo=UTC)
PLACE = Range("t.term.v1", "topic-id", 3, 0, 99, 0)
TERM = TermEvent(
    tenant="main", version=1, content_hash="0" * 32, accepted_at=NOW, institution="PSUNV", term="1259", status="active"
)


def test_every_offset_is_an_arrival_or_has_its_verdict() -> None:
    value = codec.encode(TERM)
    newer = value.replace(b'"active"', b'"planned"')

    batch = sort_out(
        PLACE,
        "term",
        [
            Missing(4, "expired"),
            LogRecord(5, b"k", value),
            LogRecord(6, None, None),
            LogRecord(7, None, b"{"),
            LogRecord(8, b"k", newer),
            Missing(9, "absent"),
        ],
    )

    assert (batch.first, batch.end) == (4, 10)
    assert [(one.event, one.topic, one.partition, one.offset) for one in batch.arrivals] == [(TERM, "t.term.v1", 3, 5)]
    assert batch.judged == [
        Judged(4, "expired"),
        Judged(6, "undecodable", "tombstone"),
        Judged(7, "undecodable", "not_json"),
        Judged(8, "parked", "status"),
        Judged(9, "absent"),
    ]
    assert [(one.place, one.offset, one.key, one.value) for one in batch.parked] == [
        (("topic-id", "t.term.v1", 3), 8, b"k", newer)
    ]


def test_a_record_that_the_database_refuses_gets_a_verdict_too() -> None:
    batch = set_aside(LogRecord(7, None, b"{}"))

    assert (batch.first, batch.end, batch.arrivals, batch.judged) == (7, 8, [], [Judged(7, "undecodable", "refused_by_ledger")])
