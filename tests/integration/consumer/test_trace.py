"""A trace tells, for one person and one section, everything that the ledger knows and nothing about anybody else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import structlog

from schemas.events import PersonEvent
from services.consumer.ledger import recovery, reopening
from tests.integration.consumer.api_support import Api
from tests.integration.consumer.ledger_support import START, TENANT, Ledger, enrollment, hashed, seat, section_event

SECTION = {"institution": "PSUNV", "term": "1259", "section": "1001"}


@pytest.fixture
def api(database_url: str, tmp_path: Path) -> Iterator[Api]:
    ledger = Ledger(database_url)
    recovery.begin_session(ledger.connection, 0)
    yield Api(ledger, tmp_path)
    ledger.close()


async def ask(api: Api, person: str = "9000001", section: dict[str, str] | None = None, **more: str) -> dict[str, Any]:
    answer = await api.call("POST", "/trace", json={"person": person, "section": section or SECTION} | more)
    assert answer.status_code == 200
    found: dict[str, Any] = answer.json()
    return found


def codes(found: dict[str, Any]) -> list[str]:
    return [finding["code"] for finding in found["findings"]]


async def test_the_timeline_tells_the_whole_story_in_order(api: Api) -> None:
    ledger = api.ledger
    ledger.take(section_event())
    ledger.take(enrollment(version=2))
    ledger.take(enrollment("waitlisted", version=1))
    with ledger.connection.transaction():
        reopening.reopen(ledger.connection, [seat()], UUID(int=5), verify=True)
    ledger.take(enrollment("dropped", version=3))

    found = await ask(api)

    assert [(row["what"], row.get("kind"), row.get("version")) for row in found["timeline"]] == [
        ("received", "section", 1),
        ("received", "enrollment", 2),
        ("decided", "enrollment", 2),
        ("superseded", "enrollment", 1),
        ("reopened", None, 2),
        ("received", "enrollment", 3),
        ("decided", "enrollment", 3),
    ]
    assert found["timeline"][1]["role_family"] == "learner"
    assert (found["timeline"][1]["topic"], found["timeline"][1]["offset"]) == ("enrollstream.enrollment.v1", 0)
    assert found["timeline"][2]["detail"]["desired"] == "active"
    assert found["timeline_complete"] is True


async def test_the_current_state_names_desired_applied_work_reason_and_policy(api: Api) -> None:
    ledger = api.ledger
    ledger.take(section_event())
    ledger.take(enrollment(version=2))
    ledger.connection.execute("update work set state = 'dead', reason = 'refused', attempts = 4")

    found = await ask(api)

    assert codes(found) == ["sis_enrolled", "dead"]
    assert found["section"]["status"] == "active"
    assert [(one["status"], one["role"], one["version"]) for one in found["enrollments"]] == [("enrolled", "student", 2)]
    (place,) = found["seats"]
    assert (place["desired"], place["applied"], place["settled"], place["policy_version"]) == ("active", "unknown", False, 1)
    assert (place["work"]["state"], place["work"]["reason"], place["work"]["attempts"]) == ("dead", "refused", 4)
    ledger.settle()
    assert codes(await ask(api)) == ["sis_enrolled", "applied"]


async def test_a_seat_that_waits_names_what_the_lms_lacks(api: Api) -> None:
    api.ledger.take(enrollment())
    api.ledger.connection.execute(
        """insert into dependency (target, kind, object, state, next_probe_at)
           values ('canvas', 'section', 'PSUNV-1259-1001', 'missing', now())"""
    )
    api.ledger.connection.execute(
        "update work set state = 'waiting', waits_kind = 'section', waits_object = 'PSUNV-1259-1001', reason = 'not_there'"
    )

    found = await ask(api)

    assert codes(found)[-1] == "waiting"
    assert found["seats"][0]["work"]["waits_object"] == "PSUNV-1259-1001"
    assert found["seats"][0]["work"]["next_probe_at"]
    assert found["seats"][0]["work"]["making"] is None

    api.ledger.connection.execute(
        """insert into lms_object (target, kind, object, tenant, key, state, reason)
           values ('canvas', 'section', 'PSUNV-1259-1001', 'main', 'PSUNV/1259/1001', 'refused', 'refused:sis_id_taken')"""
    )
    making = (await ask(api))["seats"][0]["work"]["making"]
    assert making == "refused, refused:sis_id_taken"


async def test_nobody_elses_story_is_told(api: Api) -> None:
    ledger = api.ledger
    ledger.take(
        enrollment(),
        enrollment(person="9000002"),
        enrollment(section="1002"),
        enrollment(tenant="other", version=3),
    )

    found = await ask(api)

    assert [row["what"] for row in found["timeline"]] == ["received", "decided"]
    assert [one["lms_section"] for one in found["seats"]] == ["PSUNV-1259-1001"]
    assert "9000002" not in str(found)
    assert len((await ask(api, tenant="other"))["enrollments"]) == 1


async def test_an_empty_state_says_what_was_looked_for_and_what_to_check(api: Api) -> None:
    found = await ask(api, "0000009")

    assert found["looked_for"] == {"tenant": TENANT, "person": "0000009", "section": SECTION}
    assert codes(found)[:3] == ["person_unknown", "section_unknown", "never_enrolled"]
    assert found["timeline"] == found["seats"] == found["enrollments"] == []


async def test_the_persons_own_record_is_part_of_the_story_without_a_name(api: Api) -> None:
    person = PersonEvent(
        tenant=TENANT, version=1, content_hash="0" * 32, accepted_at=START, person="9000001", status="active", display_name="Ada"
    )
    api.ledger.take(hashed(person))

    found = await ask(api)

    assert found["person"]["status"] == "active"
    assert [row["kind"] for row in found["timeline"]] == ["person"]
    assert "Ada" not in str(found)


async def test_a_long_story_keeps_its_newest_part(api: Api) -> None:
    api.ledger.connection.execute(
        """insert into history (tenant, person, section, what, version)
           select %s, '9000001', 'PSUNV/1259/1001', 'received', n from generate_series(1, 600) n""",
        [TENANT],
    )

    found = await ask(api)

    assert [row["version"] for row in found["timeline"]] == list(range(101, 601))
    assert found["timeline_complete"] is False


async def test_a_lookup_is_audited_with_whom_it_was_about_and_logged_without(api: Api) -> None:
    with structlog.testing.capture_logs() as logged:
        await ask(api)

    assert api.audit() == [("ops", "trace", "done", {"tenant": TENANT, "person": "9000001", "section": SECTION})]
    assert "9000001" not in str(logged)


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"section": SECTION}, "/person"),
        ({"person": "", "section": SECTION}, "/person"),
        ({"person": "a\x00b", "section": SECTION}, "/person"),
        ({"person": 9000001, "section": SECTION}, "/person"),
        ({"person": "9000001", "section": "1001"}, "/section"),
        ({"person": "9000001", "section": {"institution": "PSUNV", "term": "1259"}}, "/section/section"),
        ({"person": "9000001", "section": SECTION | {"9000001": 1}}, "/section"),
    ],
)
async def test_a_question_that_is_not_valid_is_refused_without_quoting_it(api: Api, body: Any, pointer: str) -> None:
    answer = await api.call("POST", "/trace", json=body)

    assert answer.status_code == 422
    assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]
    assert "9000001" not in answer.text
    assert api.audit() == [("ops", "trace", "refused", {"reason": "invalid"})]


async def test_seats_of_the_section_survive_the_end_of_what_entitled_to_them(api: Api) -> None:
    api.ledger.take(enrollment(version=1))
    api.ledger.settle()
    api.ledger.take(enrollment("waitlisted", version=2))

    found = await ask(api)

    assert [one["desired"] for one in found["seats"]] == ["deleted"]
    assert seat() in api.ledger.work()
