"""A replay of any scope is planned, then applied as planned, or refused with what has changed meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from schemas.keys import enrollment_key
from schemas.topics import Topics
from services.consumer.nouns import SeatRef
from services.kit.kafka import KafkaSettings
from tests.integration.consumer.ledger_support import Ledger, enrollment, seat, section_event
from tests.integration.consumer.replay_support import Operator, Site, seat_told

ANA, BEN, CLEO, DORA, EVE = "9000001", "9000002", "9000003", "9000004", "9000005"
EVERYBODY = [
    enrollment(version=1, person=ANA),
    enrollment(version=2, person=BEN),
    enrollment(version=3, person=CLEO),
    enrollment(version=4, person=DORA, section="1002"),
    enrollment(version=5, person=ANA, section="1002"),
    enrollment(version=6, person=EVE, section="1002"),
]
SECTION = {"institution": "PSUNV", "term": "1259", "section": "1001"}
TERM = {"institution": "PSUNV", "term": "1259"}
SCOPES: dict[str, Any] = {
    "offsets": None,  # of a topic that each test has for itself, see `scope_named`
    "key": {"kind": "enrollment", "key": enrollment_key("main", "PSUNV", "1259", "1001", ANA, "learner").key},
    "person": {"person": ANA},
    "section": SECTION,
    "term": TERM,
    "dead_letters": {"class": "refused:validation"},
}
OPENED = {
    "offsets": {seat(ANA), seat(BEN), seat(DORA, "1002"), seat(EVE, "1002")},
    "key": {seat(ANA)},
    "person": {seat(ANA)},
    "section": {seat(ANA), seat(BEN)},
    "term": {seat(ANA), seat(BEN), seat(DORA, "1002"), seat(EVE, "1002")},
    "dead_letters": {seat(ANA), seat(DORA, "1002")},
}
each_scope = pytest.mark.parametrize("name", SCOPES)

pytestmark = pytest.mark.parametrize("kafka", ["embedded"], indirect=True)


@pytest.fixture
def operator(kafka: KafkaSettings, topics: Topics, database_url: str, tmp_path: Path) -> Iterator[Operator]:
    ledger = Ledger(database_url)
    yield Operator(Site(kafka, topics, ledger), tmp_path)
    ledger.check()
    ledger.close()


@pytest.fixture
def site(operator: Operator) -> Site:
    return operator.site


def settled_school(site: Site) -> None:
    site.publish(*EVERYBODY)
    site.ledger.take(*EVERYBODY)
    site.ledger.settle()


def school_with_trouble(site: Site) -> None:
    """Canvas refuses Ana and Dora, and Eve for another cause; Ben is to be tried again; the rest is as it should be."""
    site.publish(*EVERYBODY)
    site.ledger.take(*EVERYBODY)
    site.ledger.settle(seat(CLEO), seat(ANA, "1002"))
    site.ledger.kill(seat(ANA), "refused", "validation")
    site.ledger.kill(seat(DORA, "1002"), "refused", "validation")
    site.ledger.kill(seat(EVE, "1002"), "concluded")
    site.fail(seat(BEN), "retrying", "server_fault")


def scope_named(site: Site, name: str) -> dict[str, Any]:
    everything = {"topic": site.topics.entity("enrollment"), "partition": 0, "from": 0, "to": len(EVERYBODY) - 1}
    return {name: SCOPES[name] or everything}


def seats_of(changes: list[dict[str, Any]]) -> set[SeatRef]:
    return {seat(one["seat"]["lms_user"], one["seat"]["lms_section"].rsplit("-", 1)[1]) for one in changes}


@each_scope
async def test_what_is_applied_is_what_was_planned(operator: Operator, name: str) -> None:
    school_with_trouble(operator.site)
    before = operator.site.dump()

    plan = await operator.plan(scope_named(operator.site, name))

    assert operator.site.dump() == before
    assert operator.site.woken == set()
    changes = await operator.changes(plan)
    assert seats_of(changes) == OPENED[name]
    assert (plan["changes"], plan["done"]) == (len(changes), plan["total"])
    dead_one = {"seat": seat_told(ANA), "desired": "active", "applied": "unknown", "work": "dead", "version": 1}
    assert dead_one in changes
    answer = await operator.apply(plan)
    report = await operator.ended(answer.json()["replay"])
    assert answer.headers["location"] == f"/replays/{report['replay']}"
    assert (report["plan"], report["done"]) == (plan["replay"], report["total"])
    assert operator.site.woken == OPENED[name]
    assert {ref for ref, state in operator.site.ledger.work().items() if state == "pending"} == OPENED[name]
    assert len(operator.site.ledger.history("reopened")) == len(OPENED[name])


@each_scope
@pytest.mark.parametrize("verify", [False, True])
async def test_a_plan_counts_what_it_found(operator: Operator, name: str, verify: bool) -> None:
    school_with_trouble(operator.site)

    plan = await operator.plan(scope_named(operator.site, name), verify=verify)

    assert sum(plan["verdicts"].values()) == plan["total"] == len(plan["lines"])
    assert plan["verdicts"]["reopened"] == (plan["total"] if verify else len(OPENED[name]))
    assert plan["changes"] == plan["verdicts"]["reopened"]


@each_scope
async def test_a_settled_system_is_left_as_it_is(operator: Operator, name: str) -> None:
    settled_school(operator.site)
    before = operator.site.dump()

    report = await operator.carry_out(scope_named(operator.site, name))

    assert operator.site.dump() == before
    assert operator.site.woken == set()
    assert set(report["verdicts"]) <= {"already_satisfied"}


@each_scope
async def test_a_dropped_student_does_not_come_back(operator: Operator, name: str) -> None:
    site = operator.site
    settled_school(site)
    dropped = enrollment("dropped", version=9, person=ANA)
    site.ledger.take(dropped)
    site.ledger.kill(seat(ANA), "refused", "validation")

    await operator.carry_out(scope_named(site, name), verify=True)

    assert site.ledger.desired()[seat(ANA)] == "deleted"
    opened = site.work_row(seat(ANA))
    assert opened is not None
    assert opened[0] == ("dead" if name == "offsets" else "pending"), "its old record opens nothing; its newest state is applied"


async def test_a_record_that_the_ledger_lacks_is_planned_as_an_entity(operator: Operator) -> None:
    site = operator.site
    site.publish(enrollment(version=1), enrollment("dropped", version=2), enrollment(version=3, person=BEN))
    site.ledger.take(enrollment(version=1))
    site.ledger.settle()
    topic = site.topics.entity("enrollment")

    plan = await operator.plan({"offsets": {"topic": topic, "partition": 0, "from": 0, "to": 9}})

    keys = [enrollment_key("main", "PSUNV", "1259", "1001", person, "learner")._asdict() for person in (ANA, BEN)]
    assert await operator.changes(plan) == [
        {"entity": keys[0], "version": 2, "ledger_version": 1},
        {"entity": keys[1], "version": 3, "ledger_version": None},
    ]
    answer = await operator.apply(plan)
    await operator.ended(answer.json()["replay"])
    assert site.ledger.desired() == {seat(ANA): "deleted", seat(BEN): "active"}


@each_scope
async def test_the_digest_is_stable_while_nothing_changes(operator: Operator, name: str) -> None:
    school_with_trouble(operator.site)
    scope = scope_named(operator.site, name)

    first, second = await operator.plan(scope), await operator.plan(scope)

    assert first["digest"] == second["digest"]
    operator.site.ledger.settle(seat(ANA))
    third = await operator.plan(scope)
    assert third["digest"] != first["digest"]


async def test_the_digest_covers_how_each_seat_is(operator: Operator) -> None:
    school_with_trouble(operator.site)
    first = await operator.plan({"term": TERM})
    operator.site.fail(seat(ANA), "waiting")

    second = await operator.plan({"term": TERM})

    assert (second["changes"], second["digest"] == first["digest"]) == (first["changes"], False)


async def refused(operator: Operator, plan: dict[str, Any]) -> dict[str, Any]:
    """The difference that keeps a plan from being applied."""
    before = operator.site.dump()
    answer = await operator.apply(plan)
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert operator.site.ledger.rows("select from replay where not dry_run") == []
    assert operator.site.dump() == before
    told: dict[str, Any] = answer.json()
    counted = {which: told[which] for which in ("appeared", "vanished", "changed")}
    detail = {"plan": plan["replay"], "digest": plan["digest"], "reason": "world_changed", **counted}
    assert operator.api.audit()[-1] == ("ops", "replay.apply", "refused", detail)
    return told


ANA_PLANNED = {"desired": "active", "applied": "unknown", "work": "dead", "version": 1}


@each_scope
async def test_a_newer_event_is_told(operator: Operator, name: str) -> None:
    school_with_trouble(operator.site)
    plan = await operator.plan(scope_named(operator.site, name))
    operator.site.ledger.take(enrollment("dropped", version=9, person=ANA))

    told = await refused(operator, plan)

    assert (told["appeared"], told["vanished"], told["changed"]) == (0, 1, 0)
    assert told["difference"] == [{"seat": seat_told(ANA), "planned": ANA_PLANNED, "now": None}]


@each_scope
async def test_a_seat_that_settled_is_told(operator: Operator, name: str) -> None:
    school_with_trouble(operator.site)
    plan = await operator.plan(scope_named(operator.site, name))
    operator.site.ledger.settle(seat(ANA))

    told = await refused(operator, plan)

    assert told["difference"] == [{"seat": seat_told(ANA), "planned": ANA_PLANNED, "now": None}]


async def test_a_dead_letter_of_another_class_by_now_is_told(operator: Operator) -> None:
    school_with_trouble(operator.site)
    plan = await operator.plan(scope_named(operator.site, "dead_letters"))
    operator.site.ledger.kill(seat(ANA), "concluded")

    told = await refused(operator, plan)

    assert told["difference"] == [{"seat": seat_told(ANA), "planned": ANA_PLANNED, "now": None}]


async def test_what_appears_and_what_changes_is_told(operator: Operator) -> None:
    school_with_trouble(operator.site)
    plan = await operator.plan(scope_named(operator.site, "term"))
    operator.site.ledger.take(enrollment(version=9, person="9000009"))
    operator.site.ledger.kill(seat("9000009"), "refused", "validation")
    operator.site.fail(seat(ANA), "retrying", "server_fault")

    told = await refused(operator, plan)

    assert (told["appeared"], told["vanished"], told["changed"]) == (1, 0, 1)
    assert told["difference"] == [
        {"seat": seat_told(ANA), "planned": ANA_PLANNED, "now": ANA_PLANNED | {"work": "retrying"}},
        {"seat": seat_told("9000009"), "planned": None, "now": ANA_PLANNED | {"version": 9}},
    ]


async def test_a_record_that_arrived_by_itself_is_told(operator: Operator) -> None:
    site = operator.site
    site.publish(enrollment(version=3))
    plan = await operator.plan({"offsets": {"topic": site.topics.entity("enrollment"), "partition": 0, "from": 0, "to": 0}})
    site.ledger.take(enrollment(version=3))

    told = await refused(operator, plan)

    key = enrollment_key("main", "PSUNV", "1259", "1001", ANA, "learner")._asdict()
    assert told["difference"] == [{"entity": key, "planned": {"version": 3, "ledger_version": None}, "now": None}]


async def test_a_long_difference_is_counted_and_cut(operator: Operator) -> None:
    people = [f"9{n:06}" for n in range(150)]
    plan = await operator.plan({"term": TERM})
    events = [enrollment(version=n + 1, person=person) for n, person in enumerate(people)]
    operator.site.ledger.take(*events)
    for person in people:
        operator.site.ledger.kill(seat(person), "refused", "validation")

    told = await refused(operator, plan)

    assert (told["appeared"], len(told["difference"])) == (150, 100)


async def test_a_plan_is_carried_out_once_however_often_it_is_applied(operator: Operator) -> None:
    school_with_trouble(operator.site)
    plan = await operator.plan({"term": TERM})

    first, second = await asyncio.gather(operator.apply(plan), operator.apply(plan))
    await operator.ended(first.json()["replay"])
    late = await operator.apply(plan)

    assert {first.status_code, second.status_code, late.status_code} == {202}
    assert first.json() == second.json()
    assert late.json()["replay"] == first.json()["replay"]
    assert operator.site.ledger.rows("select from replay where not dry_run") == [()]
    assert len(operator.site.ledger.history("reopened")) == 4
    assert [row[1:3] for row in operator.api.audit()].count(("replay.apply", "done")) == 3
    assert (await operator.report(plan["replay"]))["applied_by"] == first.json()["replay"]


@pytest.mark.parametrize("case", ["another digest", "not finished", "not a plan"])
async def test_only_the_digest_of_a_finished_plan_is_applied(operator: Operator, case: str) -> None:
    school_with_trouble(operator.site)
    plan = await operator.plan({"term": TERM})
    digest, reason = plan["digest"], "no_finished_plan"
    if case == "another digest":
        digest, reason = "0" * 64, "other_digest"
    elif case == "not finished":
        plan = (await operator.api.call("POST", "/replays", json={"scope": {"term": TERM}})).json()
    else:
        plan = (await operator.apply(plan)).json()
    replays = operator.site.ledger.rows("select from replay")

    answer = await operator.apply(plan, digest)

    assert (answer.status_code, answer.json()["reason"]) == (409, reason)
    assert operator.api.audit()[-1][1:3] == ("replay.apply", "refused")
    assert operator.site.ledger.rows("select from replay") == replays


async def test_a_call_that_cannot_be_audited_neither_applies_nor_cancels(operator: Operator) -> None:
    school_with_trouble(operator.site)
    plan = await operator.plan({"term": TERM})
    running = (await operator.api.call("POST", "/replays", json={"scope": {"term": TERM}})).json()
    operator.site.ledger.connection.execute("alter table audit add constraint broken check (actor is null) not valid")

    assert (await operator.apply(plan)).status_code == 503
    assert (await operator.api.call("POST", f"/replays/{running['replay']}/cancel")).status_code == 503

    states = operator.site.ledger.rows("select state from replay order by created_at")
    assert states == [("done",), ("running",)]


async def test_every_call_leaves_one_row_that_says_whose_seats_were_meant(operator: Operator) -> None:
    school_with_trouble(operator.site)

    report = await operator.carry_out({"person": {"person": ANA}})

    meant = {"person": {"tenant": "main", "person": ANA}}
    rows = operator.api.audit()
    assert [row[1] for row in rows] == ["replay.plan", "replay.read", "replay.apply", "replay.read"]
    assert rows[0][3] == {"scope": meant, "verify": False, "replay": report["plan"]}
    assert rows[2][3] == {"plan": report["plan"], "digest": rows[2][3]["digest"], "replay": report["replay"]}


async def test_logs_and_addresses_name_nobody(operator: Operator) -> None:
    school_with_trouble(operator.site)
    with structlog.testing.capture_logs() as logged:
        await operator.carry_out({"person": {"person": ANA}})
        report = await operator.carry_out(scope_named(operator.site, "offsets"))
        page = (await operator.api.call("GET", f"/replays/{report['plan']}/changes?limit=1")).json()

    assert logged
    assert "90000" not in str(logged)
    assert page["next_after"] == 1, "the next page's address holds a number"
    samples = [(sample.name, sample.labels) for metric in operator.site.metrics.registry.collect() for sample in metric.samples]
    assert "90000" not in str(samples)


async def test_a_report_of_seats_follows_them(operator: Operator) -> None:
    site = operator.site
    school_with_trouble(site)
    report = await operator.carry_out({"section": SECTION})
    told = {"seat": seat_told(ANA), "verdict": "in_progress", "reason": None, "version": 1, "superseded_by": None, "line": 1}
    assert told in report["lines"]

    site.ledger.kill(seat(ANA), "refused", "validation")
    site.ledger.settle(seat(BEN))
    verdicts = {line["seat"]["lms_user"]: line["verdict"] for line in (await operator.report(report["replay"]))["lines"]}
    assert verdicts == {ANA: "still_failing", BEN: "applied", CLEO: "already_satisfied"}
    site.ledger.take(enrollment("dropped", version=9, person=ANA))
    line = next(one for one in (await operator.report(report["replay"]))["lines"] if one["seat"] == seat_told(ANA))
    assert (line["verdict"], line["superseded_by"]) == ("superseded", {"version": 9, "offset": None})


async def test_a_section_by_key_opens_its_members(operator: Operator) -> None:
    school_with_trouble(operator.site)
    operator.site.ledger.take(section_event(version=1))

    by_key = await operator.plan({"key": {"kind": "section", "key": "PSUNV/1259/1001"}})

    assert by_key["digest"] == (await operator.plan({"section": SECTION}))["digest"]


async def test_with_verify_settled_seats_are_read_before_anything_is_written(operator: Operator) -> None:
    settled_school(operator.site)

    report = await operator.carry_out({"section": SECTION}, verify=True)

    assert report["verify"]
    assert operator.site.woken == {seat(ANA), seat(BEN), seat(CLEO)}
    assert operator.site.work_row(seat(ANA)) == ("pending", 0, True, True, None, None)


@pytest.mark.parametrize(
    "scope",
    [
        {"person": {"person": "900000"}},
        {"person": {"person": ANA, "tenant": "another"}},
        {"term": {"institution": "PSUNV", "term": "125"}},
        {"section": SECTION | {"section": "100"}},
        {"dead_letters": {"class": "refused"}},
        {"dead_letters": {"class": "refused:validation", "target": "another"}},
        {"key": {"kind": "enrollment", "key": "PSUNV/1259/1001/9000001/staff"}},
    ],
)
async def test_what_the_ledger_does_not_know_plans_nothing(operator: Operator, scope: dict[str, Any]) -> None:
    school_with_trouble(operator.site)

    plan = await operator.plan(scope)

    assert (plan["total"], plan["changes"], plan["verdicts"]) == (0, 0, {})
