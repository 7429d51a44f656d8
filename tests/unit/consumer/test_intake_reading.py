"""What a member of the group has in its hands."""

from __future__ import annotations

from schemas.topics import Topics
from services.consumer.intake.reading import Reading, before, sort_out, without_repetition
from services.consumer.ledger.offsets import LogPartition, Span
from services.consumer.log.records import Place, Record

TOPICS = Topics("t")
ONE, TWO = Place(TOPICS.entity("enrollment"), 0), Place(TOPICS.entity("enrollment"), 1)


def reading() -> Reading:
    return Reading({ONE: 10, TWO: 20}, {ONE.topic: "id"})


def record(place: Place, offset: int) -> Record:
    return Record(place, offset, None, b"?")


def test_a_span_begins_where_we_stood_whatever_the_log_left_out() -> None:
    spans = reading().spans([record(ONE, 15), record(TWO, 20), record(ONE, 17)])

    assert spans == [Span(LogPartition("id", *ONE), 10, 18), Span(LogPartition("id", *TWO), 20, 21)]


def test_a_record_of_a_partition_without_a_position_is_left_to_come_again() -> None:
    mine = reading()

    mine.hold([record(ONE, 10), record(Place(ONE.topic, 2), 5)])

    assert mine.held == [record(ONE, 10)]


def test_what_is_revoked_is_forgotten_with_everything_in_hand() -> None:
    mine = reading()
    mine.hold([record(ONE, 10), record(TWO, 20)])
    mine.blocked = {ONE, TWO}

    mine.forget([ONE])

    assert (mine.positions, mine.held, mine.blocked) == ({TWO: 20}, [record(TWO, 20)], {TWO})


def test_a_blocked_partition_waits_and_the_others_go_on() -> None:
    mine = reading()
    mine.hold([record(ONE, 10), record(TWO, 20), record(ONE, 11), record(TWO, 21)])
    mine.blocked = {ONE}

    assert mine.next(10) == [record(TWO, 20), record(TWO, 21)]

    mine.stored({TWO: 21})
    assert (mine.positions, mine.next(10)) == ({ONE: 10, TWO: 21}, [record(TWO, 21)])


def test_of_a_partition_whose_letter_is_missing_only_what_comes_before_is_stored() -> None:
    records = [record(ONE, 10), record(TWO, 20), record(ONE, 11), record(ONE, 12), record(TWO, 21)]

    assert before(records, {(ONE, 12), (ONE, 11)}) == [record(ONE, 10), record(TWO, 20), record(TWO, 21)]


def test_what_nobody_can_decode_is_for_the_dead_letters_and_still_moves_the_offset() -> None:
    batch, letters = sort_out([record(ONE, 10)], reading(), TOPICS)

    assert [(letter.reason, letter.record.offset) for letter in letters] == [("not_json", 10)]
    assert [(one.offset, one.reason) for one in batch.undecodable] == [(10, "not_json")]
    assert batch.spans == [Span(LogPartition("id", *ONE), 10, 11)]


def test_of_no_key_more_than_one_record_goes_into_a_batch_that_must_not_skip_a_version() -> None:
    def keyed(offset: int, key: bytes | None, place: Place = ONE) -> Record:
        return Record(place, offset, key, b"?")

    section = Place(TOPICS.entity("section"), 0)
    records = [keyed(1, b"a"), keyed(2, None), keyed(3, b"b"), keyed(1, b"a", section), keyed(4, b"a"), keyed(5, b"c")]

    assert without_repetition(records) == records[:4]
    assert without_repetition(records[4:]) == records[4:]
