"""Where reading begins, and what proves that the ledger has lost history."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.consumer.ledger.starting import CommitMetadata, InKafka, Start, judge
from services.kit.postgres import DatabaseIdentity

HERE = DatabaseIdentity("7000", 2)
ACTIVITY = 40


def of(*, system_id: str = "7000", timeline: int = 2, activity: int = 40) -> CommitMetadata:
    return CommitMetadata(DatabaseIdentity(system_id, timeline), activity)


@pytest.mark.parametrize(
    ("stored", "kafka", "start"),
    [
        (None, InKafka(None, None, 5, 90), Start(5, None, record=True)),
        (None, InKafka(30, of(), 5, 90), Start(5, "kafka_ahead", record=True)),
        (30, InKafka(30, of(), 5, 90), Start(30, None, record=False)),
        (30, InKafka(20, of(activity=3), 5, 90), Start(30, None, record=False)),
        (30, InKafka(None, None, 5, 90), Start(30, None, record=False)),
        (30, InKafka(31, of(), 5, 90), Start(30, "kafka_ahead", record=False)),
        (30, InKafka(31, None, 5, 90), Start(30, "kafka_ahead", record=False)),
        (30, InKafka(30, of(activity=41), 5, 90), Start(30, "activity", record=False)),
        (30, InKafka(30, of(timeline=1), 5, 90), Start(30, "database", record=False)),
        (30, InKafka(30, of(system_id="7001"), 5, 90), Start(30, "database", record=False)),
        (4, InKafka(4, of(), 5, 90), Start(5, "trimmed", record=True)),
        (91, InKafka(91, of(), 5, 90), Start(5, "log_shorter", record=True)),
        (90, InKafka(90, of(), 5, 90), Start(90, None, record=False)),
        (5, InKafka(None, None, 5, 5), Start(5, None, record=False)),
    ],
)
def test_where_it_begins(stored: int | None, kafka: InKafka, start: Start) -> None:
    assert judge(stored, kafka, HERE, ACTIVITY) == start


def test_an_offset_of_another_topic_with_this_name_means_nothing() -> None:
    new = InKafka(None, None, 0, 90)

    assert judge(None, new, HERE, ACTIVITY, recreated=True) == Start(0, "recreated", record=True)
    assert judge(None, new, HERE, ACTIVITY) == Start(0, None, record=True), "a first start, or a partition that was added"


@given(st.integers(0, 50), st.none() | st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_it_never_begins_behind_a_record_that_the_ledger_has_not_seen(
    stored: int, committed: int | None, low: int, more: int
) -> None:
    start = judge(stored, InKafka(committed, None, low, low + more), HERE, ACTIVITY)

    assert start.offset <= max(stored, low)
    if start.loss is None:
        assert start.offset == stored
        assert committed is None or committed <= stored


def test_the_metadata_survives_the_way_through_kafka() -> None:
    assert CommitMetadata.decode(of().encode()) == of()


@pytest.mark.parametrize("text", [None, "", "x", "[]", "{}", '{"s":"1"}', '{"s":1,"t":"x","a":2}', "null", "7"])
def test_what_somebody_else_wrote_is_not_ours(text: str | None) -> None:
    assert CommitMetadata.decode(text) is None
