"""The consumer: killed at every step, paused, starved, stuck, misled."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import httpx

from tests.drills.catalogue import NotRun, drill
from tests.drills.injectors import signals
from tests.drills.rows.kafka import produce
from tests.drills.rows.people import CLASS, one_person, post
from tests.drills.world import World, lasting
from tests.e2e.arena import dropped, enrolled, eventually


def _killed_at(world: World, failpoint: str, passes: int) -> None:
    """The consumer that gets there dies, twice, and each time somebody goes on."""
    world.expected_ends = {-9}
    for number, part in enumerate(world.consumers):
        part.restart(FAILPOINT=f"{failpoint}:kill@{passes + 2 * number}")
    with world.traffic() as traffic:
        world.await_end(*world.consumers)
        traffic.await_sent(120)
    world.seen["killed"] = sum(len(each) for each in world.ends().values())


@drill("C1", "killed after the poll", "failpoint after_poll: SIGKILL with a batch in hand", uses=["failpoints"])
def c1(world: World) -> None:
    _killed_at(world, "consumer.after_poll", 5)


@drill("C2", "killed after the intent", "failpoint after_intent: SIGKILL", uses=["failpoints"])
def c2(world: World) -> None:
    _killed_at(world, "consumer.after_intent", 5)


@drill("C3", "killed during the call", "Canvas hangs in some calls (half of them applied); SIGKILL of the driver meanwhile")
def c3(world: World) -> None:
    world.expected_ends = {-9}
    with world.traffic() as traffic:
        traffic.reach(0.3)
        faults = [
            world.canvas.fault("hang", endpoints=["enrollments.create"], count=3, apply=applied) for applied in (True, False)
        ]
        faults.append(world.canvas.fault("hang", endpoints=["enrollments.delete"], count=2, apply=True))
        eventually(lambda: sum(map(world.canvas.bit, faults)) >= 2, 60, "calls hang")
        driver = world.driver()
        assert driver.service.process is not None
        driver.service.process.kill()
        world.await_end(driver)
        world.seen["hung calls"] = sum(map(world.canvas.bit, faults))
        # Those that are left hang the successor; it gives each up after its deadline.
        traffic.await_sent(120)


@drill("C4", "killed after the 2xx, before the ledger", "failpoint after_call: SIGKILL", uses=["failpoints"], smoke=True)
def c4(world: World) -> None:
    _killed_at(world, "consumer.after_call", 12)


@drill("C5", "killed after the ledger, before the commit to Kafka", "failpoint after_ledger_commit: SIGKILL", uses=["failpoints"])
def c5(world: World) -> None:
    _killed_at(world, "consumer.after_ledger_commit", 5)


@drill(
    "C6",
    "killed during the commit to Kafka",
    "failpoint after_commit: SIGKILL right after the commit was sent",
    uses=["failpoints"],
)
def c6(world: World) -> None:
    _killed_at(world, "consumer.after_commit", 5)


@drill(
    "C7",
    "a paused driver wakes with an old add in hand",
    "failpoint after_intent, then after_call: SIGSTOP past lease and session; drop by its successor; SIGCONT",
    uses=["failpoints", "signals"],
)
def c7(world: World) -> None:
    for number, step in enumerate(("after_intent", "after_call")):
        _wakes_late(world, step, f"{9_700_001 + number}")


def _wakes_late(world: World, step: str, emplid: str) -> None:
    with one_person(world, emplid) as seat:
        zombie = world.driver()
        successor = world.other(zombie)
        # Of the consumers, the one with the failpoint has to drive.
        successor.stop()
        zombie.restart(FAILPOINT=f"consumer.{step}:pause@1")
        assert world.driver() is zombie
        successor.start()
        successor.service.await_ready(90)
        post(world, enrolled(emplid, CLASS))
        eventually(lambda: signals.is_paused(zombie.pid), 60, "the failpoint stops the driver")
        begun = time.monotonic()
        eventually(lambda: successor.service.metric("sis_lease_held") == 1, 60, "the other takes over")
        world.seen[f"{step}: taken over after s"] = round(time.monotonic() - begun, 1)
        with world.traffic(students=10, sections=4, seconds=6) as traffic:
            post(world, dropped(emplid, CLASS))
            traffic.await_sent(120)
            eventually(world.arena.settled, 90, "the drop is settled")
            assert world.arena.state(seat) in (None, "deleted")
            while time.monotonic() < begun + lasting(15, 330):
                time.sleep(0.1)
            writes = len(world.canvas.writes())
            signals.resume(zombie.pid)
            time.sleep(4)
            late = [each for each in world.canvas.writes(writes) if each["user"] == emplid]
            world.seen[f"{step}: calls of the zombie"] = len(late)
        assert world.arena.state(seat) in (None, "deleted"), "I3: the old add came through and was not repaired"
        ((left,),) = world.ledger_ask("select count(*) from seat where suspect_until is not null")
        world.seen[f"{step}: suspect seats at the end"] = int(left)


@drill("C8", "SIGTERM while Canvas hangs", "calls hang (applied or not); SIGTERM to the driver")
def c8(world: World) -> None:
    with world.traffic() as traffic:
        traffic.reach(0.3)
        driver = world.driver()
        faults = [
            world.canvas.fault("hang", endpoints=["enrollments.create"], count=2, apply=applied) for applied in (True, False)
        ]
        eventually(lambda: sum(map(world.canvas.bit, faults)) >= 1, 60, "calls hang")
        begun = time.monotonic()
        code = driver.stop()
        world.seen |= {"exit code": code, "ended after s": round(time.monotonic() - begun, 1)}
        assert code == 0
        # STOP_SECONDS, 15 by default.
        assert time.monotonic() - begun < 15 + 3
        traffic.await_sent(120)


@drill(
    "C9",
    "out of memory",
    "RLIMIT_DATA at half of what the consumer has, so that it gets no page more; records of 5 MiB",
    uses=["memory"],
)
def c9(world: World) -> None:
    world.expected_dead_letters = True
    # However it dies: an error that ends it (1), an abort of a library (-6, -11), or, if it hangs on, by its liveness (-9).
    world.expected_ends = {1, -6, -9, -11}
    starved, other = world.consumers
    other.stop()
    with world.traffic() as traffic:
        traffic.reach(0.2)
        signals.limit_memory(starved.pid, 0.5)
        # What it has it may use again; megabytes in one piece it has not.
        produce(world, 0, [b"x" * (5 * 1024 * 1024)] * 4)
        world.await_end(starved, seconds=120)
        world.seen["ended with"] = str(starved.ends)
        traffic.await_sent(120)


@drill("C10", "a deadlocked worker", "failpoint after_poll: the intake's thread blocks for ever", uses=["failpoints"])
def c10(world: World) -> None:
    world.expected_ends = {-9}
    stuck, other = world.consumers
    other.stop()
    stuck.restart(FAILPOINT="consumer.after_poll:hang@4")
    with world.traffic() as traffic:
        traffic.reach(0.3)
        begun = time.monotonic()
        # Liveness fails after 30 s, and whoever looks after it kills it after three failures.
        world.await_end(stuck, seconds=120)
        assert stuck.unhealthy == 1, "it was not its liveness that ended it"
        world.seen["ended by its liveness after s"] = round(time.monotonic() - begun)
        traffic.await_sent(120)


@drill(
    "C12",
    "the dead-letter topic cannot be written",
    "an ACL takes the right to write it from the consumer; one undecodable record",
)
def c12(world: World) -> None:
    world.expected_dead_letters = True
    # The consumer that has a name of its own reads alone.
    world.consumers[1].stop()
    letters = world.topics.dead_letter(world.enrollments)
    with world.traffic() as traffic:
        traffic.reach(0.2)
        with world.brokers.unwritable(letters):
            time.sleep(3)
            offset = produce(world, 0, [b"not an event"])[0]
            time.sleep(lasting(12, 30))
            query = 'select "partition", next from intake_offset where topic = %s'
            stored = dict(world.ledger_ask(query, world.enrollments))
            committed = world.brokers.committed(world.topics.prefix).get((world.enrollments, 0), 0)
            world.seen |= {"garbage at": offset, "ledger meanwhile": stored.get(0), "committed meanwhile": committed}
            assert world.dead_letters()[world.enrollments] == 0, "the ACL did not bite"
            assert stored.get(0, 0) <= offset, "I7: the ledger went past a record that is nowhere"
            assert committed <= offset, "I7: committed past a record that is nowhere"
            ends = world.brokers.ends(world.enrollments)
            world.seen["partitions that waited"] = sorted(number for number, end in ends.items() if stored.get(number, end) < end)
        traffic.await_sent(120)
        traffic.await_converged(world.arena.settled, 180)
    world.seen["dead letters"] = world.dead_letters()[world.enrollments]
    assert world.dead_letters()[world.enrollments] == 1


@drill("C13", "most records fail, as after a bad deploy", "250 undecodable records in a row in one partition amid traffic")
def c13(world: World) -> None:
    world.expected_dead_letters = True
    count = 250
    with world.traffic() as traffic:
        traffic.reach(0.3)
        produce(world, 1, [f"bad {number}".encode() for number in range(count)])
        begun = time.monotonic()
        eventually(lambda: any(_stopped_line(part.service.url) for part in world.consumers), 60, "the line stops and says why")
        world.seen["stopped after s"] = round(time.monotonic() - begun, 1)
        time.sleep(lasting(6, 60))
        diverted = world.dead_letters()[world.enrollments]
        world.seen["dead letters by then"] = diverted
        assert diverted < count, "everything was diverted"
        answer = world.arena.operate("POST", "/intake/resume", {})
        assert answer.is_success, answer.text
        traffic.await_sent(120)
        traffic.await_converged(world.arena.settled, 180)
        eventually(lambda: world.dead_letters()[world.enrollments] >= count, 60, "after a person said so, the rest is diverted")
        world.seen["dead letters at the end"] = world.dead_letters()[world.enrollments]
        assert world.arena.ledger("select from audit where action = 'intake.resume'"), "I10: no audit row"


def _stopped_line(url: str) -> bool:
    answer = httpx.get(f"{url}/readyz", timeout=5, trust_env=False)
    return answer.json().get("flowing") is False


@drill(
    "C14",
    "two versions side by side",
    "an earlier version's consumer beside this one's; the migration killed in between",
    own_world=True,
)
def c14(world: World) -> None:
    previous = _previous_release(world)
    # A ledger of the previous release: nothing of it may know this one.
    for part in world.consumers:
        part.stop()
    world.ledger.execute("drop schema ledger cascade", "ledger")
    group = {"GROUP_ID": f"{world.topics.prefix}-c14"}
    old, new = world.consumers
    environment = {"PYTHONPATH": str(previous), "PYTHONSAFEPATH": "1", **group}
    old.start(**environment)
    old.service.await_ready(90)
    with world.traffic(seconds=25) as traffic:
        traffic.reach(0.3)
        killed = 0
        for delay in (1.0, 1.3, 1.6, 2.0):
            new.start(**group)
            time.sleep(delay)
            new.kill()
            killed += 1
        world.seen["killed while starting"] = killed
        new.start(**group)
        new.service.await_ready(90)
        traffic.reach(0.7)
        assert old.service.alive, "the old release died of the new schema"
        traffic.await_sent(120)
        traffic.await_converged(world.arena.settled, 180)
        old.kill()
    world.seen["previous"] = previous.name


def _previous_release(world: World) -> Path:
    """The sources of ``DRILLS_PREVIOUS`` (any revision), or of the newest tag, unpacked. Raises `NotRun` without either."""
    root = Path(__file__).parents[3]
    newest_tag = ["git", "describe", "--tags", "--abbrev=0"]
    revision = (
        os.environ.get("DRILLS_PREVIOUS")
        or subprocess.run(newest_tag, cwd=root, capture_output=True, text=True, check=False).stdout.strip()
    )
    if not revision:
        raise NotRun("nothing has been released yet; DRILLS_PREVIOUS=<revision> names what to run beside this one")
    folder = world.data / revision
    folder.mkdir()
    archive = subprocess.run(
        ["git", "archive", revision, "schemas", "services"], cwd=root, capture_output=True, check=True
    ).stdout
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive, check=True)
    return folder
