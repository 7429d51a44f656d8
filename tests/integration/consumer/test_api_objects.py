"""``/objects`` over a real ledger, and the gauges that count the same rows."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

from services.consumer.gauges import SeatGauges
from services.consumer.ledger import policies, writing
from services.consumer.metrics import Metrics
from tests.integration.consumer.api_support import Api
from tests.integration.consumer.ledger_support import TENANT, TIMERS, Ledger
from tests.policies import making


@pytest.fixture
def ledger(database_url: str) -> Any:
    ledger = Ledger(database_url)
    policies.store(ledger.connection, TENANT, making("terms", "sections"), "registrar")
    for number in range(1, 4):
        put(ledger, "section", f"S-{number}", section=f"PSUNV/1259/{number}", state="settled")
    put(ledger, "section", "S-9", section="PSUNV/1259/9", state="refused", reason="refused:sis_id_taken")
    put(ledger, "section", "X-1", section="PSUNV/1261/1", state="waiting", reason="untold:section")
    put(ledger, "person", "0009001", state="held", reason="too_many_suspensions")
    yield ledger
    ledger.close()


@pytest.fixture
def api(ledger: Ledger, tmp_path: Path) -> Api:
    return Api(ledger, tmp_path)


def put(ledger: Ledger, kind: str, sis_id: str, *, state: str, section: str | None = None, reason: str | None = None) -> None:
    ledger.connection.execute(
        """insert into lms_object (target, kind, object, tenant, key, person, section, term, state, reason)
           values ('canvas', %s, %s, 'main', %s, %s, %s, %s, %s, %s)""",
        [
            *(kind, sis_id, section or sis_id, None if section else sis_id, section),
            *(section and section.rpartition("/")[0], state, reason),
        ],
    )


async def test_each_kind_says_whether_it_is_made(api: Api) -> None:
    told = (await api.call("GET", "/objects/summary")).json()
    assert told["made"] == {"term": "not_supported", "course": "off", "section": "on", "person": "off"}
    counted = {(one["kind"], one["state"], one["reason"]): one["objects"] for one in told["objects"]}
    assert counted == {
        ("person", "held", "too_many_suspensions"): 1,
        ("section", "refused", "refused:sis_id_taken"): 1,
        ("section", "settled", None): 3,
        ("section", "waiting", "untold:section"): 1,
    }
    assert api.audit() == [("ops", "objects.summary", "done", {"target": "canvas"})]


async def test_objects_are_listed_in_pages_with_state_and_reason(api: Api) -> None:
    found, after = [], 0
    while after is not None:
        page = (await api.call("GET", f"/objects?kind=section&after={after}&limit=2")).json()
        found += page["objects"]
        after = page["next_after"]
    assert [one["sis_id"] for one in found] == ["S-1", "S-2", "S-3", "S-9", "X-1"]
    refused = found[3]
    assert (refused["state"], refused["reason"]) == ("refused", "refused:sis_id_taken")
    assert refused["section"] == {"institution": "PSUNV", "term": "1259", "section": "9"}
    held = (await api.call("GET", "/objects?state=held")).json()["objects"]
    assert [one["sis_id"] for one in held] == ["0009001"]


@pytest.mark.parametrize("query", ["kind=room", "state=done", "limit=0", "after=x"])
async def test_a_question_that_makes_no_sense_is_a_problem(api: Api, query: str) -> None:
    answer = await api.call("GET", f"/objects?{query}")
    assert answer.status_code == HTTPStatus.UNPROCESSABLE_ENTITY
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["errors"][0]["parameter"] == query.split("=", maxsplit=1)[0]


async def test_strangers_see_nothing(api: Api) -> None:
    for path in ("/objects", "/objects/summary"):
        assert (await api.call("GET", path, secret=None)).status_code == HTTPStatus.UNAUTHORIZED


def test_gauges_count_objects_by_kind_and_state_and_leave_out_what_is_in_shadow(ledger: Ledger) -> None:
    writing.shadow(ledger.connection, "canvas", "PSUNV/1261", "a trial", "somebody")
    ledger.connection.execute("update lms_object set state_since = state_since - interval '1 hour' where state = 'refused'")
    metrics = Metrics()
    SeatGauges(metrics, ledger.policies, TIMERS).observe(ledger.connection)

    def gauge(name: str, kind: str, state: str) -> float | None:
        return metrics.registry.get_sample_value(name, {"target": "canvas", "kind": kind, "state": state})

    assert gauge("sis_objects", "section", "settled") == 3
    assert (gauge("sis_objects", "section", "waiting"), gauge("sis_objects", "section", "shadow")) == (0, 1)
    assert (gauge("sis_objects_oldest_seconds", "section", "refused") or 0) >= 3600
    assert gauge("sis_objects", "term", "pending") == 0
