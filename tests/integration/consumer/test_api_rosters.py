"""``/comparisons``, ``/differences``, ``/agreement`` and ``/writing`` over a real ledger."""

from __future__ import annotations

import uuid
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from services.consumer.ledger import policies
from services.consumer.rosters import adopting, adoptions, recording, sections
from services.consumer.rosters.sections import Section
from services.consumer.targets.port import Observation, RosterRow
from tests.integration.consumer.api_support import Api
from tests.integration.consumer.ledger_support import TENANT, Ledger, enrollment, section_event
from tests.policies import unguarded

EVERYTHING: dict[str, Any] = {"scope": {"everything": {}}}
TERM = {"institution": "PSUNV", "term": "1259"}
STUDENT = "StudentEnrollment"


@pytest.fixture
def ledger(database_url: str) -> Any:
    ledger = Ledger(database_url)
    yield ledger
    ledger.close()


@pytest.fixture
def api(ledger: Ledger, tmp_path: Path) -> Api:
    return Api(ledger, tmp_path)


def read(ledger: Ledger, *rows: RosterRow) -> None:
    """What the driver does about every section that is due: each has these rows."""
    for section in sections.due(ledger.connection, "canvas", 100, 0):
        recording.record(ledger.connection, "canvas", section, rows, {}, ledger.policies, lambda _: True)
    sections.end_if_done(ledger.connection, "canvas", lambda _: True)


def row(user: str, state: Any = "active") -> RosterRow:
    return RosterRow(user, STUDENT, STUDENT, Observation(state, f"e-{user}", "c1"))


async def started(api: Api, body: dict[str, Any] = EVERYTHING) -> str:
    answer = await api.call("POST", "/comparisons", json=body)
    assert answer.status_code == HTTPStatus.ACCEPTED, answer.text
    return str(answer.json()["comparison"])


async def test_a_comparison_is_started_watched_and_read(api: Api, ledger: Ledger) -> None:
    ledger.take(enrollment(person="p1"), enrollment(person="p2", section="1002"), section_event(section="1003"))
    run = await started(api)
    running = (await api.call("GET", f"/comparisons/{run}")).json()
    assert (running["state"], running["sections"], running["open"], running["scope"]) == ("running", 3, 3, {"everything": {}})

    read(ledger, row("p1"), row("p9"))
    done = (await api.call("GET", f"/comparisons/{run}")).json()
    assert (done["state"], done["open"], done["people"]) == ("done", 0, 6)
    listed = (await api.call("GET", "/comparisons")).json()["comparisons"]
    assert [one["comparison"] for one in listed] == [run]
    assert ("ops", "comparisons.start", "done") in [one[:3] for one in api.audit()]


async def test_differences_come_in_pages_and_by_place_and_kind(api: Api, ledger: Ledger) -> None:
    ledger.take(enrollment(person="p1"), enrollment(person="p2", section="1002"))
    await started(api)
    read(ledger, row("p8"), row("p9"))

    found, after = [], 0
    while after is not None:
        page = (await api.call("GET", f"/differences?limit=2&after={after}")).json()
        found += page["differences"]
        after = page["next_after"]
    assert sorted((one["section"]["section"], one["kind"], one["person"]) for one in found) == [
        ("1001", "extra_manual", "p8"),
        ("1001", "extra_manual", "p9"),
        ("1002", "extra_manual", "p8"),
        ("1002", "extra_manual", "p9"),
    ]
    of_class = await api.call("GET", "/differences?institution=PSUNV&term=1259&section=1002&kind=extra_manual")
    assert len(of_class.json()["differences"]) == 2
    assert (await api.call("GET", "/differences?kind=missing")).json()["differences"] == []
    (term,) = (await api.call("GET", "/agreement")).json()["terms"]
    assert term["term"] == TERM
    assert (term["seats"], term["agree"], term["unknown"], term["sections_read"], term["live"]) == (2, 0, 2, 2, True)
    assert [(one["kind"], one["count"]) for one in term["differences"]] == [("extra_manual", 4)]


async def test_who_goes_within_days_is_listed_with_the_day(api: Api, ledger: Ledger) -> None:
    text = unguarded().replace("extra_manual: report", "extra_manual: {remove_after_days: 14}")
    policies.store(ledger.connection, TENANT, text, "registrar")
    ledger.take(enrollment(person="p1"))
    await started(api)
    read(ledger, row("p1"), row("p9"))
    assert (await api.call("GET", "/differences?goes_within_days=13")).json()["differences"] == []
    (one,) = (await api.call("GET", "/differences?goes_within_days=14&kind=extra_manual")).json()["differences"]
    assert datetime.fromisoformat(one["goes_at"]) - datetime.fromisoformat(one["found_at"]) == timedelta(days=14)


async def test_a_trace_says_that_the_seat_was_adopted(api: Api, ledger: Ledger) -> None:
    text = unguarded().replace("extra_manual: report", "extra_manual: {adopt_for_days: 30}")
    policies.store(ledger.connection, TENANT, text, "registrar")
    ledger.take(enrollment(person="p1"), section_event())
    run = await started(api, EVERYTHING | {"repair": True})
    read(ledger, row("p1"), row("p9"))
    for section in adoptions.due(ledger.connection, "canvas"):
        adopting.adopt(ledger.connection, "canvas", section, ledger.policies, lambda _: True)
    asked = {"tenant": TENANT, "person": "p9", "section": {**TERM, "section": "1001"}}
    told = (await api.call("POST", "/trace", json=asked)).json()
    (override,) = told["overrides"]
    assert (override["actor"], override["in_force"], run in override["reason"]) == ("policy:drift", True, True)
    assert told["seats"][0]["override"]["override"] == override["override"]
    assert [one["what"] for one in told["timeline"][-3:]] == ["observed", "override_made", "decided"]


async def test_a_term_begins_as_the_section_key_says_and_not_as_another_ones_name(api: Api, ledger: Ledger) -> None:
    """Term 125 is not the beginning of term 1259."""
    ledger.take(enrollment(person="p1"))
    answer = await api.call("POST", "/comparisons", json={"scope": {"term": {"institution": "PSUNV", "term": "125"}}})
    assert answer.json()["sections"] == 0


@pytest.mark.parametrize(
    ("path", "parameter"),
    [
        ("/differences?term=1259", "term"),
        ("/differences?institution=PSUNV&section=1001", "section"),
        ("/differences?kind=odd", "kind"),
        ("/differences?goes_within_days=-1", "goes_within_days"),
        ("/differences?limit=0", "limit"),
        ("/agreement?institution=", "institution"),
    ],
)
async def test_a_query_that_cannot_be_meant_is_refused_by_name(api: Api, path: str, parameter: str) -> None:
    answer = await api.call("GET", path)
    assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert [error["parameter"] for error in answer.json()["errors"]] == [parameter]


@pytest.mark.parametrize("scope", [{}, {"everything": {}, "term": TERM}, {"term": {"term": "1259"}}, {"everything": None}])
async def test_a_scope_is_exactly_one_thing(api: Api, scope: dict[str, Any]) -> None:
    answer = await api.call("POST", "/comparisons", json={"scope": scope})
    assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY


async def test_a_second_comparison_is_refused_with_the_first_ones_name(api: Api, ledger: Ledger) -> None:
    ledger.take(enrollment(person="p1"))
    run = await started(api)
    answer = await api.call("POST", "/comparisons", json=EVERYTHING)
    assert (answer.status_code, answer.json()["comparison"]) == (HTTPStatus.CONFLICT, run)

    assert (await api.call("POST", f"/comparisons/{run}/cancel")).json()["state"] == "cancelled"
    again = await api.call("POST", f"/comparisons/{run}/cancel")
    assert (again.status_code, again.json()["reason"]) == (HTTPStatus.CONFLICT, "over")
    await started(api)
    for name in (str(uuid.uuid4()), "no-id"):
        assert (await api.call("GET", f"/comparisons/{name}")).status_code == HTTPStatus.NOT_FOUND
        assert (await api.call("POST", f"/comparisons/{name}/cancel")).status_code == HTTPStatus.NOT_FOUND


async def test_what_was_cancelled_is_not_written_down(api: Api, ledger: Ledger) -> None:
    ledger.take(enrollment(person="p1"))
    run = await started(api)
    (section,) = sections.due(ledger.connection, "canvas", 10, 0)
    await api.call("POST", f"/comparisons/{run}/cancel")
    assert recording.record(ledger.connection, "canvas", section, [row("p9")], {}, ledger.policies, lambda _: True) is None
    assert ledger.rows("select kind from roster_finding") == []


async def test_going_live_asks_for_a_comparison_and_says_what_it_sets_going(api: Api, ledger: Ledger) -> None:
    assert (await api.call("GET", "/writing")).json()["all_others"] == {"live": True}
    shadow = {"term": TERM, "live": False, "reason": "beside the old feed"}
    assert (await api.call("POST", "/writing", json=shadow)).status_code == HTTPStatus.OK
    ledger.take(enrollment(person="p1"), enrollment(person="p2"), enrollment("dropped", person="p3"))

    live = {"term": TERM, "live": True, "reason": "ready"}
    refused = await api.call("POST", "/writing", json=live)
    assert (refused.status_code, refused.json()["reason"]) == (HTTPStatus.CONFLICT, "not_compared")
    await started(api, {"scope": {"term": TERM}})
    read(ledger, row("p1"), row("p3"))
    (said,) = (await api.call("GET", "/writing")).json()["terms"]
    assert (said["term"], said["live"], said["actor"]) == (TERM, False, "ops")
    answer = await api.call("POST", "/writing", json=live)
    assert answer.json() == {"live": True, "released": {"adds": 1, "removals": 1, "updates": 0}}
    ledger.check()


async def test_a_comparison_of_another_term_or_of_last_week_is_none(api: Api, ledger: Ledger) -> None:
    await api.call("POST", "/writing", json={"term": TERM, "live": False, "reason": "beside the old feed"})
    await started(api, {"scope": {"term": {"institution": "PSUNV", "term": "1262"}}})
    read(ledger)
    live = {"term": TERM, "live": True, "reason": "ready"}
    assert (await api.call("POST", "/writing", json=live)).status_code == HTTPStatus.CONFLICT
    await started(api)
    read(ledger)
    ledger.connection.execute("update roster_run set finished_at = finished_at - interval '25 hours'")
    assert (await api.call("POST", "/writing", json=live)).status_code == HTTPStatus.CONFLICT
    assert (await api.call("POST", "/writing", json=live | {"uncompared": True})).status_code == HTTPStatus.OK


async def test_a_roster_that_is_recorded_keeps_every_promise_of_the_ledger(api: Api, ledger: Ledger) -> None:
    """The seat that was learnt, the one that differs, the one that nobody knew."""
    await api.call("POST", "/writing", json={"live": False, "reason": "beside the old feed"})
    ledger.take(*(enrollment(person=f"p{number}") for number in range(6)), enrollment("dropped", person="p7"))
    for rows in ([row("p1"), row("p2", "inactive"), row("p7")], [row("p1", "deleted"), row("p2"), row("p8")], []):
        await started(api)
        read(ledger, *rows)
        ledger.check()
    assert ledger.history("observed")


async def test_the_lease_of_another_writes_nothing(api: Api, ledger: Ledger) -> None:
    ledger.take(enrollment(person="p1"))
    await started(api)
    section: Section
    (section,) = sections.due(ledger.connection, "canvas", 10, 0)
    lost = recording.record(ledger.connection, "canvas", section, [row("p1")], {}, ledger.policies, lambda _: False)
    assert lost is None
    sections.missing(ledger.connection, "canvas", section, lambda _: False)
    sections.put_off(ledger.connection, "canvas", section, "server_fault", 0, lambda _: False, counts=True)
    assert ledger.rows("select state, attempts from roster_section") == [("open", 0)]
    assert ledger.rows("select applied from seat") == [("unknown",)]


async def test_a_trace_says_what_the_roster_showed(api: Api, ledger: Ledger) -> None:
    ledger.take(enrollment(person="p1"), section_event())
    ledger.settle()
    ledger.connection.execute("update seat set applied_at = clock_timestamp() - interval '1 hour'")
    await started(api)
    read(ledger)
    asked = {"tenant": TENANT, "person": "p1", "section": {**TERM, "section": "1001"}}
    told = (await api.call("POST", "/trace", json=asked)).json()
    assert "differs" in [one["code"] for one in told["findings"]]
    assert [(one["kind"], one["shown"]) for one in told["differences"]] == [("missing", "absent")]


async def test_a_trace_says_that_the_term_is_in_shadow(api: Api, ledger: Ledger) -> None:
    await api.call("POST", "/writing", json={"term": TERM, "live": False, "reason": "beside the old feed"})
    ledger.take(enrollment(person="p1"), section_event())
    asked = {"tenant": TENANT, "person": "p1", "section": {**TERM, "section": "1001"}}
    findings = (await api.call("POST", "/trace", json=asked)).json()["findings"]
    assert "shadow" in [one["code"] for one in findings]
