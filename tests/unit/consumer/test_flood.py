"""When too many records cannot be used to believe that it is their fault."""

from __future__ import annotations

from schemas.topics import Topics
from services.consumer.intake.flood import Flood, FloodGauge, Limit
from services.consumer.log.records import Place, Record

TOPIC = Topics("t").entity("enrollment")
ONE, TWO = Place(TOPIC, 0), Place(TOPIC, 1)


def records(place: Place, first: int, end: int) -> list[Record]:
    return [Record(place, offset, None, b"") for offset in range(first, end)]


def bad(place: Place, *offsets: int) -> set[tuple[Place, int]]:
    return {(place, offset) for offset in offsets}


def test_a_few_bad_records_are_none() -> None:
    gauge = FloodGauge(Limit(3, 100, 0.2))

    assert gauge.flood(records(ONE, 0, 50), bad(ONE, 1, 2, 3)) is None
    assert gauge.flood(records(ONE, 0, 50), bad(ONE, *range(40, 50))) is None, "more than three, but not a fifth of them"


def test_it_is_noticed_at_the_record_that_is_one_too_many_and_before_anything_is_set_aside() -> None:
    gauge = FloodGauge(Limit(3, 100, 0.2))

    assert gauge.flood(records(ONE, 0, 50), bad(ONE, *range(5, 50))) == Flood(ONE, 8, 4, 9)
    assert gauge.flood(records(ONE, 0, 8), bad(ONE, *range(5, 8))) is None, "asking changes nothing"


def test_partitions_are_counted_apart_and_across_batches() -> None:
    gauge = FloodGauge(Limit(3, 100, 0.2))
    gauge.note([*records(ONE, 0, 4), *records(TWO, 0, 4)], bad(ONE, 0, 1) | bad(TWO, 0, 1))

    assert gauge.flood(records(ONE, 4, 5), bad(ONE, 4)) is None
    gauge.note(records(ONE, 4, 5), bad(ONE, 4))
    assert gauge.flood(records(ONE, 5, 6), bad(ONE, 5)) == Flood(ONE, 5, 4, 6)
    assert gauge.flood(records(TWO, 4, 5), bad(TWO, 4)) is None


def test_only_the_window_counts() -> None:
    gauge = FloodGauge(Limit(3, 10, 0.2))
    gauge.note(records(ONE, 0, 3), bad(ONE, 0, 1, 2))
    gauge.note(records(ONE, 3, 13), set())

    assert gauge.flood(records(ONE, 13, 16), bad(ONE, 13, 14, 15)) is None


def test_what_a_person_let_pass_is_not_counted() -> None:
    gauge = FloodGauge(Limit(3, 100, 0.2))
    gauge.begin_anew(ONE, allowed_before=20)

    assert gauge.flood(records(ONE, 0, 20), bad(ONE, *range(20))) is None
    gauge.note(records(ONE, 0, 20), bad(ONE, *range(20)))
    assert gauge.flood(records(ONE, 20, 30), bad(ONE, *range(20, 30))) == Flood(ONE, 23, 4, 4)


def test_a_partition_that_left_is_forgotten() -> None:
    gauge = FloodGauge(Limit(3, 100, 0.2))
    gauge.note(records(ONE, 0, 3), bad(ONE, 0, 1, 2))
    gauge.forget([ONE])

    assert gauge.flood(records(ONE, 3, 6), bad(ONE, 3, 4, 5)) is None
