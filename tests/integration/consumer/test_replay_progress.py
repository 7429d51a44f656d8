"""A replay goes no faster than it may, stops when it is cancelled, and goes on where a dead process left it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from schemas import codec
from schemas.topics import Topics
from services.consumer.ledger import replay_batch, replays
from services.consumer.ledger.replays import Range
from services.consumer.replay.log import LogUnavailable
from services.consumer.replay.runner import Pace
from services.kit.kafka import KafkaSettings
from tests.integration.consumer.ledger_support import Ledger, enrollment, seat, section_event
from tests.integration.consumer.replay_support import Operator, Site, produce

pytestmark = pytest.mark.parametrize("kafka", ["embedded"], indirect=True)

PEOPLE = [f"90000{n:02}" for n in range(23)]
TERM: dict[str, Any] = {"term": {"institution": "PSUNV", "term": "1259"}}


@pytest.fixture
def site(kafka: KafkaSettings, topics: Topics, database_url: str) -> Iterator[Site]:
    ledger = Ledger(database_url)
    site = Site(kafka, topics, ledger)
    yield site
    ledger.check()
    ledger.close()


@pytest.fixture
def operator(site: Site, tmp_path: Path) -> Operator:
    return Operator(site, tmp_path)


def refused_people(site: Site, people: list[str] = PEOPLE) -> None:
    """Canvas refuses everybody."""
    site.ledger.take(*(enrollment(version=n + 1, person=person) for n, person in enumerate(people)))
    for person in people:
        site.ledger.kill(seat(person), "refused", "validation")


class Clock:
    """Time passes only where somebody waits: the ledger's moment comes nearer by as much, whatever this machine's clock says."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.waited: list[tuple[int, float]] = []
        """(seats opened so far, seconds)."""

    def __call__(self, seconds: float) -> None:
        self.waited.append((self.opened(), seconds))
        self.site.ledger.connection.execute("update replay_pace set next_at = next_at - make_interval(secs => %s)", [seconds])

    def opened(self) -> int:
        return len(self.site.ledger.history("reopened"))

    def total(self) -> float:
        return sum(seconds for _, seconds in self.waited)


SLOW = Pace(lease=5, look=0.05, wait=0.1, seats_per_second=5)


def runner_at(site: Site, clock: Clock) -> Any:
    return site.new_runner(SLOW, clock)


def test_seats_are_opened_no_faster_than_the_pace(site: Site) -> None:
    refused_people(site)
    clock = Clock(site)
    replay = site.order_scope(TERM)

    runner_at(site, clock).run_stored()

    assert site.state(replay).state == "done"
    assert clock.opened() == 23
    # Five, then a second's wait less the moment that the batch took, ...; nothing is waited for after the last three.
    assert [opened for opened, _ in clock.waited] == [5, 10, 15, 20]
    assert 2 < clock.total() <= 4
    assert max(seconds for _, seconds in clock.waited) <= 1


def test_a_section_that_opens_many_is_waited_for_in_parts_that_the_lease_outlives(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused_people(site)
    site.publish(section_event(version=1), section_event(version=2, section="1002"))
    site.ledger.take(section_event(version=1), section_event(version=2, section="1002"))
    renewed: list[float] = []
    real = replays.renew

    def renew(*args: Any) -> None:
        renewed.append(clock.total())
        real(*args)

    monkeypatch.setattr(replays, "renew", renew)
    clock = Clock(site)
    site.order(kind="section")

    runner_at(site, clock).run_stored()

    assert [opened for opened, _ in clock.waited] == [23, 23, 23]
    assert 3.5 < clock.total() <= 23 / 5
    assert max(seconds for _, seconds in clock.waited) <= SLOW.lease / 3
    assert len(renewed) >= 3


def test_settled_seats_and_plans_need_not_be_waited_for(site: Site) -> None:
    refused_people(site)
    clock = Clock(site)
    site.order_scope(TERM, dry_run=True)
    runner_at(site, clock).run_stored()
    site.ledger.settle()
    site.order_scope(TERM)

    runner_at(site, clock).run_stored()

    assert clock.waited == []


def test_a_successor_keeps_to_the_pace_of_its_predecessor(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    refused_people(site)
    clock = Clock(site)
    replay = site.order_scope(TERM)
    dying = runner_at(site, clock)
    monkeypatch.setattr(dying, "_tell", dies)
    with pytest.raises(Crash):
        dying.run_stored()
    assert (clock.opened(), clock.waited) == (5, [])
    site.expire()

    runner_at(site, clock).run_stored()

    assert site.state(replay).state == "done"
    assert [opened for opened, _ in clock.waited] == [5, 10, 15, 20]


def test_two_replays_share_the_pace(site: Site) -> None:
    refused_people(site)
    clock = Clock(site)
    for person in PEOPLE[:3]:
        site.order_scope({"person": {"person": person}})

    runner_at(site, clock).run_stored()

    assert [opened for opened, _ in clock.waited] == [1, 2]


def test_a_plan_passes_a_replay_that_waits_for_its_turn(site: Site) -> None:
    refused_people(site)
    plans: list[UUID] = []

    def plan_meanwhile(seconds: float) -> None:
        if not plans:
            plans.append(site.order_scope({"person": {"person": PEOPLE[-1]}}, dry_run=True))
        else:
            assert site.state(plans[0]).state == "done"
        clock(seconds)

    clock = Clock(site)
    replay = site.order_scope(TERM)

    site.new_runner(SLOW, plan_meanwhile).run_stored()

    assert site.state(replay).state == "done"
    assert site.verdicts(replay) == ["in_progress"] * 23


class Crash(BaseException):
    """Stands for SIGKILL: nobody may handle it."""


def dies(*_: Any) -> None:
    raise Crash


@pytest.mark.parametrize("when", ["before the commit", "after the commit"])
def test_a_replay_of_the_ledger_goes_on_where_a_dead_process_left_it(
    site: Site, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    monkeypatch.setattr("services.consumer.replay.runner.BATCH", 5)
    refused_people(site)
    replay = site.order_scope(TERM, verify=True)
    with monkeypatch.context() as patch:
        if when == "before the commit":
            patch.setattr(replays, "add_lines", dies_the_third_time(replays.add_lines))
        else:
            patch.setattr(site.runner, "_tell", dies_the_third_time(site.runner._tell))
        with pytest.raises(Crash):
            site.runner.run_stored()
    done = {"before the commit": 10, "after the commit": 15}[when]
    assert (site.state(replay).done, len(site.lines(replay)), len(site.ledger.history("reopened"))) == (done, done, done)
    site.expire()

    site.new_runner().run_stored()

    assert site.state(replay).state == "done"
    assert [line.line for line in site.lines(replay)] == list(range(1, 24))
    assert len({line.seat for line in site.lines(replay)}) == 23
    assert len(site.ledger.history("reopened")) == 23


def dies_the_third_time(real: Any) -> Any:
    calls: list[int] = []

    def call(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise Crash
        return real(*args, **options)

    return call


def test_a_replay_of_several_partitions_goes_on_in_the_one_where_it_was(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.consumer.replay.runner.BATCH", 5)
    refused_people(site)
    topic = site.topics.entity("enrollment")
    values = [codec.encode(enrollment(version=n + 1, person=person)) for n, person in enumerate(PEOPLE)]
    produce(site.kafka, topic, values[:12], partition=0)
    produce(site.kafka, topic, values[12:], partition=2)
    ranges = []
    for partition in (0, 2):
        bounds = site.log.bounds(topic, partition)
        assert bounds is not None
        ranges.append(Range(topic, bounds.topic_id, partition, 0, bounds.high - 1, 0))
    times = {"topic": topic, "since": "2026-09-01T00:00:00Z", "until": "2026-09-02T00:00:00Z"}
    replay = site.order_scope({"times": times}, *ranges)
    dying, alive = site.new_runner(), site.new_runner()
    batches = replay_batch.replay
    taken: list[int] = []

    def dies_in_the_second_partition(connection: Any, arrivals: Any, *rest: Any, **options: Any) -> Any:
        outcome = batches(connection, arrivals, *rest, **options)
        taken.append(len(arrivals))
        if sum(taken) > 15:
            raise Crash
        return outcome

    with monkeypatch.context() as patch:
        patch.setattr(replay_batch, "replay", dies_in_the_second_partition)
        with pytest.raises(Crash):
            dying.run_stored()
    assert site.state(replay).ranges[0].next == 12
    site.expire()

    alive.run_stored()

    assert site.state(replay).state == "done"
    places = [(line.partition, line.offset) for line in site.lines(replay)]
    assert places == [*((0, n) for n in range(12)), *((2, n) for n in range(11))]
    assert [line.line for line in site.lines(replay)] == list(range(1, 24))
    assert len(site.ledger.history("reopened")) == 23


async def test_a_cancelled_replay_stops_and_a_new_plan_goes_on(operator: Operator) -> None:
    site = operator.site
    refused_people(site)
    plan = await operator.plan(TERM)
    replay = (await operator.apply(plan)).json()["replay"]
    answers = []

    def cancel_meanwhile(seconds: float) -> None:
        answers.append(asyncio.run(operator.api.call("POST", f"/replays/{replay}/cancel")))
        clock(seconds)

    clock = Clock(site)
    await asyncio.to_thread(site.new_runner(SLOW, cancel_meanwhile).run_stored)

    assert [(answer.status_code, answer.json()["state"]) for answer in answers] == [(200, "cancelled")]
    report = await operator.report(replay)
    assert (report["state"], report["done"], report["verdicts"]) == ("cancelled", 5, {"in_progress": 5})
    assert clock.opened() == 5
    rest = await operator.plan(TERM)
    assert rest["changes"] == 18
    answer = await operator.apply(rest)
    await operator.ended(answer.json()["replay"])
    assert clock.opened() == 23


async def test_the_batch_that_is_under_way_is_the_last_one(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.consumer.replay.runner.BATCH", 5)
    site = operator.site
    refused_people(site)
    replay = (await operator.apply(await operator.plan(TERM))).json()["replay"]
    thread = threading.Thread(target=site.runner.run_stored)
    with psycopg.connect(site.ledger.url, autocommit=True) as other, other.transaction():
        other.execute("set local search_path = ledger")
        other.execute("select from person where person = %s for no key update", [PEOPLE[7]])
        thread.start()
        await until(lambda: waiting(site) == 1)
        cancelling = asyncio.create_task(operator.api.call("POST", f"/replays/{replay}/cancel"))
        await until(lambda: waiting(site) == 2)
    answer = await cancelling
    await asyncio.to_thread(thread.join, 20)

    assert answer.json()["state"] == "cancelled"
    assert answer.json()["done"] == len(site.ledger.history("reopened")) == 10


def waiting(site: Site) -> int:
    """Sessions that wait for a lock."""
    return len(site.ledger.rows("select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"))


async def until(holds: Any) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110  (a row of another session tells no event)
            await asyncio.sleep(0.02)


async def test_cancelling_twice_is_cancelling_once_and_what_has_ended_stays_as_it_is(operator: Operator) -> None:
    refused_people(operator.site, PEOPLE[:2])
    plan = await operator.plan(TERM)
    running = (await operator.apply(plan)).json()["replay"]

    first = await operator.api.call("POST", f"/replays/{running}/cancel")
    again = await operator.api.call("POST", f"/replays/{running}/cancel")
    ended = await operator.api.call("POST", f"/replays/{plan['replay']}/cancel")

    assert (first.status_code, again.status_code, first.json()) == (200, 200, again.json())
    assert (ended.status_code, ended.json()["reason"]) == (409, "has_ended")
    assert [row[1:3] for row in operator.api.audit()[-3:]] == [
        ("replay.cancel", "done"),
        ("replay.cancel", "done"),
        ("replay.cancel", "refused"),
    ]
    await asyncio.to_thread(operator.site.runner.run_stored)
    assert operator.site.ledger.history("reopened") == []


def test_a_log_that_is_away_keeps_only_those_waiting_that_need_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    refused_people(site)
    site.publish(enrollment(version=1, person=PEOPLE[0]))
    of_the_log, of_the_ledger = site.order(), site.order_scope(TERM)
    with monkeypatch.context() as patch:
        patch.setattr(site.log, "bounds", away)
        site.runner.run_stored()
        assert (site.state(of_the_log).state, site.state(of_the_ledger).state) == ("running", "done")

    site.expire()
    site.runner.run_stored()

    assert site.state(of_the_log).state == "done"


def away(*_: object) -> None:
    raise LogUnavailable("_TIMED_OUT")


def test_a_stopped_runner_does_not_wait_for_its_turn(site: Site) -> None:
    refused_people(site)
    replay = site.order_scope(TERM)
    runner = site.new_runner(Pace(lease=60, look=0.05, wait=0.1, seats_per_second=1))
    thread = threading.Thread(target=runner.run)
    thread.start()
    asyncio.run(until(lambda: site.state(replay).done > 0))

    runner.stop()
    thread.join(5)

    assert not thread.is_alive()
    assert site.ledger.rows("select owner, owned_until <= clock_timestamp() from replay") == [(None, True)]
