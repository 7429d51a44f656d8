"""Where the intake stands still, and letting it go on, through the operations API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.topics import Topics
from services.consumer.ledger import parked, stops
from services.consumer.ledger.offsets import LogPartition
from services.consumer.ledger.parked import Parked
from tests.integration.consumer.api_support import Api
from tests.integration.consumer.ledger_support import Ledger

TOPICS = Topics("test")
ENROLLMENTS = TOPICS.entity("enrollment")
HERE = LogPartition("topic-id", ENROLLMENTS, 0)


@pytest.fixture
def api(database_url: str, tmp_path: Path) -> Iterator[Api]:
    ledger = Ledger(database_url)
    yield Api(ledger, tmp_path, TOPICS)
    ledger.close()


def stopped(api: Api, place: LogPartition = HERE, offset: int = 20) -> None:
    stops.put(api.ledger.connection, place, offset, 101, 300, "schema_invalid")


def diverted(api: Api) -> list[tuple[Any, ...]]:
    return api.ledger.rows('select "partition", divert_before from intake_stop order by topic, "partition"')


async def test_a_stop_is_shown_with_its_place_and_its_reason(api: Api) -> None:
    stopped(api)

    (stop,) = (await api.call("GET", "/intake/stops")).json()["stops"]

    assert stop.pop("since")
    assert stop == {
        "topic": ENROLLMENTS,
        "partition": 0,
        "offset": 20,
        "reason": "schema_invalid",
        "not_usable": 101,
        "of_the_last": 300,
        "divert_before": None,
    }


async def test_the_line_goes_on_over_all_that_the_partition_holds_now(api: Api) -> None:
    stopped(api)

    answer = await api.call("POST", "/intake/resume", json={})

    assert answer.status_code == 200, answer.text
    assert diverted(api) == [(0, 50)]
    assert [row[1:3] for row in api.audit()] == [("intake.resume", "done")]


async def test_one_partition_is_resumed_and_others_are_not(api: Api) -> None:
    stopped(api)
    stopped(api, HERE._replace(partition=1))

    await api.call("POST", "/intake/resume", json={"topic": ENROLLMENTS, "partition": 1, "before": 30})

    assert diverted(api) == [(0, None), (1, 30)]


async def test_an_offset_that_lets_nothing_pass_is_refused(api: Api) -> None:
    stopped(api)

    answer = await api.call("POST", "/intake/resume", json={"topic": ENROLLMENTS, "partition": 0, "before": 20})

    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/before")
    assert diverted(api) == [(0, None)]


async def test_without_kafka_nothing_is_resumed(api: Api) -> None:
    stopped(api)
    api.log.away = True

    assert (await api.call("POST", "/intake/resume", json={})).status_code == 503
    assert diverted(api) == [(0, None)]
    assert [row[1:3] for row in api.audit()] == [("intake.resume", "refused")]


async def test_nothing_to_resume_is_not_found(api: Api) -> None:
    assert (await api.call("POST", "/intake/resume", json={})).status_code == 404


@pytest.mark.parametrize("body", [{"partition": 1}, {"topic": ENROLLMENTS, "before": 5}, {"all": True}])
async def test_half_a_place_is_refused(api: Api, body: dict[str, Any]) -> None:
    assert (await api.call("POST", "/intake/resume", json=body)).status_code == 422


async def test_what_waits_for_an_upgrade_is_listed_without_its_content(api: Api) -> None:
    parked.park(api.ledger.connection, [Parked(HERE, 12, b"main/9000001", b'{"person": "9000001"}', "status")])

    answer = await api.call("GET", "/intake/parked")

    (one,) = answer.json()["oldest"]
    assert (answer.json()["records"], one["offset"], one["field"]) == (1, 12, "status")
    assert "9000001" not in answer.text
