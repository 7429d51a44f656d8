"""The intake over both brokers: nothing is skipped, nothing is counted twice, a bad record stops nothing but itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import orjson
import pytest
from confluent_kafka import Consumer, TopicPartition

from schemas import codec
from schemas.topics import Topics
from services.consumer.ledger import offsets, stops
from services.consumer.ledger.starting import CommitMetadata
from services.kit.kafka import KafkaSettings
from services.kit.postgres import identity
from tests.integration.consumer.intake_support import Running, Writer, commit_as_member, committed, eventually, settings
from tests.integration.consumer.ledger_support import Ledger, enrollment, seat, section_event
from tests.integration.consumer.replay_support import trim
from tests.kafka_clients import ends


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    ledger = Ledger(database_url)
    yield ledger
    ledger.check()
    ledger.close()


@pytest.fixture
def writer(kafka: KafkaSettings, topics: Topics) -> Writer:
    return Writer(kafka, topics)


def people(first: int, count: int) -> list[str]:
    return [f"9{number:06}" for number in range(first, first + count)]


def stored_everything(ledger: Ledger, kafka: KafkaSettings, topics: Topics) -> bool:
    topic = topics.entity("enrollment")
    rows = dict(ledger.rows('select "partition", next from intake_offset where topic = %s', topic))
    return rows == ends(kafka, topic)


def test_events_become_work_and_kafka_follows_the_ledger(
    kafka: KafkaSettings, topics: Topics, ledger: Ledger, writer: Writer
) -> None:
    with Running(kafka, settings(ledger.url, topics)) as running:
        writer.write(*(enrollment(person=person) for person in people(0, 50)), section_event())
        eventually(lambda: len(ledger.work()) == 50)

        eventually(lambda: set(running.handed_over) == set(ledger.work()))
        eventually(lambda: running.counted("taken") == 50 and running.counted("taken", "section") == 1)
        eventually(lambda: bool(committed(kafka, topics.prefix, topics.entity("enrollment"))))

    in_kafka = committed(kafka, topics.prefix, topics.entity("enrollment"))
    in_ledger = dict(ledger.rows('select "partition", next from intake_offset where topic = %s', topics.entity("enrollment")))
    assert {partition: in_ledger[partition] for partition in in_kafka} == {
        partition: one.offset for partition, one in in_kafka.items()
    }
    told = CommitMetadata.decode(next(iter(in_kafka.values())).metadata)
    assert told is not None
    assert told.identity == identity(ledger.connection)
    assert 0 < told.activity <= offsets.last_activity(ledger.connection)


def test_it_goes_on_where_the_ledger_stands(kafka: KafkaSettings, topics: Topics, ledger: Ledger, writer: Writer) -> None:
    for start in (0, 20):
        with Running(kafka, settings(ledger.url, topics)) as running:
            writer.write(*(enrollment(person=person) for person in people(start, 20)))
            eventually(lambda: stored_everything(ledger, kafka, topics))
            assert running.counted("duplicate") == 0

    assert len(ledger.desired()) == 40
    assert ledger.rows("select active from recovery") == [(False,)]


def test_kafkas_offset_ahead_of_the_ledgers_skips_nothing_and_is_believed_to_be_a_loss(
    kafka: KafkaSettings, topics: Topics, ledger: Ledger, writer: Writer
) -> None:
    topic = topics.entity("enrollment")
    with Running(kafka, settings(ledger.url, topics)):
        writer.write(*(enrollment(person=person) for person in people(0, 20)))
        eventually(lambda: stored_everything(ledger, kafka, topics))
    ledger.settle()
    ledger.connection.execute("insert into lease values ('canvas', 'somebody', 1, clock_timestamp() + interval '1 hour')")
    writer.write(*(enrollment(person=person) for person in people(20, 20)))
    commit_as_member(kafka, topics.prefix, [TopicPartition(topic, one, end) for one, end in ends(kafka, topic).items()])

    with Running(kafka, settings(ledger.url, topics)):
        eventually(lambda: stored_everything(ledger, kafka, topics))

        eventually(lambda: ledger.rows("select behind from recovery") == [(False,)])

    assert len(ledger.desired()) == 40, "the records between the two offsets were read"
    assert ledger.rows("select active, reason from recovery") == [(True, "kafka_ahead")]
    assert ledger.rows("select count(*) from lease") == [(0,)], "whoever drove on the lost history has to stop"
    before = ledger.rows(
        """select distinct s.applied, s.mark, s.suspect_until is not null, w.read_first
             from seat s join work w using (target, seat) where s.person < '9000020'"""
    )
    assert before == [("unknown", 1, True, True)]


def test_an_empty_ledger_beside_a_group_with_progress_reads_everything_again(
    kafka: KafkaSettings, topics: Topics, ledger: Ledger, writer: Writer
) -> None:
    topic = topics.entity("enrollment")
    writer.write(*(enrollment(person=person) for person in people(0, 20)))
    commit_as_member(kafka, topics.prefix, [TopicPartition(topic, one, end) for one, end in ends(kafka, topic).items()])

    with Running(kafka, settings(ledger.url, topics)):
        eventually(lambda: stored_everything(ledger, kafka, topics))

    assert len(ledger.desired()) == 20
    assert ledger.rows("select active, reason from recovery") == [(True, "kafka_ahead")]


@pytest.mark.parametrize(
    ("changes", "reason"), [({"a": 10**6}, "activity"), ({"s": "another"}, "database"), ({"t": 99}, "database")]
)
def test_a_commit_of_another_history_is_recognised_by_its_metadata(
    kafka: KafkaSettings, topics: Topics, ledger: Ledger, writer: Writer, changes: dict[str, object], reason: str
) -> None:
    topic = topics.entity("enrollment")
    with Running(kafka, settings(ledger.url, topics)):
        writer.write(*(enrollment(person=person) for person in people(0, 20)))
        eventually(lambda: stored_everything(ledger, kafka, topics))
    current = identity(ledger.connection)
    data = {"s": current.system_id, "t": current.timeline, "a": 1} | changes
    metadata = orjson.dumps(data).decode()
    commit_as_member(kafka, topics.prefix, [TopicPartition(topic, one, end, metadata) for one, end in ends(kafka, topic).items()])

    with Running(kafka, settings(ledger.url, topics)):
        pass

    assert ledger.rows("select active, reason from recovery") == [(True, reason)]


def test_a_trimmed_log_starts_at_its_beginning_in_recovery(
    kafka: KafkaSettings, topics: Topics, ledger: Ledger, writer: Writer, request: pytest.FixtureRequest
) -> None:
    topic = topics.entity("enrollment")
    with Running(kafka, settings(ledger.url, topics)):
        writer.write(*(enrollment(person=person) for person in people(0, 20)))
        eventually(lambda: stored_everything(ledger, kafka, topics))
    ledger.settle()
    writer.write(*(enrollment("dropped", person=person, version=2) for person in people(0, 20)))
    keep = {one: end - 1 for one, end in ends(kafka, topic).items()}
    for partition, offset in keep.items():
        trim(request, kafka, topic, offset, partition)

    with Running(kafka, settings(ledger.url, topics)):
        eventually(lambda: stored_everything(ledger, kafka, topics))

    assert ledger.rows("select active, reason from recovery") == [(True, "trimmed")]
    assert list(ledger.desired().values()).count("deleted") == len(keep), "only what the log still had could be known"


def test_a_bad_record_goes_to_the_dead_letters_and_its_neighbours_are_stored(
    kafka: KafkaSettings, topics: Topics, ledger: Ledger, writer: Writer
) -> None:
    poison = [
        b"\xff\xfe not json",
        b"{}",
        None,
        codec.encode(enrollment(person="p")).replace(b'"p"', b'"\\u0000"'),
        codec.encode(enrollment()).replace(b'"version":1', b'"version":' + b"9" * 30),
        codec.encode(enrollment(person="refused")),
    ]
    # The contract keeps out what PostgreSQL is known not to store; what else there may be must not stop a partition either.
    ledger.connection.execute("alter table entity add check (person <> 'refused')")
    for value in poison:
        writer.raw(value, headers=[("trace", "x")])
    with Running(kafka, settings(ledger.url, topics)) as running:
        writer.write(*(enrollment(person=person) for person in people(0, 20)))
        eventually(lambda: stored_everything(ledger, kafka, topics))
        eventually(lambda: running.counted("undecodable") == len(poison))

    assert len(ledger.desired()) == 20
    letters = read_all(kafka, topics.dead_letter(topics.entity("enrollment")))
    assert sorted(repr(value) for value, _ in letters) == sorted(map(repr, poison))
    headers = dict(letters[0][1])
    assert headers["trace"] == b"x"
    assert headers["__connect.errors.topic"] == topics.entity("enrollment").encode()
    assert headers["__connect.errors.partition"] == b"0"
    assert {dict(each)["__connect.errors.offset"] for _, each in letters} == {str(one).encode() for one in range(len(poison))}
    reasons = {dict(each)["__connect.errors.exception.class.name"] for _, each in letters}
    assert reasons == {b"not_json", b"schema_invalid", b"tombstone", b"refused_by_ledger"}
    assert len(ledger.history("undecodable")) == len(poison)


def test_a_record_too_large_to_be_written_again_holds_nothing_up(
    kafka: KafkaSettings, topics: Topics, ledger: Ledger, writer: Writer
) -> None:
    writer.raw(b"x" * 980_000, headers=[("large", "h" * 15_000)])  # with our own headers it is over the producer's limit
    with Running(kafka, settings(ledger.url, topics)):
        writer.write(*(enrollment(person=person) for person in people(0, 3)))
        eventually(lambda: stored_everything(ledger, kafka, topics))

    ((value, found),) = read_all(kafka, topics.dead_letter(topics.entity("enrollment")))
    headers = dict(found)
    assert value is None
    assert headers["enrollstream.value_bytes"] == b"980000"
    assert headers["__connect.errors.offset"] == b"0"


def test_a_flood_of_bad_records_stops_the_line_until_a_person_lets_it_go_on(
    kafka: KafkaSettings, topics: Topics, ledger: Ledger, writer: Writer
) -> None:
    limited = settings(ledger.url, topics, dead_letter_limit=5, dead_letter_window=20)
    enrollments = topics.entity("enrollment")
    for number in range(12):
        writer.raw(b"bad %d" % number)
    writer.write(*(enrollment(person=person) for person in people(0, 5)))
    with Running(kafka, limited) as running:
        eventually(lambda: not running.intake.status.ready()["flowing"])
        assert running.intake.status.reasons()["flowing"].startswith(f"6 of the last 6 records of {enrollments} [0]")
        assert len(read_all(kafka, topics.dead_letter(enrollments))) < 12

        (stop,) = stops.every(ledger.connection)
        stops.divert(ledger.connection, stop.place, 12)
        eventually(lambda: stored_everything(ledger, kafka, topics))
        eventually(lambda: running.ready)

    assert len(ledger.desired()) == 5
    assert len(read_all(kafka, topics.dead_letter(enrollments))) == 12
    assert stops.every(ledger.connection) == []


def test_a_record_for_a_newer_reader_is_parked_and_released_by_the_upgrade(
    kafka: KafkaSettings, topics: Topics, ledger: Ledger, writer: Writer
) -> None:
    known = codec.encode(enrollment("dropped", version=7))
    writer.raw(known.replace(b'"dropped"', b'"on_leave"'))
    with Running(kafka, settings(ledger.url, topics)) as running:
        eventually(lambda: running.counted("parked") == 1)
    assert ledger.rows('select reason, "offset" from parked') == [("status", 0)]
    assert ledger.desired() == {}

    ledger.connection.execute("update parked set value = %s", [known])  # what an upgraded reader makes of the same bytes
    with Running(kafka, settings(ledger.url, topics)):
        eventually(lambda: ledger.desired() == {seat(): "deleted"})

    assert ledger.rows("select count(*) from parked") == [(0,)]


def test_two_members_share_the_partitions_and_a_stopped_ones_part_moves_over(
    kafka: KafkaSettings, topics: Topics, ledger: Ledger, writer: Writer
) -> None:
    shared = settings(ledger.url, topics)
    with Running(kafka, shared) as first:
        writer.write(*(enrollment(person=person) for person in people(0, 30)))
        with Running(kafka, shared) as second:
            eventually(lambda: (second.metrics.registry.get_sample_value("sis_consumer_assigned_partitions") or 0) > 0)
            writer.write(*(enrollment("dropped", version=2, person=person) for person in people(0, 30)))
            eventually(lambda: stored_everything(ledger, kafka, topics))
            writer.write(*(enrollment(version=3, person=person) for person in people(0, 30)))
        eventually(lambda: stored_everything(ledger, kafka, topics), 60)
        assert first.error is None

    assert set(ledger.desired().values()) == {"active"}
    assert ledger.rows("select active from recovery") == [(False,)]


def classic(kafka: KafkaSettings) -> KafkaSettings:
    return kafka.model_copy(update={"group_protocol": "classic"})


def test_the_classic_group_protocol_does_it_as_well(kafka: KafkaSettings, topics: Topics, ledger: Ledger, writer: Writer) -> None:
    with Running(classic(kafka), settings(ledger.url, topics)):
        writer.write(*(enrollment(person=person) for person in people(0, 20)))
        eventually(lambda: stored_everything(ledger, kafka, topics))

    assert len(ledger.desired()) == 20
    assert ledger.rows("select active from recovery") == [(False,)]


# Not on the mock cluster: with librdkafka alone a second classic member had not joined after 70 s, and one that follows another
# waited 44 s, the session's length.
@pytest.mark.parametrize("kafka", [pytest.param("real", marks=pytest.mark.kafka)], indirect=True)
def test_two_classic_members_share_the_partitions(kafka: KafkaSettings, topics: Topics, ledger: Ledger, writer: Writer) -> None:
    with Running(classic(kafka), settings(ledger.url, topics)) as first:
        with Running(classic(kafka), settings(ledger.url, topics)):
            writer.write(*(enrollment("dropped", person=person) for person in people(0, 20)))
            eventually(lambda: stored_everything(ledger, kafka, topics), 60)
        writer.write(*(enrollment(version=2, person=person) for person in people(0, 20)))
        eventually(lambda: stored_everything(ledger, kafka, topics), 60)
        assert first.error is None

    assert set(ledger.desired().values()) == {"active"}
    assert ledger.rows("select active from recovery") == [(False,)]


def test_an_idle_member_notices_that_the_ledger_went_back(
    kafka: KafkaSettings, topics: Topics, ledger: Ledger, writer: Writer
) -> None:
    with Running(kafka, settings(ledger.url, topics)) as running:
        writer.write(*(enrollment(person=person) for person in people(0, 20)))
        eventually(lambda: stored_everything(ledger, kafka, topics))
        eventually(lambda: bool(committed(kafka, topics.prefix, topics.entity("enrollment"))))

        # A restore: the ledger stands where it stood before.
        ledger.connection.execute("""truncate entity, entitlement, seat, work, person; update intake_offset set next = 0;""")

        eventually(lambda: running.conflicts() > 0)
        eventually(lambda: stored_everything(ledger, kafka, topics), 60)
        eventually(lambda: len(ledger.desired()) == 20)

    assert ledger.rows("select active, reason from recovery") == [(True, "kafka_ahead")]


def test_a_recreated_topic_is_read_from_its_start(kafka: KafkaSettings, topics: Topics, ledger: Ledger, writer: Writer) -> None:
    """Another topic id: the ledger's offsets of the old one mean nothing."""
    with Running(kafka, settings(ledger.url, topics)):
        writer.write(*(enrollment(person=person) for person in people(0, 20)))
        eventually(lambda: stored_everything(ledger, kafka, topics))
    ledger.connection.execute("update intake_offset set topic_id = 'old ' || topic_id")

    with Running(kafka, settings(ledger.url, topics)) as running:
        eventually(lambda: running.counted("duplicate") == 20)

    assert ledger.rows("select active from recovery") == [(True,)]


def read_all(kafka: KafkaSettings, topic: str) -> list[tuple[bytes | None, list[tuple[str, bytes]]]]:
    consumer = Consumer(kafka.reader("letters"))
    try:
        expected = ends(kafka, topic)
        consumer.assign([TopicPartition(topic, one, 0) for one in expected])
        found: list[tuple[bytes | None, list[tuple[str, bytes]]]] = []
        eventually(lambda: _read_more(consumer, found) >= sum(expected.values()))
        return found
    finally:
        consumer.close()


def _read_more(consumer: Consumer, found: list[tuple[bytes | None, list[tuple[str, bytes]]]]) -> int:
    message = consumer.poll(0.2)
    if message is not None and message.error() is None:
        headers = cast("list[tuple[str, bytes]]", message.headers() or [])
        found.append((message.value(), headers))
    return len(found)
