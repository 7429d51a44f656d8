"""Full extracts against a real mirror: what becomes an event, what is removed, and what never is."""

from __future__ import annotations

import asyncio
import hashlib
import io
import re
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from schemas.events import OrderToken
from services.publisher.changes import Change, Receipt, Unavailable
from services.publisher.metrics import Metrics
from services.publisher.mirror.fold import fold
from services.publisher.mirror.writer import MirrorWriter
from services.publisher.snapshots.applying import Mirror
from services.publisher.snapshots.service import NotHeld, Snapshots
from services.publisher.snapshots.table import Snapshot
from services.publisher.translate.extract import KINDS, ExtractRefused, Manifest, Site
from services.publisher.translate.peoplesoft import PeopleSoftContext, translate
from tests.integration.publisher.mirror.bench import TENANT, Bench, LogReader, eventually
from tests.unit.publisher.fakes import FakeQuarantine
from tests.unit.publisher.rowsets import CONTEXT, enrollment, message, record, school_class

pytestmark = pytest.mark.parametrize("kafka", ["embedded"], indirect=True)
LONG_AGO = datetime.now(UTC) - timedelta(hours=3)


def context() -> PeopleSoftContext:
    return replace(CONTEXT, received_at=datetime.now(UTC))


def person(number: int) -> str:
    return f"{90_000 + number:07}"


def everybody(count: int, **columns: str) -> list[dict[str, str]]:
    """Rows of so many students in one class."""
    return [row(person(number), **columns) for number in range(count)]


def row(emplid: str, **columns: str) -> dict[str, str]:
    return enrollment(EMPLID=emplid, ENRL_ADD_DT="2026-11-01", ENRL_DROP_DT="") | columns


def csv_of(rows: Sequence[dict[str, str]], kind: str = "STDNT_ENRL") -> bytes:
    names = KINDS[kind].required
    lines = [",".join(names), *(",".join(each.get(name, "") for name in names) for each in rows), f"TRAILER,{len(rows)}"]
    return "".join(f"{line}\r\n" for line in lines).encode()


@dataclass
class Campus:
    """A SIS that sends messages and extracts to a publisher of its own."""

    writer: Mirror
    snapshots: Snapshots
    quarantine: FakeQuarantine
    database_url: str

    async def post(self, rows: Iterable[dict[str, str]], at: datetime = LONG_AGO, name: str = "STDNT_ENRL") -> None:
        """One message."""
        headers = {"from": "PSFT_CS", "origtimestamp": at.strftime("%Y-%m-%dT%H:%M:%S.%f%z")}
        found = translate(message(*(record(name, each) for each in rows)), headers, context())
        await self.writer.accept(found.changes, "peoplesoft")

    async def send(
        self,
        content: bytes,
        started_at: datetime | None = None,
        kind: str = "STDNT_ENRL",
        term: str = "2267",
        ended_at: datetime | None = None,
    ) -> Snapshot:
        """One extract, as it was taken."""
        now = datetime.now(UTC)
        manifest = Manifest(TENANT, "campus", kind, "NORTH", term, started_at or now, ended_at or now, now)
        return await self.snapshots.take(manifest, io.BytesIO(content), hashlib.sha256(content).hexdigest(), len(content))

    async def apply(self, content: bytes, started_at: datetime | None = None, kind: str = "STDNT_ENRL") -> Snapshot:
        """One extract, as it ended."""
        return await self.ended(await self.send(content, started_at, kind))

    async def ended(self, snapshot: Snapshot) -> Snapshot:
        """Wait until it is in the mirror."""

        async def applied() -> bool:
            found = await self.snapshots.find(snapshot.id)
            return found is not None and found.state == "applied"

        await eventually(applied, 60)
        found = await self.snapshots.find(snapshot.id)
        assert found is not None
        return found

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.database_url) as connection:
            connection.execute("set search_path = mirror")
            return connection.execute(query.encode()).fetchall()

    def enrolled(self) -> set[str]:
        """Who is in a class, by the mirror."""
        return {found for (found,) in self.ask("select person from entity where status = 'enrolled'")}

    def versions(self) -> dict[str, int]:
        return dict(self.ask("select key, version from entity"))


def pass_by(bench: Bench, *, hours: int) -> None:
    """All that is known of extracts is so much older."""
    with psycopg.connect(bench.database_url) as connection:
        connection.execute(
            """update mirror.snapshot
                  set counted_at = counted_at - make_interval(hours => %(hours)s),
                      counted_since = counted_since - make_interval(hours => %(hours)s)""",
            {"hours": hours},
        )


def of_scope(started_at: datetime) -> Manifest:
    return Manifest(TENANT, "campus", "STDNT_ENRL", "NORTH", "2267", started_at, started_at, started_at)


class SlowFile(io.BytesIO):
    """Is being read when it has `begun`, until it `goes_on`."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.begun, self.goes_on = threading.Event(), threading.Event()

    def read1(self, size: int | None = -1, /) -> bytes:
        self.begun.set()
        self.goes_on.wait(30)
        return super().read1(size)


@asynccontextmanager
async def campus(bench: Bench, *, tenant: str = TENANT, **settings: Any) -> AsyncIterator[Campus]:
    async with bench.writer(fold_with=fold, **settings) as writer:
        quarantine = FakeQuarantine()
        snapshots = Snapshots(writer, quarantine, Metrics(), bench.database_url, tenant, Site(UTC), 10)
        await snapshots.start()
        try:
            yield Campus(writer, snapshots, quarantine, bench.database_url)
        finally:
            await snapshots.stop()


class FrozenWriter:
    """A mirror whose process stands still with the first page in its hand."""

    def __init__(self, writer: MirrorWriter) -> None:
        self._writer = writer
        self.begun, self.goes_on, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def opened(self) -> None:
        return

    async def accept(self, changes: Sequence[Change], source: str) -> Receipt:
        self.begun.set()
        await self.goes_on.wait()
        receipt = await self._writer.accept(changes, source)
        self.ended.set()
        return receipt


@asynccontextmanager
async def frozen(bench: Bench, metrics: Metrics | None = None) -> AsyncIterator[tuple[Snapshots, FrozenWriter]]:
    """A publisher that takes an extract and then stands still."""
    async with bench.writer(fold_with=fold) as writer:
        stuck = FrozenWriter(writer)
        snapshots = Snapshots(stuck, FakeQuarantine(), metrics or Metrics(), bench.database_url, TENANT, Site(UTC), 10)
        await snapshots.start()
        try:
            yield snapshots, stuck
        finally:
            await snapshots.stop()


async def test_an_extract_brings_the_mirror_to_what_it_shows(bench: Bench, event_log: LogReader) -> None:
    async with campus(bench) as school:
        await school.post(everybody(30))
        dropped = row(person(1), STDNT_ENRL_STATUS="D", ENRL_STATUS_REASON="DROP", ENRL_DROP_DT="2026-11-20")
        rows = [row(person(0)), dropped, *everybody(31)[3:]]  # the third has gone without a word, the last has come
        done = await school.apply(csv_of(rows))
        assert (done.rows, done.absent, done.changed) == (30, 1, 3)
        assert school.enrolled() == {person(number) for number in range(31)} - {person(1), person(2)}
        assert school.ask("select deleted from source_row where key like '%' || '0090002' || '%'") == [(True,)]
        assert school.ask("select count(*) from snapshot_row") == [(0,)]
    assert len(event_log.events()) == 30 + 3


async def test_an_extract_that_says_what_is_known_costs_no_event(bench: Bench) -> None:
    async with campus(bench) as school:
        await school.post(everybody(1_700))
        before = school.versions()
        done = await school.apply(csv_of(everybody(1_700)))
        assert (done.rows, done.absent, done.changed) == (1_700, 0, 0)
        assert school.versions() == before
        assert school.ask("select count(*) from source_row where not snapshot") == [(0,)], "the rows are as fresh as the extract"


async def test_absence_says_nothing_of_what_changed_shortly_before_the_extract_began(bench: Bench) -> None:
    started = datetime.now(UTC)
    async with campus(bench) as school:
        await school.post(everybody(20))
        await school.post([row("0095001")], at=started - timedelta(minutes=14))
        await school.post([row("0095002")], at=started - timedelta(minutes=16))
        done = await school.apply(csv_of(everybody(20)), started)
        assert done.absent == 1
        assert "0095001" in school.enrolled()
        assert "0095002" not in school.enrolled()


async def test_absence_says_nothing_of_another_scope(bench: Bench) -> None:
    async with campus(bench) as school:
        await school.post([*everybody(3), row("0095001", STRM="2268"), row("0095002", INSTITUTION="SOUTH")])
        await school.post([school_class()], name="CLASS_TBL")
        await school.apply(csv_of(everybody(1)))
        assert school.enrolled() == {person(0), "0095001", "0095002"}
        assert school.ask("select status from entity where kind = 'section'") == [("active",)]


async def test_what_says_no_time_is_not_removed_by_absence(bench: Bench) -> None:
    async with campus(bench) as school:
        [change] = translate(message(record("STDNT_ENRL", row("0095001"))), {}, context()).changes
        timeless = Change(TENANT, change.record, change.key, change.columns, change.entity, OrderToken(channel="events:x"))
        await school.writer.accept([timeless], "events")
        await school.apply(csv_of(everybody(1)))
        assert "0095001" in school.enrolled()


async def test_a_class_that_is_gone_takes_what_it_said_of_its_course(bench: Bench) -> None:
    def described(section: str, number: str) -> dict[str, str]:
        return school_class(CLASS_SECTION=section, CLASS_NBR=number, CRSE_ID=f"00{number}")

    async with campus(bench) as school:
        await school.post([described("001", "26191"), described("002", "26192")], name="CLASS_TBL")
        await school.apply(csv_of([described("001", "26191")], "CLASS_TBL"), kind="CLASS_TBL")
        states = dict(school.ask("select key, status from entity where kind in ('course', 'section')"))
        assert states["NORTH/2267/26192"] == states["NORTH/0026192-1-2267-001"] == "removed"
        assert states["NORTH/2267/26191"] == states["NORTH/0026191-1-2267-001"] == "active"


async def test_a_scope_that_shrank_waits_for_a_person_who_names_the_extract(bench: Bench) -> None:
    async with campus(bench) as school:
        await school.post(everybody(100))
        before = school.versions()
        held = await school.send(csv_of(everybody(80)))
        assert (held.state, held.reason) == ("held", "shrunk")
        assert held.detail == "the extract lacks 20 of the 100 rows that the mirror holds of its scope"
        with pytest.raises(NotHeld, match="other_digest"):
            await school.snapshots.approve(held.id, "0" * 64, "operator")
        assert school.versions() == before
        approved = await school.ended(await school.snapshots.approve(held.id, held.digest, "operator"))
        assert (approved.approved_by, len(school.enrolled())) == ("operator", 80)
        with pytest.raises(NotHeld, match="applied"):
            await school.snapshots.approve(held.id, held.digest, "operator")


async def test_extracts_that_each_lack_a_little_are_held_for_what_they_remove_together(bench: Bench) -> None:
    async with campus(bench) as school:
        await school.post(everybody(100))
        assert (await school.apply(csv_of(everybody(92)))).absent == 8
        held = await school.send(csv_of(everybody(85)))
        assert (held.state, held.reason, held.absent) == ("held", "shrunk", 7)
        assert re.fullmatch(
            r"the extract lacks 7 of the 92 rows that the mirror holds of its scope;"
            r" with 8 that extracts have removed since \d{4}-\d\d-\d\d \d\d:\d\d UTC it is 15 of 100",
            held.detail or "",
        )
        assert len(school.enrolled()) == 92


async def test_what_extracts_have_removed_holds_none_that_lacks_nothing(bench: Bench) -> None:
    async with campus(bench) as school:
        await school.post(everybody(100))
        await school.apply(csv_of(everybody(90)))
        await school.post(
            [row(person(number), STDNT_ENRL_STATUS="D", ENRL_STATUS_REASON="DROP") for number in range(40)], datetime.now(UTC)
        )
        assert (await school.apply(csv_of(everybody(90)))).absent == 0


async def test_what_a_person_approved_does_not_count_nor_does_what_went_before(bench: Bench) -> None:
    async with campus(bench) as school:
        await school.post(everybody(100))
        await school.apply(csv_of(everybody(92)))
        held = await school.send(csv_of(everybody(85)))
        await school.ended(await school.snapshots.approve(held.id, held.digest, "operator"))
        await school.apply(csv_of(everybody(77)))
        assert len(school.enrolled()) == 77
        assert (await school.send(csv_of(everybody(76)))).state == "held", "counted from the approval on"


async def test_what_was_removed_two_nights_ago_does_not_count(bench: Bench) -> None:
    async with campus(bench) as school:
        await school.post(everybody(100))
        await school.apply(csv_of(everybody(92)))
        pass_by(bench, hours=37)
        await school.apply(csv_of(everybody(85)))
        pass_by(bench, hours=25)
        assert (await school.send(csv_of(everybody(80)))).state == "held", "a nightly extract counts with that of last night"


async def test_an_extract_that_nobody_looked_at_is_not_taken_because_time_passed(bench: Bench) -> None:
    async with campus(bench) as school:
        await school.post(everybody(100))
        await school.apply(csv_of(everybody(92)))
        for _ in range(2):
            assert (await school.send(csv_of(everybody(85)))).state == "held"
            pass_by(bench, hours=100)
        assert (await school.send(csv_of(everybody(85)))).state == "held"
        await school.apply(csv_of(everybody(92)))
        await school.apply(csv_of(everybody(85)))


async def test_an_extract_that_was_judged_before_another_was_applied_is_judged_again(bench: Bench) -> None:
    async with campus(bench) as school, campus(bench) as other:
        await school.post(everybody(100))

        async def older_one_first(*told: Any) -> None:
            await other.apply(csv_of(everybody(92)), datetime.now(UTC) - timedelta(minutes=1))

        school.quarantine.put = older_one_first  # type: ignore[method-assign, assignment]
        with pytest.raises(Unavailable, match="busy"):
            await school.send(csv_of([row(person(0), STDNT_ENRL_STATUS="?"), *everybody(100)[9:]]))
        assert len(school.enrolled()) == 92


async def test_ids_that_changed_are_told_from_people_who_left(bench: Bench) -> None:
    async with campus(bench) as school:
        await school.post(everybody(40))
        held = await school.send(csv_of([row(f"N{person(number)}") for number in range(40)]))
        assert held.state == "held"
        assert (held.detail or "").endswith("and has 40 that the mirror does not know: has an id been renamed?")


async def test_a_drop_that_comes_while_an_extract_waits_outranks_it(bench: Bench) -> None:
    async with campus(bench) as school:
        await school.post(everybody(50))
        held = await school.send(csv_of(everybody(40)))
        await school.post([row(person(0), STDNT_ENRL_STATUS="D", ENRL_STATUS_REASON="DROP")], at=datetime.now(UTC))
        await school.post([row(person(45), STDNT_ENRL_STATUS="E")], at=datetime.now(UTC))
        await school.ended(await school.snapshots.approve(held.id, held.digest, "operator"))
        assert person(0) not in school.enrolled()
        assert person(45) in school.enrolled()
        assert len(school.enrolled()) == 40


async def test_a_newer_extract_makes_a_held_one_moot(bench: Bench) -> None:
    async with campus(bench) as school:
        await school.post(everybody(50))
        held = await school.send(csv_of(everybody(10)))
        await school.apply(csv_of(everybody(50)))
        with pytest.raises(NotHeld, match="superseded"):
            await school.snapshots.approve(held.id, held.digest, "operator")
        assert len(school.enrolled()) == 50


async def test_an_approval_makes_an_older_extract_that_is_held_moot(bench: Bench) -> None:
    async with campus(bench) as school:
        await school.post(everybody(100))
        newer = await school.send(csv_of(everybody(80)))
        older = await school.send(csv_of([*everybody(70), row("0095001")]), LONG_AGO + timedelta(hours=1))
        assert (newer.state, older.state) == ("held", "held")
        await school.ended(await school.snapshots.approve(newer.id, newer.digest, "operator"))
        with pytest.raises(NotHeld, match="superseded"):
            await school.snapshots.approve(older.id, older.digest, "operator")
        assert "0095001" not in school.enrolled(), "who had left when the newer one began"
        assert school.ask("select count(*) from snapshot_row") == [(0,)]


async def test_an_extract_is_not_taken_when_a_newer_one_was_before_its_rejects_are_kept(bench: Bench) -> None:
    async with campus(bench) as school, campus(bench) as other:

        async def newer_one_first(*told: Any) -> None:
            await other.apply(csv_of(everybody(20)))

        school.quarantine.put = newer_one_first  # type: ignore[method-assign, assignment]
        with pytest.raises(Unavailable, match="busy"):
            await school.send(csv_of([row(person(0), STDNT_ENRL_STATUS="?"), *everybody(20)[1:]]))
        assert school.ask("select state from snapshot order by 1") == [("applied",), ("superseded",)]


async def test_an_extract_that_is_held_is_listed_however_many_are_refused(bench: Bench) -> None:
    async with campus(bench) as school:
        await school.post(everybody(50))
        held = await school.send(csv_of(everybody(10)))
        for _ in range(51):
            await school.send(csv_of([]))
        assert held.id in [one.id for one in await school.snapshots.newest()]


async def test_the_same_extract_again_is_the_one_that_is_there(bench: Bench) -> None:
    started = datetime.now(UTC)
    async with campus(bench) as school:
        first = await school.apply(csv_of(everybody(3)), started)
        again = await school.send(csv_of(everybody(3)), started)
        assert (again.id, again.state) == (first.id, "applied")


@pytest.mark.parametrize("publishers", [1, 2])
async def test_the_same_extract_from_two_clients_at_once_is_applied_once(bench: Bench, publishers: int) -> None:
    started, content = datetime.now(UTC), csv_of(everybody(700))
    async with campus(bench) as one, campus(bench) as another:
        both = [one, another if publishers == 2 else one]
        answers = await asyncio.gather(*(each.send(content, started) for each in both), return_exceptions=True)
        assert all(isinstance(answer, Snapshot | Unavailable) for answer in answers)
        ids = {(await each.send(content, started)).id for each in both}
        assert len(ids | {answer.id for answer in answers if isinstance(answer, Snapshot)}) == 1
        await one.ended(await one.send(content, started))
        assert one.ask("select count(*) from snapshot where state = 'applied'") == [(1,)]
        assert (len(one.enrolled()), one.ask("select count(*) from snapshot_row")) == (700, [(0,)])


async def test_extracts_of_one_scope_are_taken_one_after_the_other_and_never_backwards(bench: Bench) -> None:
    started = datetime.now(UTC)
    async with campus(bench) as school, campus(bench, max_waiting_rows=20_000) as other:
        first = await school.send(csv_of(everybody(1_500)), started)
        with pytest.raises(Unavailable, match="busy"):
            await other.snapshots.expect(of_scope(started + timedelta(seconds=1)))
        await other.snapshots.expect(of_scope(started))  # it may be the same file, sent again
        with pytest.raises(Unavailable, match="busy"):
            await other.send(csv_of(everybody(1_450)), started + timedelta(seconds=1))
        await school.ended(first)
        older = await other.send(csv_of(everybody(1_200)), started - timedelta(seconds=1))
        assert (older.state, older.reason) == ("refused", "not_newer")
        assert len(school.enrolled()) == 1_500


async def test_of_two_extracts_that_ran_at_the_same_time_only_the_first_counts(bench: Bench) -> None:
    def at(minutes: int) -> datetime:
        return LONG_AGO + timedelta(minutes=minutes)

    async with campus(bench) as school:
        await school.ended(await school.send(csv_of(everybody(20)), at(0), ended_at=at(30)))  # has read the last row at its end
        second = await school.send(csv_of(everybody(19)), at(15), ended_at=at(20))  # was over before that row was there
        assert (second.state, second.reason) == ("refused", "not_newer")
        assert person(19) in school.enrolled()


async def test_a_row_that_cannot_be_used_drops_nobody(bench: Bench) -> None:
    async with campus(bench) as school:
        await school.post(everybody(30))
        done = await school.apply(csv_of([row(person(0), STDNT_ENRL_STATUS="?"), *everybody(29)[1:]]))
        assert (done.unusable, done.absent) == (1, 1)
        assert school.quarantine.reasons == ["unknown_code"]
        assert school.enrolled() == {person(number) for number in range(29)}


async def test_an_extract_whose_bad_rows_could_not_be_kept_is_taken_when_it_comes_again(bench: Bench) -> None:
    content = csv_of([row(person(0), STDNT_ENRL_STATUS="?"), *everybody(20)[1:]])
    started = datetime.now(UTC)
    async with campus(bench) as school:
        school.quarantine.is_down = True
        with pytest.raises(Unavailable):
            await school.send(content, started)
        assert school.ask("select state from snapshot") == [("receiving",)]
        school.quarantine.is_down = False
        await school.apply(content, started)
        assert school.quarantine.reasons == ["unknown_code"]
        assert school.ask("select state from snapshot order by 1") == [("applied",), ("superseded",)]
        assert school.ask("select count(*) from snapshot_row") == [(0,)]


async def test_what_ended_long_ago_or_was_left_behind_is_forgotten_with_the_next_extract(bench: Bench) -> None:
    async with campus(bench) as school:
        ended = await school.apply(csv_of(everybody(3)))
        school.quarantine.is_down = True
        with pytest.raises(Unavailable):
            await school.send(csv_of([row(person(0), STDNT_ENRL_STATUS="?"), row(person(1))]))
        with psycopg.connect(bench.database_url) as connection:
            connection.execute("update mirror.snapshot set closed_at = closed_at - interval '91 days'")
            connection.execute("update mirror.snapshot set received_at = received_at - interval '2 days'")
        refused = await school.send(csv_of([]))
        assert [one.id for one in await school.snapshots.newest()] == [refused.id]
        assert await school.snapshots.find(ended.id) is None
        assert school.ask("select count(*) from snapshot_row") == [(0,)]


async def test_a_refusal_does_not_wait_for_an_extract_that_is_being_stored(bench: Bench) -> None:
    async with campus(bench) as school, campus(bench) as other:
        await school.apply(csv_of(everybody(3)))
        with psycopg.connect(bench.database_url) as connection:
            connection.execute("update mirror.snapshot set closed_at = closed_at - interval '91 days'")
        now, slow = datetime.now(UTC), SlowFile(csv_of(everybody(10)))
        manifest = Manifest(TENANT, "campus", "CLASS_TBL", "NORTH", "2267", now, now, now)
        storing = asyncio.create_task(other.snapshots.take(manifest, slow, "0" * 64, 1))
        await asyncio.to_thread(slow.begun.wait)
        refused = await school.snapshots.refuse(manifest, "1" * 64, 1, ExtractRefused("digest_mismatch", "another file"))
        slow.goes_on.set()
        assert (refused.state, (await storing).state) == ("refused", "refused")


async def test_nothing_is_removed_while_a_row_names_nobody(bench: Bench) -> None:
    async with campus(bench) as school:
        await school.post(everybody(30))
        done = await school.apply(csv_of([row(""), *everybody(28)]))
        assert (done.unusable, done.absent) == (1, None)
        assert "nothing is concluded from absence" in (done.detail or "")
        assert len(school.enrolled()) == 30


async def test_an_id_that_no_index_can_hold_is_one_bad_row(bench: Bench) -> None:
    endless = secrets.token_hex(20_000)  # what repeats would be compressed
    rows = [
        {"section": "26191", "person": one, "status": "enrolled", "role": "student"} for one in (*map(person, range(20)), endless)
    ]
    async with campus(bench) as school:
        content = csv_of([{"institution": "NORTH", "term": "2267"} | one for one in rows], "enrollment")
        done = await school.apply(content, kind="enrollment")
        assert (done.unusable, done.absent) == (1, None)
        assert len(school.enrolled()) == 20


async def test_of_two_rows_with_one_key_the_later_counts(bench: Bench) -> None:
    async with campus(bench) as school:
        gone = row(person(1), STDNT_ENRL_STATUS="D", ENRL_STATUS_REASON="DROP")
        await school.apply(csv_of([row(person(0)), gone, row(person(1)), row(person(2)), gone | {"EMPLID": person(2)}]))
        assert school.enrolled() == {person(0), person(1)}


async def test_the_later_of_two_rows_counts_although_a_process_that_was_thought_dead_comes_back(bench: Bench) -> None:
    gone = row(person(0), STDNT_ENRL_STATUS="D", ENRL_STATUS_REASON="DROP")
    async with frozen(bench) as (snapshots, zombie):
        taken = await Campus(zombie, snapshots, FakeQuarantine(), bench.database_url).send(csv_of([*everybody(600), gone]))
        await zombie.begun.wait()
        with psycopg.connect(bench.database_url) as connection:
            connection.execute("update mirror.snapshot set worker_until = clock_timestamp()")
        async with campus(bench) as school:
            await school.ended(taken)
            zombie.goes_on.set()
            await zombie.ended.wait()
            assert person(0) not in school.enrolled()


async def test_an_extract_that_is_mostly_unusable_is_refused(bench: Bench) -> None:
    async with campus(bench) as school:
        await school.post(everybody(30))
        refused = await school.send(csv_of(everybody(30, STDNT_ENRL_STATUS="9")))
        assert (refused.state, refused.reason) == ("refused", "unusable_rows")
        assert refused.detail == "30 of 30 rows cannot be used: unknown_code 30"


async def test_a_small_extract_of_which_no_row_can_be_used_is_refused(bench: Bench) -> None:
    async with campus(bench) as school:
        await school.post(everybody(4))
        refused = await school.send(csv_of([row(f"N{number}", STDNT_ENRL_STATUS="?") for number in range(2)]))
        assert (refused.state, refused.reason) == ("refused", "unusable_rows")


async def test_an_extract_is_done_when_it_is_applied_although_its_last_row_cannot_be_used(bench: Bench) -> None:
    async with campus(bench) as school:
        done = await school.apply(csv_of([*everybody(20), row(person(20), STDNT_ENRL_STATUS="?")]))
        assert (done.done, done.total) == (20, 20)


async def test_extracts_wait_for_one_another_instead_of_being_sent_twice(bench: Bench) -> None:
    now, slow = datetime.now(UTC), SlowFile(csv_of(everybody(10)))
    async with campus(bench) as school:
        terms = [replace(of_scope(now), term=str(2267 + number)) for number in range(4)]
        storing = [
            asyncio.create_task(school.snapshots.take(each, file, str(number), 1))
            for number, (each, file) in enumerate(zip(terms, [slow, *(io.BytesIO(csv_of([])) for _ in range(3))], strict=True))
        ]
        await asyncio.to_thread(slow.begun.wait)
        await asyncio.sleep(0)
        slow.goes_on.set()
        assert [one.state for one in await asyncio.gather(*storing)] == ["applying", "refused", "refused", "refused"]


async def test_an_extract_is_told_to_come_again_while_another_publisher_stores_one(bench: Bench) -> None:
    async with campus(bench) as school, campus(bench) as other:
        slow = SlowFile(csv_of(everybody(10)))
        storing = asyncio.create_task(other.snapshots.take(of_scope(datetime.now(UTC)), slow, "0" * 64, 1))
        await asyncio.to_thread(slow.begun.wait)
        with pytest.raises(Unavailable, match="busy"):
            await school.send(csv_of(everybody(10)), term="2268")
        slow.goes_on.set()
        await storing


@pytest.mark.parametrize(
    "written",
    [
        lambda content: b"\xef\xbb\xbf" + content,  # by Excel
        lambda content: content.replace(b"\r\n", b"\r"),
        lambda content: content.replace(b"\r\nTRAILER", b"\r\n\r\nTRAILER").rstrip(),
        lambda content: content.replace(b"0090001", b'"0090001"').replace(b"TRAILER,20", b'"TRAILER","20"'),
    ],
)
async def test_an_extract_is_read_however_its_lines_are_written(bench: Bench, written: Callable[[bytes], bytes]) -> None:
    async with campus(bench) as school:
        await school.apply(written(csv_of(everybody(20))))
        assert len(school.enrolled()) == 20


async def test_a_refused_extract_leaves_nothing_but_its_row(bench: Bench) -> None:
    async with campus(bench) as school:
        await school.post(everybody(30))
        before = school.versions()
        refused = await school.send(csv_of(everybody(1))[:-20])
        assert (refused.state, refused.reason) == ("refused", "truncated")
        assert [one.reason for one in await school.snapshots.newest()] == ["truncated"]
        assert school.ask("select count(*) from snapshot_row") == [(0,)]
        assert school.versions() == before


async def test_live_changes_do_not_wait_for_an_extract(bench: Bench) -> None:
    async with campus(bench) as school:
        taken = await school.send(csv_of(everybody(2_500)))
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for number in range(5):
            await school.post([row(f"N{number}")], at=datetime.now(UTC))
        found = await school.snapshots.find(taken.id)
        assert found is not None
        assert (found.state, loop.time() - begun < 15) == ("applying", True)
        await school.ended(taken)


async def test_an_extract_that_is_being_applied_is_counted_as_open(bench: Bench) -> None:
    metrics = Metrics()

    def applying() -> float | None:
        return metrics.registry.get_sample_value("sis_snapshots_open", {"state": "applying"})

    async with frozen(bench, metrics) as (snapshots, stuck):
        school = Campus(stuck, snapshots, FakeQuarantine(), bench.database_url)
        taken = await school.send(csv_of(everybody(3)))
        await stuck.begun.wait()
        assert applying() == 1
        stuck.goes_on.set()
        await school.ended(taken)

        async def is_over() -> bool:
            return applying() == 0

        await eventually(is_over)


async def test_an_extract_is_applied_by_no_publisher_of_another_tenant(bench: Bench) -> None:
    async with campus(bench, tenant="other") as theirs:
        taken = await theirs.send(csv_of(everybody(3)))
        assert (taken.state, theirs.enrolled()) == ("applying", set())
        async with campus(bench) as ours:
            await ours.ended(taken)
    assert theirs.ask("select distinct tenant from source_row") == [(TENANT,)]
