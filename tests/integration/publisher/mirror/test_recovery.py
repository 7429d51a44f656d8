"""Rule R1: a mirror that lost history takes it back before it writes; equal versions never occur."""

from __future__ import annotations

import asyncio
import random
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from schemas import codec
from schemas.keys import EntityKey, EntityKind, enrollment_key, record_key
from schemas.markers import Marker
from schemas.topics import Topics
from services.kit.kafka import KafkaSettings
from services.publisher.changes import Change, MirrorRow, Unavailable
from services.publisher.mirror.history import History
from services.publisher.mirror.recovery import Recovery
from services.publisher.mirror.republish import Scope
from services.publisher.mirror.store import Store
from services.publisher.mirror.writer import MirrorWriter
from services.sandbox.postgres import EmbeddedPostgres
from tests.embedded import embedded_broker_with
from tests.integration.publisher.mirror.bench import (
    Bench,
    LogReader,
    assert_no_ghost_and_no_twin,
    assignment,
    change,
    empty,
    eventually,
    fold,
    keep_what_was_issued,
    learner,
    run_and_kill,
)
from tests.kafka_clients import producer

FAR = 4_000_000_000_000_000
"""A version of the year 2096."""
_MINUTE = 60_000_000


def _sql(bench: Bench, statement: str, *values: object) -> None:
    with psycopg.connect(bench.database_url) as connection:
        connection.execute(statement.encode(), values)


def _marker(bench: Bench) -> Marker:
    marker = History(bench.kafka, bench.topics).newest_marker()
    assert marker is not None
    return marker


async def test_a_first_start_writes_a_marker_and_later_starts_find_it(bench: Bench) -> None:
    empty(bench)
    async with bench.writer():
        first = _marker(bench)
    async with bench.writer():
        assert _marker(bench) == first
    assert first.floor == 0


async def test_an_empty_new_mirror_takes_its_history_back_and_stays_above_the_log(bench: Bench, event_log: LogReader) -> None:
    async with bench.writer() as writer:
        await writer.accept([change("1", "enrolled", 5), change("2", "enrolled", 5)], "peoplesoft")
        _sql(bench, "update mirror.entity set version = %s", FAR)
        await writer.accept([change("1", "dropped", 6)], "peoplesoft")
    before = {person: event_log.of(learner(person))[-1] for person in "12"}
    assert before["1"].version == FAR + 1

    empty(bench)
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
    empty(bench)
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
        await writer.accept([change(str(number), "enrolled", 5) for number in range(700)], "peoplesoft")
    empty(bench)
    floor_before = _marker(bench).floor
    assert await run_and_kill(bench, "publisher.recovering:kill@1") == (-signal.SIGKILL, "")
    assert _marker(bench).floor == floor_before
    async with bench.writer() as writer:
        assert (await writer.accept([change("1", "enrolled", 5)], "peoplesoft")).unchanged == 1
    assert _marker(bench).floor > floor_before
    versions = [event.version for event in event_log.of(learner("1"))]
    assert versions == sorted(set(versions))


async def test_an_entity_that_cannot_be_folded_stops_neither_the_opening_nor_its_neighbours(
    bench: Bench, event_log: LogReader
) -> None:
    async with bench.writer() as writer:
        await writer.accept([change(person) for person in "123"], "peoplesoft")
    empty(bench)
    async with bench.writer(fold_with=_not_person_2) as writer:
        floor = _marker(bench).floor
        assert {event.entity_key for event in event_log.events() if event.version > floor} == {learner("1"), learner("3")}
        await writer.accept([change("2", "dropped"), change("3", "dropped")], "peoplesoft")
        assert event_log.statuses(learner("3"))[-1] == "dropped"
        await eventually(lambda: _gauge(writer, "sis_entities_unfoldable", 1))
        assert (await writer.republish(Scope(all=True))).done
    async with bench.writer() as writer:  # the release that can
        await eventually(lambda: _gauge(writer, "sis_entities_unfoldable", 0))
    assert event_log.statuses(learner("2")) == ["enrolled", "dropped"]


async def test_an_event_that_the_database_refuses_is_left_out_alone(bench: Bench, event_log: LogReader) -> None:
    async with bench.writer() as writer:
        await writer.accept([change(person) for person in "123"], "peoplesoft")
    [event] = event_log.of(learner("2"))
    key = {"EMPLID": random.Random(7).randbytes(6_000).hex()}  # noqa: S311  (longer than an index entry may be, even compressed)
    [row] = event.source_rows
    poison = event.model_copy(update={"source_rows": [row.model_copy(update={"key": key})], "version": event.version + 1})
    shared = producer(bench.kafka)
    shared.produce(bench.topics.entity("enrollment"), codec.encode(poison), record_key(learner("2")))
    assert shared.flush(10) == 0
    empty(bench)
    async with bench.writer() as writer:
        floor = _marker(bench).floor
        assert (await writer.accept([change("4")], "peoplesoft")).events == 1
    again = {each.entity_key for each in event_log.events() if each.version > floor}
    assert again == {learner(person) for person in "1234"}


@pytest.mark.parametrize("kafka", ["embedded"], indirect=True)
def test_emitting_everything_reads_the_table_once(bench: Bench) -> None:
    recovery = Recovery(bench.database_url, Store(fold, bench.topics), History(bench.kafka, bench.topics), bench.topics)
    many = 5_000
    _sql(
        bench,
        "insert into mirror.entity (tenant, kind, key, version) select 'main', 'term', n, 1 from generate_series(1, %s) n",
        many,
    )
    pages = list(iter(recovery.to_emit, []))
    recovery.close()
    assert sum(map(len, pages)) == len({key for page in pages for key in page}) == many
    with psycopg.connect(bench.database_url, autocommit=True) as connection:
        deadline = time.monotonic() + 20
        while not (read := _rows_read(connection)):  # told when the other connection has ended
            assert time.monotonic() < deadline
    assert read < 2 * many


def _rows_read(connection: psycopg.Connection[Any]) -> int:
    row = connection.execute(
        "select coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) from pg_stat_user_tables where relname = 'entity'"
    ).fetchone()
    return int(row[0]) if row else 0


async def test_a_crash_of_the_database_repeats_no_version(own_postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    server = own_postgres
    names = Topics("crash")
    with embedded_broker_with(names) as broker:
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


@pytest.mark.parametrize("way", ["disk", "promotion", "dump"])
async def test_a_database_put_back_to_an_earlier_moment_under_running_processes_loses_nothing(
    own_postgres: EmbeddedPostgres, tmp_path: Path, way: str
) -> None:
    """A disk snapshot and a dump keep identity, timeline and floor; a promotion with the last commits lost does not."""
    server, names = own_postgres, Topics("back")
    with embedded_broker_with(names) as broker:
        kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers, fetch_wait_max_ms=20, linger_ms=5)
        bench = Bench(server.create_database("mirror"), kafka, names, tmp_path)
        log = LogReader(kafka, names)
        async with bench.writer() as writer, bench.writer() as other:
            await writer.accept([change("1", "enrolled", 1), change("2", "enrolled", 1)], "peoplesoft")
            earlier = await asyncio.to_thread(_copy_database if way == "dump" else _copy, server)
            await eventually(partial(_taken, writer, change("1", "dropped", 2)))
            await eventually(partial(_taken, other, change("3", "enrolled", 2)))
            newest = max(event.version for event in log.events())
            await asyncio.to_thread(_put_back, server, earlier, way)
            await eventually(partial(_taken, writer, change("4", "enrolled", 3)))
            await eventually(partial(_taken, other, change("3", "enrolled", 2)))
            await eventually(partial(_taken, other, change("1", "enrolled", 1)))
        assert {person: log.statuses(learner(person))[-1] for person in "1234"} == {
            "1": "dropped",
            "2": "enrolled",
            "3": "enrolled",
            "4": "enrolled",
        }
        after = [event for event in log.events() if event.version > newest]
        assert {"1", "3", "4"} <= {event.entity_key.parts[3] for event in after}
        assert min(event.version for event in after) > newest + _MINUTE / 2, "above everything seen, by a margin"
        told = {(event.entity_key, event.version): event.content_hash for event in log.events()}
        assert all(told[event.entity_key, event.version] == event.content_hash for event in log.events())


def _copy(server: EmbeddedPostgres) -> Path:
    """The data directory as a power failure leaves it."""
    server.kill()
    copy = server.folder.with_name("earlier")
    subprocess.run(["cp", "-a", server.folder, copy], check=True)
    server.start_again()
    return copy


def _copy_database(server: EmbeddedPostgres) -> None:
    """A copy beside the database, as a dump that is loaded again."""
    with psycopg.connect(server.url(), autocommit=True) as connection:
        connection.execute("alter database mirror with allow_connections false")
        connection.execute("select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = 'mirror'")
        connection.execute("create database earlier template mirror")
        connection.execute("alter database mirror with allow_connections true")


def _put_back(server: EmbeddedPostgres, earlier: Path | None, way: str) -> None:
    """The copy takes the server's place, or the database's; after a promotion on a new timeline."""
    if earlier is None:
        server.drop_database("mirror")
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute("alter database earlier rename to mirror")
        return
    server.kill()
    subprocess.run(["rm", "-rf", server.folder], check=True)
    subprocess.run(["mv", earlier, server.folder], check=True)
    if way == "promotion":
        subprocess.run(["cp", "-a", server.folder / "PG_VERSION", server.folder / "recovery.signal"], check=True)
        with (server.folder / "postgresql.auto.conf").open("a") as settings:
            settings.write("restore_command = '/bin/false'\n")
    server.start_again()


async def test_all_connections_to_what_was_another_database_are_dropped(bench: Bench) -> None:
    async with bench.writer() as writer:
        await writer.accept([change(str(number)) for number in range(200)], "peoplesoft")
        await writer.accept([change("1")], "peoplesoft")
        before = _backends(bench)
        assert len(before) >= 3  # and the one for digests, as soon as it has looked
        _sql(bench, "update mirror.mirror set timeline = timeline + 1")
        _sql(bench, "select pg_terminate_backend(%s)", min(before))
        await eventually(partial(_is_refused, writer))
        await eventually(partial(_post, writer, "1", "enrolled"))
        assert not before & _backends(bench)


def _backends(bench: Bench) -> set[int]:
    with psycopg.connect(bench.database_url) as connection:
        found = connection.execute(
            "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
        )
        return {row[0] for row in found}


async def _is_refused(writer: MirrorWriter) -> bool:
    for count in (1, 200):  # each of the threads finds out when it is asked
        try:
            await writer.accept([change(str(number)) for number in range(count)], "peoplesoft")
        except Unavailable as error:
            return error.reason == "recovering"
    return False


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
    empty(bench)
    async with bench.writer(open_it=False) as one, bench.writer(open_it=False) as other:
        await asyncio.wait_for(asyncio.gather(one.opened(), other.opened()), 30)
        await asyncio.gather(one.accept([change("1")], "peoplesoft"), other.accept([change("2")], "peoplesoft"))
    assert _marker(bench).floor == 0


@pytest.mark.parametrize("kafka", ["embedded"], indirect=True)
async def test_without_kafka_the_mirror_stays_closed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "services.publisher.mirror.history._TIMEOUT_SECONDS", 0.5
    )  # the thread that asks has to end with the test
    bench.kafka = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    async with bench.writer(open_it=False) as writer:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.opened(), 1)
        with pytest.raises(Unavailable, match="recovering"):
            await writer.accept([change("1")], "peoplesoft")


def _not_person_2(kind: EntityKind, key: EntityKey, rows: Sequence[MirrorRow]) -> dict[str, Any]:
    if key == learner("2"):
        raise RuntimeError("a defect")
    return fold(kind, key, rows)


async def _gauge(writer: MirrorWriter, name: str, value: float) -> bool:
    return writer._metrics.registry.get_sample_value(name) == value


async def _post(writer: MirrorWriter, person: str, status: str) -> bool:
    return await _taken(writer, change(person, status))


async def _taken(writer: MirrorWriter, wanted: Change) -> bool:
    try:
        await writer.accept([wanted], "peoplesoft")
    except Unavailable:
        return False
    return True
