"""Operators: two at once, with old knowledge, without an audit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from threading import Barrier
from typing import Any

import httpx
import pytest

from services.sandbox.sis.truth import section_id
from tests.drills.catalogue import drill
from tests.drills.rows.people import a_class, active, await_settled, drop, enroll, post
from tests.drills.rows.replays import applied, await_done, planned, section
from tests.drills.world import World
from tests.e2e.arena import dropped, eventually
from tests.policies import unguarded

REASON = "drilled"


@drill(
    "O2",
    "two operators apply one plan, each with a double click; a lost reply, then a retry",
    "the reply cut off on its way and asked for again; then four calls at the same moment, at two processes, by two people",
    uses=["proxy"],
    smoke=True,
)
def o2(world: World) -> None:
    class_nbr, people = "99902", [f"970200{number}" for number in range(1, 6)]
    lossy = world.network.link("operations", ("127.0.0.1", world.consumers[0].service.port))
    with a_class(world, class_nbr, people), world.traffic() as traffic:
        enroll(world, class_nbr, people)
        writes = _writes(world, class_nbr)
        scope = {"section": section(class_nbr)}

        plan = planned(world, scope, verify=True)
        with lossy.cut("down"), pytest.raises(httpx.TransportError):
            _apply(world, plan, at=f"http://127.0.0.1:{lossy.port}")
        lossy.reset()
        assert len(_audited(world, plan)) == 1, "the first call did nothing: the drill proves nothing"
        retried = _apply(world, plan)
        await_done(world, retried)
        assert _replays_of(world, plan) == [retried]
        assert len(_audited(world, plan)) == 2

        plan = planned(world, scope, verify=True)
        callers = [(part.service.url, token) for part in world.consumers for token in _tokens(world)]
        start = Barrier(len(callers))

        def click(caller: tuple[str, str]) -> str:
            start.wait(20)
            return _apply(world, plan, at=caller[0], token=caller[1])

        with ThreadPoolExecutor(len(callers)) as threads:
            answers = set(threads.map(click, callers))
        await_done(world, next(iter(answers)))
        assert _replays_of(world, plan) == sorted(answers)
        assert len(answers) == 1, "I10: more than one operation"
        assert sorted(_audited(world, plan)) == ["colleague", "colleague", "operator", "operator"]
        assert _writes(world, class_nbr) == writes, "I11: a replay of settled seats changed something"
        world.seen |= {"operations": 2, "calls of operators": 2 + len(callers)}
        traffic.await_sent(120)


def _tokens(world: World) -> tuple[str, str]:
    return world.system.operator_token, world.system.colleague_token


def _apply(world: World, plan: dict[str, Any], at: str | None = None, token: str | None = None) -> str:
    answer = world.arena.operate("POST", f"/replays/{plan['replay']}/apply", {"digest": plan["digest"]}, at=at, token=token)
    assert answer.status_code == HTTPStatus.ACCEPTED, answer.text
    return str(answer.json()["replay"])


def _audited(world: World, plan: dict[str, Any]) -> list[str]:
    """Who has asked for it, once a call."""
    query = "select actor from audit where action = 'replay.apply' and detail->>'plan' = %s"
    return [str(actor) for (actor,) in world.ledger_ask(query, plan["replay"])]


def _replays_of(world: World, plan: dict[str, Any]) -> list[str]:
    return [str(replay) for (replay,) in world.ledger_ask("select replay from replay where plan = %s", plan["replay"])]


def _writes(world: World, class_nbr: str) -> int:
    return sum(each["section"] == section_id(class_nbr) for each in world.canvas.writes())


@drill(
    "O3",
    "a plan is made, the world changes, the plan is applied",
    "plans of a replay, a policy and an undo; one person drops, another enrolls; each plan applied, then made anew",
)
def o3(world: World) -> None:
    class_nbr, people = "99903", [f"970300{number}" for number in range(1, 6)]
    *early, late = people
    begun = datetime.now(UTC)
    with a_class(world, class_nbr, people), world.traffic() as traffic:
        enroll(world, class_nbr, early)
        replay = planned(world, {"section": section(class_nbr)}, verify=True)
        policy = unguarded().replace("student: StudentEnrollment", "student: TaEnrollment")
        policy_digest = _plan(world, "/policies/plan", policy)["digest"]
        window = {"from": begun.isoformat(), "until": datetime.now(UTC).isoformat(), "scope": {"section": section(class_nbr)}}
        undo_digest = _plan(world, "/undos/plan", window)["digest"]

        drop(world, class_nbr, early[:1])
        enroll(world, class_nbr, [late])
        writes = _writes(world, class_nbr)
        before = _rows(world, "replay", "policy", "undo", "override")
        undo = window | {"digest": undo_digest, "reason": REASON, "in_force_until": (begun + timedelta(days=1)).isoformat()}
        refused = {
            "replay": world.arena.operate("POST", f"/replays/{replay['replay']}/apply", {"digest": replay["digest"]}),
            "policy": world.arena.operate("POST", f"/policies/apply?plan={policy_digest}", policy),
            "undo": world.arena.operate("POST", "/undos", undo),
        }
        for what, answer in refused.items():
            assert (answer.status_code, answer.json()["reason"]) == (HTTPStatus.CONFLICT, "world_changed"), (what, answer.text)
        difference = refused["replay"].json()
        counts = {kind: difference[kind] for kind in ("appeared", "vanished", "changed")}
        world.seen["difference told"] = ", ".join(f"{kind} {count}" for kind, count in counts.items())
        assert {one["seat"]["lms_user"] for one in difference["difference"]} == {early[0], late}
        assert _rows(world, "replay", "policy", "undo", "override") == before, "a refused plan left something behind"
        assert _writes(world, class_nbr) == writes
        query = "select count(*) from audit where outcome = 'refused' and at >= %s and detail->>'reason' = 'world_changed'"
        assert world.ledger_ask(query, begun) == [(len(refused),)], "I10"
        await_done(world, applied(world, planned(world, {"section": section(class_nbr)}, verify=True)))
        traffic.await_sent(120)
        assert active(world, class_nbr) == {*early[1:], late}


def _plan(world: World, path: str, asked: object) -> dict[str, Any]:
    answer = world.arena.operate("POST", path, asked)
    assert answer.status_code == HTTPStatus.OK, answer.text
    told: dict[str, Any] = answer.json()
    return told


def _rows(world: World, *tables: str) -> dict[str, int]:
    return {table: int(world.ledger_ask(f"select count(*) from {table}")[0][0]) for table in tables}  # noqa: S608  (ours)


GUARDED = unguarded().replace(
    "guard: none",
    "guard: {wait_seconds: 1, section: {quarter_hour: {percent: 50, at_least: 5}}, two_people_above: 8}",
)
"""Five removals that are half of a section are held; more than eight of them need two people."""


@drill(
    "O5",
    "a hold is approved after it changed, twice by one person, after the first approval lapsed, when it is over",
    "a class of twelve, ten of them dropped under a guard; calls by one person, then by two; the first approval put back by four "
    "hours; meanwhile one comes back, and another drops",
)
def o5(world: World) -> None:
    class_nbr, people = "99905", [f"97050{number:02}" for number in range(12)]
    out, back, later = people[:10], people[0], people[10]
    with a_class(world, class_nbr, people):
        enroll(world, class_nbr, people)
        with _policy(world, GUARDED):
            post(world, *(dropped(emplid, class_nbr) for emplid in out))
            eventually(lambda: _held(world) == len(out), 60, "all of them are held")
            hold = _hold(world)
            world.seen["held"] = hold["held"]

            # Ten need two people. One is not two.
            assert _approve(world, hold).status_code == HTTPStatus.ACCEPTED
            again = _approve(world, hold)
            assert (again.status_code, again.json()["reason"]) == (HTTPStatus.CONFLICT, "same_person")

            # Half a day later nobody remembers what the first one saw.
            with world.ledger_session() as ledger:
                ledger.execute(
                    "update hold set first_lapses_at = first_lapses_at - interval '4 hours' where hold = %s", [hold["hold"]]
                )
            lapsed = _approve(world, hold, token=world.system.colleague_token)
            assert lapsed.status_code == HTTPStatus.ACCEPTED, "an approval that had lapsed counted"
            assert active(world, class_nbr) == set(people), "I9: somebody lost access without an approval"

            # Meanwhile one comes back, and another one goes, whom neither has seen.
            enroll(world, class_nbr, [back])
            post(world, dropped(later, class_nbr))
            eventually(lambda: _held(world) == len(out), 60, "who came back has left the hold, who went later is in it")
            unseen = _approve(world, hold | {"snapshot": _hold(world)["snapshot"] + 1})
            assert (unseen.status_code, unseen.json()["reason"]) == (HTTPStatus.CONFLICT, "unknown_snapshot")
            done = _approve(world, _hold(world))
            assert done.json() == {"hold": hold["hold"], "approved": 9, "left": 1}, done.text
            await_settled(world, out)
            assert active(world, class_nbr) == {back, later, people[11]}, "I9: more went than two people have seen"

            # The last one comes back: the hold is over, and there is nothing to approve.
            enroll(world, class_nbr, [later])
            eventually(lambda: _hold(world, hold["hold"])["state"] != "open", 60, "an empty hold is over")
            over = _approve(world, hold)
            assert over.status_code == HTTPStatus.CONFLICT
            world.seen |= {"approved by two": 9, "an approval of what is over": over.json()["reason"]}
            asked = world.ledger_ask(
                "select outcome, count(*) from audit where action = 'holds.approve' and detail->>'hold' = %s group by outcome",
                str(hold["hold"]),
            )
            assert dict(asked) == {"done": 3, "refused": 3}, "I10"
    with world.traffic(seconds=6):
        pass


@contextmanager
def _policy(world: World, text: str) -> Iterator[None]:
    """Another policy inside."""
    _switch(world, text)
    yield
    _switch(world, unguarded())


def _switch(world: World, text: str) -> None:
    digest = _plan(world, "/policies/plan", text)["digest"]
    answer = world.arena.operate("POST", f"/policies/apply?plan={digest}", text)
    assert answer.status_code == HTTPStatus.ACCEPTED, answer.text
    eventually(lambda: _plan(world, "/policies/plan", text)["reached_everybody"], 60, "everybody is decided under the policy")


def _held(world: World) -> int:
    return int(world.ledger_ask("select count(*) from work where state = 'held'")[0][0])


def _hold(world: World, number: int | None = None) -> dict[str, Any]:
    """The one that is open, or one by its number."""
    if number is not None:
        one: dict[str, Any] = world.arena.operate("GET", f"/holds/{number}").json()
        return one
    (hold,) = world.arena.operate("GET", "/holds").json()["holds"]
    return dict(hold)


def _approve(world: World, hold: dict[str, Any], token: str | None = None) -> httpx.Response:
    asked = {"snapshot": hold["snapshot"], "reason": REASON}
    return world.arena.operate("POST", f"/holds/{hold['hold']}/approve", asked, token=token)


@drill(
    "O6",
    "the audit cannot be written",
    "its table taken out of the ledger amid traffic; every kind of call that changes something; then put back",
)
def o6(world: World) -> None:
    class_nbr, people = "99906", ["9706001", "9706002"]
    with a_class(world, class_nbr, people), world.traffic() as traffic:
        enroll(world, class_nbr, people)
        plan = planned(world, {"section": section(class_nbr)}, verify=True)
        before, rows = _standing(world), _rows(world, "audit")
        with _without_audit(world):
            refused = [world.arena.operate("POST", path, asked) for path, asked in _mutations(class_nbr, people[0], plan)]
            assert {answer.status_code for answer in refused} == {HTTPStatus.SERVICE_UNAVAILABLE}, [each.text for each in refused]
            assert _standing(world) == before, "I10: something was done that no audit shows"
            trace = world.arena.operate("POST", "/trace", {"person": people[0], "section": section(class_nbr)})
            assert trace.status_code == HTTPStatus.SERVICE_UNAVAILABLE, "somebody's record was read, and no audit shows it"
            for path in STATUS:
                assert world.arena.operate("GET", path).status_code == HTTPStatus.OK, path
            traffic.await_sent(120)
            traffic.await_converged(world.arena.settled, 180)
        assert _rows(world, "audit") == rows
        await_done(world, applied(world, plan))
        world.seen |= {"mutations refused": len(refused), "reads answered": len(STATUS)}
        refusals = sum(part.service.metric("sis_operator_actions_total", result="unavailable") for part in world.consumers)
        world.seen["counted as unavailable"] = int(refusals)
        assert refusals == len(refused) + 1


STATUS = (
    "/healthz",
    "/metrics",
    "/holds",
    "/removals",
    "/seats/summary",
    "/dead-letters",
    "/intake/stops",
    "/comparisons",
    "/writing",
)
"""What shows nobody."""


def _mutations(class_nbr: str, emplid: str, plan: dict[str, Any]) -> Sequence[tuple[str, object]]:
    """One call of each kind."""
    place, now = section(class_nbr), datetime.now(UTC)
    day = {"from": now.isoformat(), "until": (now + timedelta(days=1)).isoformat()}
    override = {
        "person": emplid,
        "section": place,
        "role": "student",
        "gives": "deleted",
        "until": day["until"],
        "reason": REASON,
    }
    return [
        ("/replays", {"scope": {"section": place}}),
        (f"/replays/{plan['replay']}/apply", {"digest": plan["digest"]}),
        ("/overrides", override),
        ("/removals/pause", {"reason": REASON}),
        ("/planned-changes", {"scope": {"section": place}, "most": 5, "reason": REASON, **day}),
        ("/comparisons", {"scope": {"section": place}}),
        ("/writing", {"live": False, "reason": REASON}),
        ("/intake/resume", {}),
    ]


def _standing(world: World) -> dict[str, int]:
    """Everything that such calls make."""
    tables = ("replay", "override", "planned_change", "roster_run", "writing")
    ((paused,),) = world.ledger_ask("select count(*) from guard where paused")
    return _rows(world, *tables) | {"paused": int(paused)}


@contextmanager
def _without_audit(world: World) -> Iterator[None]:
    with world.ledger_session() as ledger:
        ledger.execute("alter table audit rename to audit_taken_away")
    yield
    with world.ledger_session() as ledger:
        ledger.execute("alter table audit_taken_away rename to audit")
