"""A replayed record opens the seats of its entity again, decides nothing from old news, and always gets a verdict."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from schemas import codec
from schemas.topics import Topics
from services.consumer.ledger import replay_batch
from services.consumer.nouns import SeatRef
from services.kit.kafka import KafkaSettings
from tests.integration.consumer.ledger_support import TENANT, Ledger, enrollment, seat, section_event
from tests.integration.consumer.replay_support import Site, trim


@pytest.fixture
def site(kafka: KafkaSettings, topics: Topics, database_url: str) -> Iterator[Site]:
    ledger = Ledger(database_url)
    site = Site(kafka, topics, ledger)
    yield site
    ledger.check()
    ledger.close()


no_broker_matters = pytest.mark.parametrize("kafka", ["embedded"], indirect=True)
"""For what has nothing to do with the broker."""


@pytest.mark.parametrize("state", ["dead", "retrying", "waiting"])
def test_a_failed_seat_of_the_newest_record_starts_over(site: Site, state: str) -> None:
    site.publish(enrollment())
    site.ledger.take(enrollment())
    site.fail(seat(), state)

    replay = site.replay()

    assert site.work_row(seat()) == ("pending", 0, True, False, None, None)
    assert site.verdicts(replay) == ["in_progress"]
    assert site.woken == {seat()}
    assert site.ledger.history("reopened") == [{"replay": str(replay)}]


def test_the_report_follows_the_seat(site: Site) -> None:
    site.publish(enrollment())
    site.ledger.take(enrollment())
    site.fail(seat(), "dead")
    replay = site.replay()

    site.fail(seat(), "retrying", "server_fault")
    assert (site.lines(replay)[0].verdict, site.lines(replay)[0].reason) == ("still_failing", "retrying: server_fault")
    site.fail(seat(), "waiting", None)
    assert (site.lines(replay)[0].verdict, site.lines(replay)[0].reason) == ("still_failing", "waiting: user missing")
    site.ledger.settle()
    assert (site.lines(replay)[0].verdict, site.lines(replay)[0].reason) == ("applied", None)
    site.ledger.take(enrollment("dropped", version=9))
    assert site.verdicts(replay) == ["superseded"]
    assert site.lines(replay)[0].superseded_by == 9


def test_replaying_a_settled_range_makes_no_work_and_no_history(site: Site) -> None:
    events = [enrollment(version=n + 1, person=f"90000{n:02}") for n in range(30)]
    site.publish(*events)
    site.ledger.take(*events)
    site.ledger.settle()
    before = site.dump()

    replay = site.replay()

    assert set(site.verdicts(replay)) == {"already_satisfied"}
    assert site.dump() == before
    assert site.woken == set()


def test_verify_has_settled_seats_read_before_anything_is_written(site: Site) -> None:
    site.publish(enrollment())
    site.ledger.take(enrollment())
    site.ledger.settle()

    replay = site.replay(verify=True)

    assert site.work_row(seat()) == ("pending", 0, True, True, None, None)
    assert site.verdicts(replay) == ["in_progress"]


def test_an_older_record_is_superseded_and_its_person_stays_dropped(site: Site) -> None:
    offsets = site.publish(enrollment(version=1), enrollment("dropped", version=2))
    site.ledger.take(enrollment(version=1), enrollment("dropped", version=2))
    site.fail(seat(), "dead")

    replay = site.replay(last=offsets[0])

    assert site.ledger.desired() == {seat(): "deleted"}
    assert site.work_row(seat())[0] == "dead"  # type: ignore[index]
    line = site.lines(replay)[0]
    assert (line.verdict, line.version, line.superseded_by, line.superseded_at_offset) == ("superseded", 1, 2, offsets[1])


def test_what_the_ledger_lacks_is_taken(site: Site) -> None:
    site.publish(enrollment(version=1), enrollment("dropped", version=2), enrollment(version=3, person="9000002"))
    site.ledger.take(enrollment(version=1))
    site.ledger.settle()

    replay = site.replay()

    assert site.ledger.desired() == {seat(): "deleted", seat("9000002"): "active"}
    assert site.verdicts(replay) == ["superseded", "in_progress", "in_progress"]
    assert {detail["cause"] for detail in site.ledger.history("decided")} == {"intake", "replay"}


def test_every_offset_has_a_verdict(site: Site, request: pytest.FixtureRequest) -> None:
    newer = codec.encode(enrollment()).replace(b'"enrolled"', b'"invited"')
    site.publish(
        enrollment(version=1),
        enrollment(version=2, person="9000002"),
        b"not json",
        None,
        newer,
        enrollment("waitlisted", version=4, person="9000003"),
    )
    site.publish(enrollment(version=5, person="9000004"))
    trim(request, site.kafka, site.topics.entity("enrollment"), 1)

    replay = site.replay()

    assert [(line.offset, line.verdict, line.reason) for line in site.lines(replay)] == [
        (0, "expired", None),
        (1, "in_progress", None),
        (2, "undecodable", "not_json"),
        (3, "undecodable", "tombstone"),
        (4, "parked", "status"),
        (5, "no_seat", None),
        (6, "in_progress", None),
    ]
    assert site.ledger.rows('select "offset" from parked') == [(4,)]


def test_a_dry_run_gives_the_same_verdicts_and_changes_nothing(site: Site) -> None:
    known = [enrollment(version=1), enrollment(version=2, person="9000002"), enrollment("dropped", version=8, person="9000003")]
    site.publish(*known, enrollment(version=3, person="9000003"), enrollment(version=9, person="9000004"), b"not json")
    site.ledger.take(*known)
    site.ledger.settle(seat("9000002"))
    site.fail(seat(), "dead")
    before = site.dump()

    dry = site.verdicts(site.replay(dry_run=True, verify=True))

    assert site.dump() == before
    assert site.woken == set()
    wet = [line.verdict for line in site.lines(site.replay(verify=True))]
    assert dry == ["reopened", "reopened", "reopened", "superseded", "reopened", "undecodable"]
    assert wet == ["in_progress" if verdict == "reopened" else verdict for verdict in dry]


def test_the_same_version_with_another_content_is_an_alarm_and_changes_no_seat(site: Site) -> None:
    site.publish(enrollment("dropped", version=1))
    site.ledger.take(enrollment("enrolled", version=1))

    replay = site.replay()

    assert site.verdicts(replay) == ["hash_alarm"]
    assert site.ledger.desired() == {seat(): "active"}
    value = site.metrics.registry.get_sample_value("sis_events_total", {"kind": "enrollment", "result": "hash_alarm"})
    assert value == 1


@no_broker_matters
def test_a_sections_record_opens_the_seats_of_its_members(site: Site) -> None:
    site.publish(section_event("cancelled", version=5))
    site.ledger.take(enrollment(), enrollment(person="9000002"), enrollment(section="1002"))
    site.ledger.take(section_event("cancelled", version=5))
    for ref in (seat(), seat("9000002"), seat(section="1002")):
        site.fail(ref, "dead")

    replay = site.replay(kind="section")

    assert site.ledger.work() == {seat(): "pending", seat("9000002"): "pending", seat(section="1002"): "dead"}
    assert site.verdicts(replay) == ["in_progress"]


@no_broker_matters
def test_a_failed_removal_that_nothing_entitles_to_any_more_starts_over(site: Site) -> None:
    moved = enrollment(role="auditor", version=2)
    site.publish(moved)
    site.ledger.take(enrollment(version=1))
    site.ledger.settle()
    site.ledger.take(moved)
    site.ledger.settle(SeatRef("canvas", next(ref.seat for ref in site.ledger.work() if ref != seat())))
    site.fail(seat(), "dead")

    site.replay()

    assert site.ledger.work() == {seat(): "pending"}


@no_broker_matters
def test_another_role_of_the_person_in_the_section_is_left_alone(site: Site) -> None:
    site.publish(enrollment())
    site.ledger.take(enrollment(), enrollment(role="assistant", version=2))
    assistant = seat(role="TaEnrollment")
    site.fail(seat(), "dead")
    site.fail(assistant, "dead")

    site.replay()

    assert site.ledger.work() == {seat(): "pending", assistant: "dead"}


@no_broker_matters
def test_a_removal_that_waits_for_the_add_of_a_swap_is_not_hurried(site: Site) -> None:
    site.publish(enrollment("dropped", version=2))
    site.ledger.take(enrollment(version=1))
    site.ledger.settle()
    site.ledger.take(enrollment("dropped", version=2))

    site.replay(verify=True)

    assert site.work_row(seat()) == ("guarded", 0, False, True, None, None)


class Crash(BaseException):
    """Stands for SIGKILL: nobody may handle it."""


def test_a_replay_goes_on_where_a_dead_process_left_it(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.consumer.replay.runner.BATCH", 5)
    events = [enrollment(version=n + 1, person=f"90000{n:02}") for n in range(23)]
    site.publish(*events)
    site.ledger.take(*events)
    for ref in list(site.ledger.work()):
        site.fail(ref, "dead")
    replay = site.order()
    real = replay_batch.replay
    calls: list[int] = []

    def dies_in_the_third_batch(*args: Any, **options: Any) -> Any:
        calls.append(1)
        outcome = real(*args, **options)
        if len(calls) == 3:
            raise Crash
        return outcome

    monkeypatch.setattr("services.consumer.ledger.replay_batch.replay", dies_in_the_third_batch)
    with pytest.raises(Crash):
        site.runner.run_stored()
    done = site.state(replay).done
    assert 0 < done < 23
    assert len(site.lines(replay)) == done

    other = site.new_runner()
    other.run_stored()
    assert site.state(replay).done == done, "the dead process still holds it"
    site.expire()
    other.run_stored()

    assert site.state(replay).state == "done"
    assert site.verdicts(replay) == ["in_progress"] * 23
    assert len(site.ledger.history("reopened")) == 23


@no_broker_matters
def test_a_process_that_was_replaced_writes_nothing_more(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.consumer.replay.runner.BATCH", 2)
    events = [enrollment(version=n + 1, person=f"90000{n:02}") for n in range(6)]
    site.publish(*events)
    replay = site.order()
    late = site.runner
    transaction = late._transaction

    def comes_too_late(*args: Any) -> Any:
        site.ledger.connection.execute("update replay set owner = 'another'")
        return transaction(*args)

    monkeypatch.setattr(late, "_transaction", comes_too_late)
    late.run_stored()

    assert site.state(replay).state == "running"
    assert site.lines(replay) == []
    assert site.ledger.desired() == {}
    site.expire()
    site.new_runner().run_stored()
    assert site.verdicts(replay) == ["in_progress"] * 6


def test_a_stopped_runner_hands_over_at_once_and_a_running_one_hears_of_new_replays(site: Site) -> None:
    site.publish(enrollment())
    site.ledger.take(enrollment())
    site.fail(seat(), "dead")
    thread = threading.Thread(target=site.runner.run)
    thread.start()
    try:
        replay = site.order()
        site.runner.wake()
        deadline = time.monotonic() + 20
        while site.state(replay).state == "running":
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        site.runner.stop()
        thread.join(20)
    assert not thread.is_alive()
    assert site.verdicts(replay) == ["in_progress"]


@no_broker_matters
def test_a_topic_that_was_created_anew_is_not_replayed(site: Site) -> None:
    site.publish(enrollment())
    replay = site.order()
    site.ledger.connection.execute("update replay_range set topic_id = 'another'")

    site.runner.run_stored()

    assert (site.state(replay).state, site.state(replay).reason) == ("failed", "topic_recreated")


@no_broker_matters
def test_one_record_that_the_database_refuses_stops_only_itself(site: Site) -> None:
    site.ledger.connection.execute("alter table entity add check (person <> '9000099')")
    site.publish(enrollment(version=1), enrollment(version=2, person="9000099"), enrollment(version=3, person="9000002"))

    replay = site.replay()

    assert site.verdicts(replay) == ["in_progress", "undecodable", "in_progress"]
    assert site.lines(replay)[1].reason == "refused_by_ledger"


@no_broker_matters
def test_a_replay_decides_under_the_persons_lock(site: Site) -> None:
    site.publish(enrollment())
    site.ledger.take(enrollment())
    site.fail(seat(), "dead")
    replay = site.order()
    thread = threading.Thread(target=site.runner.run_stored)
    with psycopg.connect(site.ledger.url, autocommit=True) as other, other.transaction():
        other.execute("set local search_path = ledger")
        other.execute("select from person where tenant = %s for no key update", [TENANT])
        thread.start()
        assert waits_for_a_lock(site)
        assert site.work_row(seat())[0] == "dead"  # type: ignore[index]
    thread.join(20)

    assert site.state(replay).state == "done"
    assert site.work_row(seat())[0] == "pending"  # type: ignore[index]


def waits_for_a_lock(site: Site) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if site.ledger.rows("select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"):
            return True
        time.sleep(0.02)
    return False


@no_broker_matters
def test_a_replay_and_the_live_stream_may_meet_in_the_same_people(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.consumer.replay.runner.BATCH", 7)
    people = [f"90000{n:02}" for n in range(20)]
    old = [enrollment(version=n + 1, person=person) for n, person in enumerate(people)]
    site.publish(*old)
    site.ledger.take(*old)
    live = Ledger(site.ledger.url)
    replay = site.order(verify=True)
    thread = threading.Thread(target=site.runner.run)
    thread.start()
    try:
        for turn in range(15):
            status: Any = "dropped" if turn % 2 else "enrolled"
            changed = [enrollment(status, version=100 + turn, person=person) for person in reversed(people)]
            take_until_it_fits(live, section_event("cancelled" if turn % 3 else "active", version=turn + 1), *changed)
        deadline = time.monotonic() + 30
        while site.state(replay).state == "running":
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        site.runner.stop()
        thread.join(20)
        live.close()

    assert site.state(replay).state == "done"
    assert set(site.verdicts(replay)) == {"superseded"}
    assert {version for (version,) in site.ledger.rows("select version from entity where kind = 'enrollment'")} == {114}


def take_until_it_fits(ledger: Ledger, *events: Any) -> None:
    """The intake tries again when the database breaks a tie."""
    while True:
        try:
            ledger.take(*events)
        except psycopg.errors.DeadlockDetected:
            continue
        return
