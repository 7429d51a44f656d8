"""Rule R1: a mirror that lost history takes it back before it writes; equal versions never occur."""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest

from schemas.keys import enrollment_key
from schemas.markers import Marker
from schemas.topics import Topics
from services.kit.kafka import KafkaSettings
from services.publisher.changes import Unavailable
from services.publisher.mirror.history import History
from services.publisher.mirror.writer import MirrorWriter
from services.sandbox.broker import EmbeddedBroker
from services.sandbox.postgres import EmbeddedPostgres
from tests.integration.publisher.mirror.bench import (
    Bench,
    LogReader,
    assert_no_ghost_and_no_twin,
    assignment,
    change,
    eventually,
    keep_what_was_issued,
    learner,
)

FAR = 4_000_000_000_000_000
"""A version of the year 2096."""
_MINUTE = 60_000_000


def _empty(bench: Bench) -> None:
    """The operator's fresh database under the old name."""
    with psycopg.connect(bench.database_url) as connection:
        connection.execute("drop schema mirror cascade")


def _sql(bench: Bench, statement: str, *values: object) -> None:
    with psycopg.connect(bench.database_url) as connection:
        connection.execute(statement.encode(), values)


def _marker(bench: Bench) -> Marker:
    marker = History(bench.kafka, bench.topics).newest_marker()
    assert marker is not None
    return marker


async def test_a_first_start_writes_a_marker_and_later_starts_find_it(bench: Bench) -> None:
    async with bench.writer():
        first = _marker(bench)
    async with bench.writer():
        assert _marker(bench) == first
    assert first.floor == 0


async def test_an_empty_new_mirror_takes_its_history_back_and_stays_above_the_log(bench: Bench, event_log: LogReader) -> None:
    async with bench.writer() as writer:
        await writer.accept([change("1", "enrolled", 5), change("2", "enrolled", 5)], "peoplesoft")
        _sql(bench, "update mirror.mirror set floor = %s", FAR)
        await writer.accept([change("1", "dropped", 6)], "peoplesoft")
    before = {person: event_log.of(learner(person))[-1] for person in "12"}
    assert before["1"].version == FAR + 1

    _empty(bench)
    async with bench.writer() as writer:
        keep_what_was_issued(bench.database_url)
        floor = _marker(bench).floor
        assert floor >= FAR + _MINUTE
        older = await writer.accept([change("1", "enrolled", 5)], "peoplesoft")
        assert older.unchanged == 1, "the row and its position are back"
        await writer.accept([change("1", "enrolled", 7)], "peoplesoft")
    assert event_log.statuses(learner("1")) == ["enrolled", "dropped", "dropped", "enrolled"]
    for person in "12":
        versions = [event.version for event in event_log.of(learner(person))]
        assert versions == sorted(set(versions))
        assert versions[-1] > floor, "every entity was emitted again"


async def test_a_recovery_never_repeats_an_old_state_above_the_floor(bench: Bench, event_log: LogReader) -> None:
    """A drop that follows an enrollment in the log is not preceded by the enrollment when it is emitted again."""
    people = [str(number) for number in range(700)]  # more than one chunk of the recovery
    async with bench.writer() as writer:
        await writer.accept([change(person, "enrolled", 1) for person in people], "peoplesoft")
        await writer.accept([change(person, "dropped", 2) for person in people], "peoplesoft")
        await writer.accept([assignment("1", "A", 1)], "peoplesoft")
        await writer.accept([assignment("1", "B", 2)], "peoplesoft")
    _empty(bench)
    async with bench.writer():
        floor = _marker(bench).floor
    again = [event for event in event_log.events() if event.version > floor and event.entity_key.parts[3] in people]
    assert len(again) == len(people)
    assert {getattr(event, "status", None) for event in again} == {"dropped"}
    for person, status in (("A", "dropped"), ("B", "enrolled")):
        key = enrollment_key("main", "PSUNV", "2258", "1001", person, "staff")
        assert [event.status for event in event_log.of(key) if event.version > floor] == [status]


async def test_a_restored_mirror_reads_on_from_where_it_was(
    bench: Bench, event_log: LogReader, postgres_server: EmbeddedPostgres
) -> None:
    async with bench.writer() as writer:
        await writer.accept([change("1", "enrolled", 1), change("2", "enrolled", 1)], "peoplesoft")
    name = re.search(r"/(test_\w+)", bench.database_url)
    assert name is not None
    backup = postgres_server.create_database(f"{name[1]}_backup", template=name[1])
    async with bench.writer() as writer:
        await writer.accept([change("1", "dropped", 2), change("3", "enrolled", 2)], "peoplesoft")
    newest = event_log.of(learner("1"))[-1].version

    restored = Bench(backup, bench.kafka, bench.topics, bench.folder)
    _sql(restored, "update mirror.mirror set timeline = timeline + 1")  # as a promotion or a restore leaves it
    async with restored.writer() as writer:
        assert (await writer.accept([change("1", "enrolled", 1)], "peoplesoft")).unchanged == 1
        assert (await writer.accept([change("3", "enrolled", 2)], "peoplesoft")).unchanged == 1
    last = event_log.of(learner("1"))[-1]
    assert (last.status, last.version > newest) == ("dropped", True)
    assert event_log.statuses(learner("2")) == ["enrolled"], "what the backup had is not read again"
    postgres_server.drop_database(f"{name[1]}_backup")


async def test_a_recovery_that_was_cut_short_begins_again(bench: Bench, event_log: LogReader) -> None:
    async with bench.writer() as writer:
        await writer.accept([change("1", "enrolled", 5)], "peoplesoft")
    _empty(bench)
    # As a kill in the middle leaves it: tables, a provisional floor, nothing else.
    async with bench.writer(open_it=False, fold_with=_broken):
        await eventually(lambda: _has_provisional_floor(bench))
    floor_before = _marker(bench).floor
    async with bench.writer() as writer:
        assert (await writer.accept([change("1", "enrolled", 5)], "peoplesoft")).unchanged == 1
    assert _marker(bench).floor > floor_before
    versions = [event.version for event in event_log.of(learner("1"))]
    assert versions == sorted(set(versions))


@pytest.fixture
def server_of_its_own() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL that this test may kill."""
    scratch = tempfile.TemporaryDirectory(prefix="enrollstream-tests-", ignore_cleanup_errors=True)
    with scratch as folder, EmbeddedPostgres(Path(folder) / "postgres") as server:
        yield server


async def test_a_crash_of_the_database_repeats_no_version(server_of_its_own: EmbeddedPostgres, tmp_path: Path) -> None:
    server = server_of_its_own
    names = Topics("crash")
    few = {name: min(partitions, 3) for name, partitions in names.all().items()}
    with EmbeddedBroker(few) as broker:
        kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, fetch_wait_max_ms=20, linger_ms=5)
        bench = Bench(server.create_database("mirror"), kafka, names, tmp_path)
        statuses = ("enrolled", "dropped")
        accepted: dict[str, str] = {}
        async with bench.writer(answer_within_seconds=2, delivery_timeout_seconds=1) as writer:
            keep_what_was_issued(bench.database_url)

            async def post(person: str) -> None:
                for number in range(60):
                    try:
                        await writer.accept([change(person, statuses[number % 2])], "peoplesoft")
                        accepted[person] = statuses[number % 2]
                    except Unavailable:
                        await asyncio.sleep(0.05)

            work = asyncio.gather(*(post(str(number)) for number in range(8)))
            for _ in range(2):
                await asyncio.sleep(0.4)
                await asyncio.to_thread(server.kill)
                await asyncio.to_thread(server.start_again)
            await work
            for person in accepted:
                await eventually(partial(_post, writer, person, "waitlisted"))
        log = LogReader(kafka, names)
        assert_no_ghost_and_no_twin(bench.database_url, log.events())
        assert {log.statuses(learner(person))[-1] for person in accepted} == {"waitlisted"}


async def test_another_database_behind_the_same_name_closes_the_intake(bench: Bench) -> None:
    async with bench.writer() as writer:
        await writer.accept([change("1")], "peoplesoft")
        _sql(bench, "update mirror.mirror set timeline = timeline + 1")
        _sql(
            bench,
            """select pg_terminate_backend(pid) from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid()""",
        )
        reasons = []
        for _ in range(3):
            try:
                await writer.accept([change("1")], "peoplesoft")
            except Unavailable as error:
                reasons.append(error.reason)
        assert "recovering" in reasons
        await asyncio.wait_for(writer.opened(), 30)
        await eventually(partial(_post, writer, "1", "enrolled"))
        assert _marker(bench).floor > 0


async def test_two_processes_that_start_at_once_open_one_mirror(bench: Bench) -> None:
    async with bench.writer(open_it=False) as one, bench.writer(open_it=False) as other:
        await asyncio.wait_for(asyncio.gather(one.opened(), other.opened()), 30)
        await asyncio.gather(one.accept([change("1")], "peoplesoft"), other.accept([change("2")], "peoplesoft"))
    assert _marker(bench).floor == 0


@pytest.mark.parametrize("kafka", ["embedded"], indirect=True)
async def test_without_kafka_the_mirror_stays_closed(bench: Bench) -> None:
    bench.kafka = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    async with bench.writer(open_it=False) as writer:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.opened(), 1)
        with pytest.raises(Unavailable, match="recovering"):
            await writer.accept([change("1")], "peoplesoft")


def _broken(*_: object) -> dict[str, object]:
    raise RuntimeError("as if killed here")


async def _has_provisional_floor(bench: Bench) -> bool:
    async with await psycopg.AsyncConnection.connect(bench.database_url) as connection:
        try:
            cursor = await connection.execute("select floor > 0 from mirror.mirror")
        except psycopg.errors.UndefinedTable:
            return False
        return await cursor.fetchone() == (True,)


async def _post(writer: MirrorWriter, person: str, status: str) -> bool:
    try:
        await writer.accept([change(person, status)], "peoplesoft")
    except Unavailable:
        return False
    return True
