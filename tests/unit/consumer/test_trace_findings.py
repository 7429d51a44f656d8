"""What a trace says about how things stand, in words that name the next step."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from services.consumer.trace import Finding, Known, findings

LEDGER = {"policy_version": 1, "recovery": False, "intake_moved_at": "2026-09-01T08:00:00Z"}
PERSON = {"status": "active"}
SECTION = {"status": "active"}
ENROLLED = {"status": "enrolled", "role": "student", "begins_at": None}


def seat(work: dict[str, Any] | None = None, *, settled: bool = False) -> dict[str, Any]:
    return {"role": "StudentEnrollment", "desired": "active", "settled": settled, "live": True, "work": work, "override": None}


def work(state: str, **changes: Any) -> dict[str, Any]:
    return {"state": state, "reason": None, "attempts": 0, "waits_kind": None, "waits_object": None, "making": None} | changes


def known(**changes: Any) -> Known:
    return Known(
        **{
            "person": PERSON,
            "section": SECTION,
            "enrollments": [ENROLLED],
            "seats": [seat(settled=True)],
            "overrides": [],
            "differences": [],
            "ledger": LEDGER,
        }
        | changes
    )


def codes(found: list[Finding]) -> list[str]:
    return [finding.code for finding in found]


def test_a_seat_that_is_right_says_so() -> None:
    assert codes(findings(known())) == ["sis_enrolled", "applied"]


def test_an_empty_state_says_what_was_never_received_and_what_to_check() -> None:
    found = findings(known(person=None, section=None, enrollments=[], seats=[]))

    assert codes(found) == ["person_unknown", "section_unknown", "never_enrolled"]
    assert all(finding.check for finding in found)
    assert "leading zeros" in str(found[0].check)


def test_an_intake_that_never_read_is_the_first_suspect() -> None:
    empty = known(person=None, section=None, enrollments=[], seats=[], ledger=LEDGER | {"intake_moved_at": None})

    assert codes(findings(empty))[-1] == "intake_idle"


@pytest.mark.parametrize("status", ["dropped", "withdrawn", "waitlisted", "cancelled", "completed"])
def test_the_source_may_be_the_reason(status: str) -> None:
    found = findings(known(enrollments=[ENROLLED | {"status": status}], seats=[]))

    assert codes(found) == ["sis_not_enrolled", "no_seat"]
    assert status in found[0].text


def test_a_cancelled_section_is_named() -> None:
    assert codes(findings(known(section={"status": "cancelled"}))) == ["section_gone", "sis_enrolled", "applied"]


def test_a_tenant_without_a_policy_gets_no_seats() -> None:
    assert codes(findings(known(seats=[], ledger=LEDGER | {"policy_version": None}))) == ["sis_enrolled", "no_policy"]


@pytest.mark.parametrize(
    ("row", "code", "words"),
    [
        (work("waiting", waits_kind="user", waits_object="9000001"), "waiting", "no user with the SIS id 9000001"),
        (
            work("waiting", waits_kind="section", waits_object="S-1", making="waiting, untold:section"),
            "waiting",
            "Making it: waiting, untold:section.",
        ),
        (work("retrying", reason="server_fault", attempts=3), "retrying", "attempt 3 failed (server_fault)"),
        (work("dead", reason="refused"), "dead", "(refused)"),
        (work("suspect"), "suspect", "read again"),
        (work("pending"), "in_flight", "next in line"),
        (None, "lost_work", "nothing is planned"),
    ],
)
def test_an_unsettled_seat_says_what_it_waits_for(row: dict[str, Any] | None, code: str, words: str) -> None:
    found = findings(known(seats=[seat(row)]))

    assert codes(found) == ["sis_enrolled", code]
    assert words in found[1].text


@pytest.mark.parametrize(
    ("desired", "row", "code", "words"),
    [
        ("deleted", work("guarded"), "guarded", "counted"),
        ("deleted", work("held", hold=7), "held", "in hold 7 until a person approves"),
        ("active", work("guarded"), "held", "the section's number was given to another class"),
        ("active", work("held", hold=7), "held", "the section's number was given to another class"),
    ],
)
def test_what_the_guard_withholds_says_whether_it_is_a_removal(desired: str, row: dict[str, Any], code: str, words: str) -> None:
    found = findings(known(seats=[seat(row) | {"desired": desired}]))

    assert codes(found) == ["sis_enrolled", code]
    assert words in found[1].text


def test_an_enrollment_that_begins_later_says_when() -> None:
    later = ENROLLED | {"begins_at": datetime(2027, 1, 4, tzinfo=ZoneInfo("America/New_York"))}

    found = findings(known(enrollments=[later], seats=[]))

    assert codes(found) == ["sis_enrolled", "begins_later"]
    assert "nothing before 2027-01-04 00:00-05:00" in found[1].text


def test_a_seat_that_an_override_decides_says_so_and_until_when() -> None:
    overridden = seat(settled=True) | {"override": {"override": 12, "until": "2026-12-01T00:00:00+00:00"}}

    found = findings(known(enrollments=[ENROLLED | {"status": "dropped"}], seats=[overridden]))

    assert codes(found) == ["sis_not_enrolled", "override", "applied"]
    assert "active by override 12 until 2026-12-01 00:00+00:00, whatever the student system says" in found[1].text


def test_recovery_is_mentioned() -> None:
    assert "recovery" in codes(findings(known(ledger=LEDGER | {"recovery": True})))


def test_an_override_that_decides_nothing_says_so() -> None:
    override = {"override": 7, "role": "other", "in_force": True}
    found = findings(known(overrides=[override, override | {"override": 6, "in_force": False}]))

    assert codes(found)[-1] == "override_idle"
    assert "Override 7 decides nothing" in found[-1].text


def test_what_the_last_roster_showed_otherwise_is_told() -> None:
    one = {
        "kind": "missing",
        "role": "StudentEnrollment",
        "shown": "deleted",
        "read_at": datetime(2026, 9, 2, 3, tzinfo=ZoneInfo("UTC")),
    }
    found = findings(known(differences=[one]))

    assert codes(found) == ["sis_enrolled", "applied", "differs"]
    assert "2026-09-02 03:00" in found[-1].text
