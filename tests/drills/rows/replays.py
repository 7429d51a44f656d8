"""Replays: amid traffic, of what died, in a process that is killed."""

from __future__ import annotations

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from services.sandbox.demo.verdict import Latencies, measure
from services.sandbox.sis.school import INSTITUTION, TERM
from tests.drills.catalogue import drill
from tests.drills.rows.people import a_class, active, await_settled, drop, post
from tests.drills.supervisor import Part
from tests.drills.traffic import Traffic
from tests.drills.world import World
from tests.e2e.arena import enrolled, eventually

SLOW = {"REPLAY_SEATS_PER_SECOND": "8"}
"""So that there is time to do something about a replay of a hundred seats."""
_LEASE_SECONDS = 15
"""A replay's; see `services.consumer.replay.runner.Pace`."""


@drill(
    "O1",
    "a replay of a day while changes arrive, cancelled half-way, resumed",
    "a morning's records by their times, each seat read back (verify), beside the next morning; cancelled at half; planned and "
    "applied anew",
)
def o1(world: World) -> None:
    since = datetime.now(UTC)
    with world.traffic(seconds=10) as day:
        pass
    scope = {"times": {"topic": world.enrollments, "since": since.isoformat(), "until": datetime.now(UTC).isoformat()}}
    attempts = len(day.attempts())
    for part in world.consumers:
        part.restart(**SLOW)
    with world.traffic(seconds=30) as live:
        live.reach(0.1)
        total = planned(world, scope, verify=True)["total"]
        first = applied(world, planned(world, scope, verify=True))
        eventually(lambda: told(world, first)["done"] * 2 >= total, 90, "half of the replay is done")
        assert world.arena.operate("POST", f"/replays/{first}/cancel").status_code == HTTPStatus.OK
        cancelled = told(world, first)
        assert cancelled["state"] == "cancelled"
        assert cancelled["done"] < total, "nothing was left to resume: the drill proves nothing"
        second = applied(world, planned(world, scope, verify=True))
        await_done(world, second)
        assert told(world, first)["done"] == cancelled["done"], "a cancelled replay went on"
        live.await_sent(120)
    alone, beside = _p95(day), _p95(live)
    world.seen |= {"records": total, "done when cancelled": cancelled["done"], "p95 s alone": alone, "p95 s beside it": beside}
    assert beside < 2 * alone + 3, "live changes waited for the replay"
    assert len(day.attempts()) == attempts, "I11: a replay of a settled morning changed something"
    world.seen["verdicts"] = _exact(world, second)


def _p95(traffic: Traffic) -> float:
    """Seconds from a post to Canvas, of adds and drops."""
    timing = measure(traffic.morning, traffic.deliveries, traffic.writes(), traffic.started)
    value = Latencies(timing.adds.values + timing.drops.values).percentile(0.95)
    assert value is not None
    return round(value, 1)


@drill(
    "O4",
    "an old add is dead, a newer drop was applied, the group is redriven",
    "two adds into a concluded course; one is dropped; the course opens; the group of dead letters, then the old record itself, "
    "replayed",
)
def o4(world: World) -> None:
    class_nbr, people = "99904", ["9704001", "9704002"]
    gone, staying = people
    with a_class(world, class_nbr, people), world.traffic() as traffic:
        _course(world, "completed")
        post(world, *(enrolled(emplid, class_nbr) for emplid in people))
        eventually(lambda: _states(world, people) == ["dead", "dead"], 60, "Canvas takes nobody into a concluded course")
        ((topic, partition, offset),) = world.ledger_ask(
            """select topic, "partition", "offset" from entity where kind = 'enrollment' and person = %s""", gone
        )
        drop(world, class_nbr, [gone])
        _course(world, "available")
        (group,) = world.arena.operate("GET", "/dead-letters").json()["classes"]
        plan = planned(world, {"dead_letters": {"class": group["class"]}})
        assert plan["changes"] == group["seats"] == 1, "the one who was dropped is no dead letter any more"
        await_done(world, applied(world, plan))
        await_settled(world, people)
        assert active(world, class_nbr) == {staying}
        record = {"offsets": {"topic": topic, "partition": partition, "from": offset, "to": offset}}
        replay = applied(world, planned(world, record, verify=True))
        await_done(world, replay)
        world.seen["the old record"] = [line["verdict"] for line in told(world, replay)["lines"]]
        assert world.seen["the old record"] == ["superseded"]
        traffic.await_sent(120)
        assert active(world, class_nbr) == {staying}, "I3: who was dropped is back"
        assert not [each for each in traffic.canvas.writes() if each["user"] == gone and each["after"] == "active"]


def _course(world: World, state: str) -> None:
    """The course of all classes that drills follow by hand."""
    world.canvas.objects(courses=[{"sis_course_id": f"{TERM}-009001", "state": state}])


def _states(world: World, people: list[str]) -> list[str]:
    return [str(state) for (state,) in world.ledger_ask("select state from work where person = any(%s)", people)]


@drill(
    "O7",
    "the process that carries out a replay is killed, and its successor too",
    "SIGKILL of the consumer that owns it, twice, while it goes on",
    uses=["signals"],
)
def o7(world: World) -> None:
    world.expected_ends = {-9}
    since = datetime.now(UTC)
    with world.traffic(seconds=10) as day:
        pass
    scope = {"times": {"topic": world.enrollments, "since": since.isoformat(), "until": datetime.now(UTC).isoformat()}}
    attempts = len(day.attempts())
    for part in world.consumers:
        part.restart(**SLOW)
    with world.traffic(seconds=30, students=10, sections=4) as traffic:
        plan = planned(world, scope, verify=True)
        replay = applied(world, plan)
        for share in (0.2, 0.5):
            eventually(lambda share=share: _done(world, replay) >= share * plan["total"], 90, "the replay goes on")  # type: ignore[misc]
            owner = _owner(world, replay)
            assert owner.service.process is not None
            owner.normal = dict(owner.normal) | SLOW
            owner.service.process.kill()
            done = _done(world, replay)
            assert done < plan["total"], "it was done: the drill proves nothing"
            eventually(lambda done=done: _done(world, replay) > done, 2 * _LEASE_SECONDS, "somebody goes on with it")  # type: ignore[misc]
        eventually(lambda: _done(world, replay) == plan["total"], 90, "the replay comes to its end")
        traffic.await_sent(120)
    world.seen["killed"] = sum(len(each) for each in world.ends().values())
    world.seen["verdicts"] = _exact(world, replay)
    assert len(day.attempts()) == attempts, "I11: a replay of a settled morning changed something"
    assert world.ledger_ask("select count(*) from audit where action = 'replay.apply' and detail->>'replay' = %s", replay) == [
        (1,)
    ]


def _owner(world: World, replay: str) -> Part:
    """Whoever carries it out, by the process id in the owner's name."""
    ((owner,),) = world.ledger_ask("select owner from replay where replay = %s", replay)
    return next(part for part in world.consumers if f"-{part.pid}-" in owner)


def _done(world: World, replay: str) -> int:
    """Of the ledger: the process that would be asked may be down."""
    ((done,),) = world.ledger_ask("select done from replay where replay = %s", replay)
    return int(done)


def _exact(world: World, replay: str) -> str:
    """The number of records per verdict, after each record of the ranges was found to have exactly one."""
    asked = world.ledger_ask(
        """select "partition", generate_series(first, last) from replay_range where replay = %s order by 1, 2""", replay
    )
    judged = world.ledger_ask("""select "partition", "offset" from replay_line where replay = %s order by 1, 2""", replay)
    assert judged == asked, "a record was judged twice, or not at all"
    opened = world.ledger_ask(
        """select count(*), count(distinct (target, seat)) from history where detail->>'replay' = %s and what = 'reopened'""",
        replay,
    )
    ((times, seats),) = opened
    world.seen |= {"seats opened": int(seats)}
    assert times == seats > 0, "a seat was opened twice"
    verdicts = world.arena.operate("GET", f"/replays/{replay}").json()["verdicts"]
    assert sum(verdicts.values()) == len(asked)
    assert verdicts.keys() <= {"applied", "already_satisfied", "superseded", "no_seat"}, verdicts
    return ", ".join(f"{name} {count}" for name, count in sorted(verdicts.items()))


# --- what every drill does with replays ---


def planned(world: World, scope: dict[str, Any], *, verify: bool = False) -> dict[str, Any]:
    """A plan that is done."""
    answer = world.arena.operate("POST", "/replays", {"scope": scope, "verify": verify})
    assert answer.status_code == HTTPStatus.ACCEPTED, answer.text
    await_done(world, answer.json()["replay"])
    return told(world, answer.json()["replay"])


def applied(world: World, plan: dict[str, Any]) -> str:
    """The id of the replay that carries the plan out."""
    answer = world.arena.operate("POST", f"/replays/{plan['replay']}/apply", {"digest": plan["digest"]})
    assert answer.status_code == HTTPStatus.ACCEPTED, answer.text
    return str(answer.json()["replay"])


def told(world: World, replay: str) -> dict[str, Any]:
    """Its report."""
    answer: dict[str, Any] = world.arena.operate("GET", f"/replays/{replay}").json()
    return answer


def await_done(world: World, replay: str) -> None:
    """Block until it has come to its end."""
    eventually(lambda: told(world, replay)["state"] == "done", 120, f"replay {replay} is done")


def section(class_nbr: str) -> dict[str, str]:
    """A class, as operators name it."""
    return {"institution": INSTITUTION, "term": TERM, "section": class_nbr}
