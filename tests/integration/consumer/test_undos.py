"""Undoing what was done to the LMS between two times: what is planned, what is overridden, and the way back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import orjson
import pytest

from services.consumer.guard import reviewing
from services.consumer.ledger import policies, undo_plans
from services.consumer.policy.model import default_text
from tests.integration.consumer.api_support import Api
from tests.integration.consumer.ledger_support import TENANT, Ledger, enrollment

WEEK = timedelta(days=7)


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    ledger = Ledger(database_url)
    yield ledger
    ledger.close()


@pytest.fixture
def api(ledger: Ledger, tmp_path: Path) -> Api:
    return Api(ledger, tmp_path)


def driven(ledger: Ledger) -> None:
    """What the driver does about all work: the LMS becomes as wanted, and the history says so."""
    for person, section, seat, before, desired in ledger.rows(
        """select seat.person, seat.section, seat.seat, replace(seat.applied, 'unknown', 'absent'), seat.desired
             from work join seat using (target, seat)"""
    ):
        detail = {"call": "write", "outcome": "done", "before": before, "applied": desired}
        ledger.connection.execute(
            """insert into history (tenant, person, section, target, seat, what, detail)
               values (%s, %s, %s, 'canvas', %s, 'outcome', %s)""",
            [TENANT, person, section, seat, orjson.dumps(detail).decode()],
        )
    ledger.settle()


def now(ledger: Ledger) -> datetime:
    moment: datetime = ledger.rows("select clock_timestamp()")[0][0]
    return moment


@pytest.fixture
def bad_morning(ledger: Ledger) -> tuple[datetime, datetime]:
    """Twenty people have seats; then a feed drops ten of them, and gives one who never had any. The time between."""
    ledger.take(*(enrollment(person=f"p{number:02}") for number in range(20)))
    driven(ledger)
    begins = now(ledger)
    ledger.take(*(enrollment("dropped", person=f"p{number:02}", version=2) for number in range(10)), enrollment(person="new"))
    driven(ledger)
    return begins, now(ledger)


def order(morning: tuple[datetime, datetime], **more: Any) -> dict[str, Any]:
    begins, ends = morning
    return {"from": begins.isoformat(), "until": ends.isoformat(), "scope": {"everything": {}}} | more


async def planned(api: Api, morning: tuple[datetime, datetime], **more: Any) -> dict[str, Any]:
    answer = await api.call("POST", "/undos/plan", json=order(morning, **more))
    assert answer.status_code == HTTPStatus.OK, answer.text
    plan: dict[str, Any] = answer.json()
    return plan


def application(morning: tuple[datetime, datetime], digest: str, **more: Any) -> dict[str, Any]:
    until = (datetime.now(UTC) + WEEK).isoformat()
    return order(morning, digest=digest, in_force_until=until, reason="the feed of this morning was wrong", **more)


def seats(ledger: Ledger, desired: str) -> set[str]:
    return {person for (person,) in ledger.rows("select person from seat where desired = %s", desired)}


DROPPED = {f"p{number:02}" for number in range(10)}


async def test_a_morning_is_undone_and_the_undo_is_withdrawn(
    api: Api, ledger: Ledger, bad_morning: tuple[datetime, datetime]
) -> None:
    plan = await planned(api, bad_morning)
    assert plan["seats"] == 11
    gives = {one["person"]: (one["gives"], one["shown"]) for one in plan["inverses"]}
    assert gives == dict.fromkeys(DROPPED, ("active", "deleted")) | {"new": ("deleted", "active")}
    assert ledger.work() == {}

    answer = await api.call("POST", "/undos", json=application(bad_morning, plan["digest"]))
    assert answer.status_code == HTTPStatus.CREATED, answer.text
    undo = answer.json()["undo"]
    assert (answer.json()["overrides"], answer.json()["left"]) == (11, 0)
    assert (seats(ledger, "deleted"), len(ledger.work())) == ({"new"}, 11)
    ledger.check()
    driven(ledger)
    assert (await planned(api, bad_morning))["left_alone"] == {"as_before": 11}
    told = (await api.call("GET", f"/undos/{undo}")).json()
    assert (told["seats"], told["in_force"], told["scope"]) == (11, 11, {"everything": {}})
    assert [one["undo"] for one in (await api.call("GET", "/undos")).json()["undos"]] == [undo]

    # What the student system says meanwhile counts when the undo is over.
    ledger.take(enrollment(person="p00", version=3))
    ended = await api.call("POST", f"/undos/{undo}/withdraw", json={"reason": "the feed is right again"})
    assert ended.json()["ended"] == 11
    assert seats(ledger, "deleted") == DROPPED - {"p00"}
    ledger.check()
    again = await api.call("POST", f"/undos/{undo}/withdraw", json={"reason": "once more"})
    assert (again.status_code, again.json()["reason"]) == (HTTPStatus.CONFLICT, "withdrawn")
    assert ("ops", "undos.apply", "done") in [one[:3] for one in api.audit()]
    assert "this morning" not in str(api.audit())


@pytest.mark.parametrize(
    ("scope", "count"),
    [
        ({"term": {"institution": "PSUNV", "term": "1259"}}, 11),
        ({"term": {"institution": "PSUNV", "term": "125"}}, 0),
        ({"section": {"institution": "PSUNV", "term": "1259", "section": "1002"}}, 0),
        ({"person": {"person": "p03"}}, 1),
    ],
)
async def test_an_undo_has_a_scope(api: Api, bad_morning: tuple[datetime, datetime], scope: dict[str, Any], count: int) -> None:
    assert (await planned(api, bad_morning, scope=scope))["seats"] == count


async def test_only_what_was_done_within_the_time_is_undone(
    api: Api, ledger: Ledger, bad_morning: tuple[datetime, datetime]
) -> None:
    begins, ends = bad_morning
    assert (await planned(api, (begins - timedelta(days=1), begins)))["left_alone"] == {"as_before": 10}
    assert (await planned(api, (ends, ends + timedelta(days=1))))["seats"] == 0


async def test_a_seat_that_changed_twice_goes_back_to_what_it_was_first(
    api: Api, ledger: Ledger, bad_morning: tuple[datetime, datetime]
) -> None:
    ledger.take(enrollment("withdrawn", person="p15", version=2))
    driven(ledger)
    ledger.take(enrollment("dropped", person="p15", version=3))
    driven(ledger)
    plan = await planned(api, (bad_morning[0], now(ledger)))
    assert [one["gives"] for one in plan["inverses"] if one["person"] == "p15"] == ["active"]


async def test_a_change_of_which_nobody_heard_is_undone_as_well(
    api: Api, ledger: Ledger, bad_morning: tuple[datetime, datetime]
) -> None:
    """Its answer was lost, and a later read found it done."""
    ledger.connection.execute(
        """update history set detail = detail || '{"outcome": "unknown", "applied": "unknown"}'
            where person = 'p01' and detail ->> 'applied' = 'deleted'"""
    )
    assert (await planned(api, bad_morning, scope={"person": {"person": "p01"}}))["seats"] == 1


async def test_what_nobody_knows_or_no_role_stands_for_is_left_alone(
    api: Api, ledger: Ledger, bad_morning: tuple[datetime, datetime]
) -> None:
    ledger.connection.execute(
        "update history set detail = detail - 'before' where person = 'p01' and detail ->> 'applied' = 'deleted'"
    )
    ledger.connection.execute(
        """update history set detail = detail || '{"before": "other"}'
            where person = 'p02' and detail ->> 'applied' = 'deleted'"""
    )
    ledger.connection.execute("update seat set role = 'Guest' where person = 'p03'")
    plan = await planned(api, bad_morning)
    assert (plan["seats"], plan["left_alone"]) == (8, {"not_known": 2, "no_role": 1})


async def test_a_plan_that_says_something_else_by_now_is_not_carried_out(
    api: Api, ledger: Ledger, bad_morning: tuple[datetime, datetime]
) -> None:
    plan = await planned(api, bad_morning)
    ledger.take(enrollment(person="p04", version=3))
    driven(ledger)
    answer = await api.call("POST", "/undos", json=application(bad_morning, plan["digest"]))
    assert (answer.status_code, answer.json()["reason"], answer.json()["now"]["seats"]) == (409, "world_changed", 10)
    assert ledger.rows("select count(*) from override") == [(0,)]


async def test_a_seat_that_an_override_decides_stays_with_it(
    api: Api, ledger: Ledger, bad_morning: tuple[datetime, datetime]
) -> None:
    section = {"institution": "PSUNV", "term": "1259", "section": "1001"}
    until = (datetime.now(UTC) + WEEK).isoformat()
    body = {"person": "p05", "section": section, "role": "student", "gives": "inactive", "until": until, "reason": "appeal"}
    assert (await api.call("POST", "/overrides", json=body)).status_code == HTTPStatus.CREATED
    plan = await planned(api, bad_morning)
    answer = await api.call("POST", "/undos", json=application(bad_morning, plan["digest"]))
    assert (answer.json()["overrides"], answer.json()["left"]) == (10, 1)
    assert "p05" in seats(ledger, "inactive")


async def test_the_guard_counts_what_an_undo_takes_away(api: Api, ledger: Ledger) -> None:
    policies.store(ledger.connection, TENANT, default_text().replace("wait_seconds: 60", "wait_seconds: 0"), "registrar")
    begins = now(ledger)
    ledger.take(*(enrollment(person=f"p{number:02}") for number in range(20)))
    driven(ledger)
    morning = begins, now(ledger)
    plan = await planned(api, morning)
    assert (await api.call("POST", "/undos", json=application(morning, plan["digest"]))).status_code == HTTPStatus.CREATED
    assert set(ledger.work().values()) == {"guarded"}
    assert reviewing.review(ledger.connection, "canvas", ledger.policies, lambda _: True).held == 20


async def test_too_much_at_once_is_refused_with_what_to_do(
    api: Api, bad_morning: tuple[datetime, datetime], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(undo_plans, "MOST", 10)
    answer = await api.call("POST", "/undos/plan", json=order(bad_morning))
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/scope")


@pytest.mark.parametrize(
    "wrong",
    [{"until": "2020-01-01T00:00:00Z"}, {"scope": {}}, {"from": "2026-01-01T00:00:00"}, {"scope": {"person": {}}}],
)
async def test_what_is_not_valid_is_refused(api: Api, bad_morning: tuple[datetime, datetime], wrong: dict[str, Any]) -> None:
    assert (await api.call("POST", "/undos/plan", json=order(bad_morning) | wrong)).status_code == 422


@pytest.mark.parametrize("days", [-1, 1000])
async def test_an_end_out_of_bounds_is_refused(api: Api, bad_morning: tuple[datetime, datetime], days: int) -> None:
    plan = await planned(api, bad_morning)
    end = (datetime.now(UTC) + timedelta(days=days)).isoformat()
    answer = await api.call("POST", "/undos", json=application(bad_morning, plan["digest"]) | {"in_force_until": end})
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/in_force_until")


async def test_what_does_not_exist_is_not_found(api: Api) -> None:
    for name in ("00000000-0000-4000-8000-000000000000", "no-id"):
        assert (await api.call("GET", f"/undos/{name}")).status_code == HTTPStatus.NOT_FOUND
        answer = await api.call("POST", f"/undos/{name}/withdraw", json={"reason": "because"})
        assert answer.status_code == HTTPStatus.NOT_FOUND
