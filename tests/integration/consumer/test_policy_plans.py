"""A plan says exactly what applying the policy changes, writes nothing, and is applied only while it holds."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from services.consumer.__main__ import main
from services.consumer.ledger import database, overruling, policies, policy_plans, redeciding
from services.consumer.ledger.overruling import Asked
from services.consumer.ledger.policy_plans import Digest, PolicyPlan, Totals, WorldChanged
from services.consumer.nouns import PersonRef
from services.consumer.policy.model import PolicyError, default_text
from services.kit import logs
from tests.integration.consumer.api_support import Api
from tests.integration.consumer.ledger_support import TENANT, Ledger, enrollment, seat, section_event

KEEPS = default_text().replace("drop_action: deleted", "drop_action: inactive")
"""What was removed is to be kept as inactive."""
ANOTHER_BASE = default_text().replace("{base: StudentEnrollment, role: Auditor}", "{base: TaEnrollment, role: Auditor}")
AUDITORS_OUT = default_text().replace("auditor: {base: StudentEnrollment, role: Auditor}", "auditor: none")


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    ledger = Ledger(database_url)
    yield ledger
    ledger.check()
    ledger.close()


def fill(ledger: Ledger) -> None:
    """A little of everything."""
    ledger.take(section_event(course="MATH101"), section_event("cancelled", section="1002"))
    ledger.take(
        *(enrollment(person=f"1{number:04}") for number in range(20)),
        *(enrollment("dropped", person=f"2{number:04}") for number in range(7)),
        *(enrollment("withdrawn", person=f"3{number:04}") for number in range(3)),
        *(enrollment(role="auditor", person=f"4{number:04}") for number in range(12)),
        *(enrollment(section="1002", person=f"5{number:04}") for number in range(2)),
        enrollment("waitlisted", person="60000"),
    )
    ledger.settle()
    ledger.take(enrollment(role="instructor_primary", person="70000"))


def plan(ledger: Ledger, body: str, rows: int = 0) -> PolicyPlan:
    with database.connect(ledger.url) as connection:
        connection.read_only = True
        with connection.transaction():
            policy_plans.see_one_moment(connection)
            return policy_plans.plan(connection, "canvas", TENANT, body, rows)


def apply(ledger: Ledger, body: str, digest: Digest) -> tuple[int, bool]:
    with ledger.connection.transaction():
        policy_plans.see_one_moment(ledger.connection)
        return policy_plans.apply(ledger.connection, "canvas", TENANT, body, "registrar", digest)


def redecide(ledger: Ledger) -> None:
    list(redeciding.redecide(ledger.connection, ledger.policies, TENANT))


@pytest.mark.parametrize(
    "body",
    [
        KEEPS,
        AUDITORS_OUT,
        default_text().replace("student: StudentEnrollment", "student: {base: StudentEnrollment, role: Guest}"),
        default_text().replace("withdrawn: inactive", "withdrawn: removal"),
        default_text().replace("assistant: TaEnrollment", "assistant: none"),
        default_text().replace("{institution}-{term}-{section}", "{term}-{section}"),
        ANOTHER_BASE,
    ],
    ids=["keeps", "auditors out", "renamed", "withdrawn", "nothing", "moved sections", "another base"],
)
def test_a_plan_says_exactly_what_applying_changes(ledger: Ledger, body: str) -> None:
    fill(ledger)
    before, rows_before = ledger.desired(), ledger.rows("select count(*) from history")
    planned = plan(ledger, body, rows=1000)
    assert ledger.desired() == before
    assert ledger.rows("select count(*) from history") == rows_before
    assert ledger.rows("select max(version) from policy") == [(1,)]

    ledger.effects.clear()
    assert apply(ledger, body, planned.digest) == (2, True)
    since = ledger.rows("select clock_timestamp()")[0][0]
    redecide(ledger)

    told = {change.ref: change.after for change in planned.rows}
    after = ledger.desired()
    assert {ref: state for ref, state in after.items() if before.get(ref) != state} == told
    effects = [
        detail["effect"] for (detail,) in ledger.rows("select detail from history where what = 'decided' and at >= %s", since)
    ]
    totals = planned.digest.totals
    assert (totals.add, totals.drop, totals.update) == tuple(effects.count(kind) for kind in ("add", "drop", "update"))
    assert planned.removals.total() == sum(state in ("guarded", "held") for state in ledger.work().values())
    assert plan(ledger, body).digest.totals == Totals(0, 0, 0, 0), "it has nothing left to change"


def test_what_only_moves_is_counted_by_itself(ledger: Ledger) -> None:
    fill(ledger)

    totals = plan(ledger, ANOTHER_BASE).digest.totals

    assert totals == Totals(add=0, drop=0, update=0, moved=12)


def test_overrides_decide_in_a_plan_as_they_do_in_the_ledger(ledger: Ledger) -> None:
    fill(ledger)
    wanted = Asked(
        PersonRef(TENANT, "20000"), "PSUNV/1259/1001", "student", "active", datetime.now(UTC) + timedelta(days=1), "why", "r"
    )
    with ledger.connection.transaction():
        overruling.make(ledger.connection, ledger.policies, wanted)

    found = plan(ledger, KEEPS, rows=100)

    assert found.digest.totals.update == 8, "six who dropped, two of the cancelled class, and not the overridden one"
    assert seat("20000") not in {change.ref for change in found.rows}


def test_counts_are_by_term_and_rows_are_bounded(ledger: Ledger) -> None:
    fill(ledger)
    next_term = enrollment("dropped", person="80000").model_copy(update={"term": "1261"})
    ledger.take(next_term)

    found = plan(ledger, KEEPS, rows=4)

    assert {term: dict(counts) for term, counts in found.terms.items()} == {
        "PSUNV/1259": {"update": 9},
        "PSUNV/1261": {"update": 1},
    }
    assert [change.seat.person for change in found.rows] == ["20000", "20001", "20002", "20003"]


@pytest.mark.parametrize("what", ["counts", "seats", "file"])
def test_a_plan_that_no_longer_holds_stores_nothing_and_says_what_is_different(ledger: Ledger, what: str) -> None:
    fill(ledger)
    digest = plan(ledger, KEEPS).digest
    body = KEEPS
    if what == "counts":
        ledger.take(enrollment("dropped", person="10000", version=2))
    elif what == "seats":
        ledger.take(enrollment("dropped", person="10000", version=2), enrollment(person="20000", version=2))
    else:
        body += "# and a thought\n"

    with pytest.raises(WorldChanged) as changed:
        apply(ledger, body, digest)

    assert changed.value.planned == Totals(0, 0, 9, 0)
    assert changed.value.now == Totals(0, 0, 10 if what == "counts" else 9, 0)
    assert ("other seats, or the file is another one" in str(changed.value)) == (what != "counts")
    assert ledger.rows("select max(version) from policy") == [(1,)]


def test_what_changes_nothing_of_the_plan_does_not_make_it_void(ledger: Ledger) -> None:
    fill(ledger)
    digest = plan(ledger, KEEPS).digest

    ledger.take(enrollment(person="90000"), enrollment(person="10000", version=5))

    assert apply(ledger, KEEPS, digest) == (2, True)
    redecide(ledger)


@pytest.mark.parametrize("size", [1, 7])
def test_batches_do_not_show(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Somebody new shifts them all."""
    fill(ledger)
    ledger.take(enrollment("dropped", person="20000", section="2002"), enrollment("dropped", person="30000", section="0001"))
    found = plan(ledger, KEEPS)

    monkeypatch.setattr(policy_plans, "_BATCH", size)

    assert plan(ledger, KEEPS) == found


def test_another_policy_that_is_stored_meanwhile_ends_the_attempt(ledger: Ledger) -> None:
    fill(ledger)
    digest = plan(ledger, KEEPS).digest

    def apply_while_another_is_stored() -> None:
        with ledger.connection.transaction():
            policy_plans.see_one_moment(ledger.connection)
            ledger.connection.execute("select 1")
            with database.connect(ledger.url) as other:
                policies.store(other, TENANT, AUDITORS_OUT, "somebody else")
            policy_plans.apply(ledger.connection, "canvas", TENANT, KEEPS, "registrar", digest)

    with pytest.raises(psycopg.errors.SerializationFailure):
        apply_while_another_is_stored()

    redecide(ledger)
    assert ledger.rows("select version, actor from policy where active") == [(2, "somebody else")]


def test_a_policy_that_has_not_reached_everybody_is_mentioned(ledger: Ledger) -> None:
    fill(ledger)
    policies.store(ledger.connection, TENANT, KEEPS, "registrar")

    found = plan(ledger, KEEPS)

    assert (found.active_version, found.reached_everybody) == (2, False)
    assert found.digest.totals.update == 9
    redecide(ledger)


def test_a_tenant_without_a_policy_gets_all_its_seats_from_the_first(ledger: Ledger) -> None:
    ledger.take(enrollment(tenant="medical school"))

    with database.connect(ledger.url) as connection, connection.transaction():
        policy_plans.see_one_moment(connection)
        found = policy_plans.plan(connection, "canvas", "medical school", default_text())

    assert (found.active_version, found.digest.totals.add) == (None, 1)


def test_a_digest_survives_being_printed() -> None:
    digest = Digest(Totals(1, 2, 3, 4), "0f" * 32)

    assert Digest.of(str(digest)) == digest
    assert Digest.of("0f" * 32) is None
    assert Digest.of(str(digest) + "0") is None


# Over the API


async def test_a_policy_is_planned_and_applied_over_the_api(ledger: Ledger, tmp_path: Path) -> None:
    fill(ledger)
    api = Api(ledger, tmp_path)
    body = AUDITORS_OUT.replace("wait_seconds: 60", "wait_seconds: 0")

    planned = await api.call("POST", "/policies/plan?rows=1", content=body.encode())

    assert planned.status_code == 200
    told = planned.json()
    digest = told.pop("digest")
    assert told == {
        "active_version": 1,
        "reached_everybody": True,
        "persons": 46,
        "seats": {"add": 0, "drop": 12, "update": 0, "moved": 0},
        "terms": [{"institution": "PSUNV", "term": "1259", "drop": 12}],
        "removals": 12,
        "held": [],
        "rows": [
            {
                "person": "40000",
                "section": {"institution": "PSUNV", "term": "1259", "section": "1001"},
                "role": "Auditor",
                "effect": "drop",
                "before": "active",
                "after": "deleted",
            }
        ],
    }
    done = await api.call("POST", f"/policies/apply?plan={digest}", content=body.encode())
    assert (done.status_code, done.json()) == (202, {"version": 2, "new": True})
    assert redeciding.unfinished(ledger.connection) == [TENANT], "any consumer carries it out"
    assert [row[:3] for row in api.audit()] == [("ops", "policies.plan", "done"), ("ops", "policies.apply", "done")]
    assert ledger.rows("select actor from policy where active") == [("ops",)]
    redecide(ledger)


async def test_the_plan_says_what_the_guard_would_hold(ledger: Ledger, tmp_path: Path) -> None:
    """By the limits of the new policy: 22 students lose their seats in a section of 35 active ones."""
    fill(ledger)
    body = default_text().replace("enrolled: active", "enrolled: completed")

    [held, *rest] = (await Api(ledger, tmp_path).call("POST", "/policies/plan", content=body.encode())).json()["held"]

    assert (held["scope"], held["key"], held["removals"], held["active"]) == ("section", "PSUNV/1259/1001", 32, 32)
    assert held["limit"] == "percent 50, at_least 10"
    assert rest == []
    unguarded = re.sub(r"\nguard:.*", "\nguard: none\n", body, flags=re.S)
    assert (await Api(ledger, tmp_path).call("POST", "/policies/plan", content=unguarded.encode())).json()["held"] == []


async def test_a_plan_that_no_longer_holds_is_a_conflict(ledger: Ledger, tmp_path: Path) -> None:
    fill(ledger)
    api = Api(ledger, tmp_path)
    digest = (await api.call("POST", "/policies/plan", content=KEEPS.encode())).json()["digest"]
    ledger.take(enrollment("dropped", person="10000", version=2))

    answer = await api.call("POST", f"/policies/apply?plan={digest}", content=KEEPS.encode())

    assert (answer.status_code, answer.json()["reason"]) == (409, "world_changed")
    assert (answer.json()["planned"]["update"], answer.json()["now"]["update"]) == (9, 10)
    assert api.audit()[-1][2] == "refused"
    assert ledger.rows("select max(version) from policy") == [(1,)]


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("/policies/plan", b"drop_action: gone\n", "line 1: "),
        ("/policies/plan", b"\xff", "line 1: not UTF-8 text"),
        ("/policies/plan?rows=5000", b"", "less than or equal to 1000"),
        ("/policies/apply", KEEPS.encode(), "Field required"),
        (f"/policies/apply?plan=0-0-0-0-{'0' * 64}", b"a: [", "line "),
    ],
)
async def test_what_cannot_be_used_is_refused_with_its_line(
    ledger: Ledger, tmp_path: Path, path: str, body: bytes, error: str
) -> None:
    answer = await Api(ledger, tmp_path).call("POST", path, content=body)

    assert answer.status_code == 422
    assert error in answer.json()["errors"][0]["detail"]


# On the command line


@pytest.fixture
def command(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("DATABASE_URL", ledger.url)
    monkeypatch.setattr(logs, "configure", lambda *_: None)  # the logs of this process belong to all tests
    file = tmp_path / "ours.yaml"

    def run(action: str, body: str, *more: str) -> tuple[int, str]:
        file.write_text(body)
        code = main(["policy", action, str(file), *more])
        told = capsys.readouterr()
        return code, told.out + told.err

    return run


def test_a_person_plans_looks_and_applies(ledger: Ledger, command: Any) -> None:
    fill(ledger)

    code, told = command("plan", KEEPS, "--rows", "2")

    assert code == 0
    lines = told.splitlines()
    assert lines[0] == "Policy of main: version 1 is active; 46 people were decided under ours.yaml."
    assert lines[2].split() == ["seats", "that", "would", "change", "add", "drop", "update", "moved"]
    assert lines[3].split() == ["PSUNV/1259", "0", "0", "9", "0"]
    assert "update 20000  PSUNV/1259/1001  StudentEnrollment  deleted -> inactive" in lines
    digest = lines[-1].rsplit(" ", 1)[1]

    code, told = command("apply", KEEPS, "--plan", digest)
    assert (code, told) == (0, "Policy of main: version 2 is active now; 9 seats have work because of it.\n")


def test_a_person_is_told_that_the_world_has_changed(ledger: Ledger, command: Any) -> None:
    fill(ledger)
    digest = command("plan", KEEPS)[1].splitlines()[-1].rsplit(" ", 1)[1]
    ledger.take(enrollment("dropped", person="10000", version=2))

    code, told = command("apply", KEEPS, "--plan", digest, "--actor", "me")

    assert code == 1
    assert told == (
        "The plan no longer holds: it said add 0, drop 0, update 9, moved 0; by now it is add 0, drop 0, update 10, moved 0. "
        "Nothing was stored; plan again.\n"
    )
    assert ledger.rows("select max(version) from policy") == [(1,)]
    assert ledger.rows("select outcome from audit where action = 'policy.apply' and actor = 'me'") == [("refused",)]


def test_apply_without_a_plan_works_as_ever(ledger: Ledger, command: Any) -> None:
    fill(ledger)

    assert command("apply", KEEPS) == (0, "Policy of main: version 2 is active now; 9 seats have work because of it.\n")
    assert command("apply", KEEPS, "--plan", "9")[0] == 2
    assert command("plan", "drop_action: gone")[0] == 2


def test_a_plan_does_not_migrate_a_ledger(ledger: Ledger, command: Any) -> None:
    fill(ledger)
    ledger.connection.execute("alter table override rename to gone")

    code, told = command("plan", KEEPS)

    ledger.connection.execute("alter table gone rename to override")
    assert code == 2
    assert "not of this release" in told


def test_a_bad_policy_is_refused_before_anybody_is_decided(ledger: Ledger) -> None:
    with pytest.raises(PolicyError, match="line 1"):
        plan(ledger, "drop_action: gone")


def test_a_plan_may_be_applied_give_or_take_some_seats(ledger: Ledger) -> None:
    fill(ledger)
    before = plan(ledger, KEEPS).digest
    ledger.take(*(enrollment("dropped", person=f"1{number:04}", version=2) for number in range(3)))
    ledger.settle()

    def apply_within(seats: int) -> tuple[int, bool]:
        with ledger.connection.transaction():
            policy_plans.see_one_moment(ledger.connection)
            return policy_plans.apply(ledger.connection, "canvas", TENANT, KEEPS, "registrar", before, seats)

    with pytest.raises(WorldChanged):
        apply_within(2)
    assert apply_within(3) == (2, True)
    redecide(ledger)


def test_applying_again_after_a_lost_answer_says_that_it_is_stored(ledger: Ledger) -> None:
    fill(ledger)
    digest = plan(ledger, KEEPS).digest
    stored, is_new = apply(ledger, KEEPS, digest)
    redecide(ledger)

    assert (is_new, apply(ledger, KEEPS, digest)) == (True, (stored, False))
