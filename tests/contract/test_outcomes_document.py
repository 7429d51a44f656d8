"""docs/outcomes.md says of every answer of an LMS what the driver does about it, as the code does it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from services.consumer.drive.caller import Caller
from services.consumer.drive.observer import MetricsObserver
from services.consumer.drive.orders import Order
from services.consumer.drive.pacing import Bucket, Gate
from services.consumer.drive.reactions import Attempt, NotSent, Settlement, react
from services.consumer.metrics import Metrics
from services.consumer.nouns import Seat, SeatState
from services.consumer.targets.port import (
    AlreadySo,
    Concluded,
    Done,
    IdentityMismatch,
    NoPermission,
    NotThere,
    Observation,
    Outcome,
    Refused,
    ServerFault,
    Throttled,
    Unknown,
    WrongShape,
)
from tests.integration.consumer.drive.drive_support import ScriptedLms

DOCUMENT = Path(__file__).parents[2] / "docs" / "outcomes.md"
_ACTIVE, _ABSENT = Observation("active", "e1", "c1"), Observation("absent")
CASES: list[tuple[str, Outcome | NotSent, SeatState]] = [
    ("`Done`: the body shows the seat as asked", Done(_ACTIVE), "active"),
    ("`Done`, and the body shows no change", Done(_ABSENT), "active"),
    ("`AlreadySo`", AlreadySo(_ACTIVE), "active"),
    ("`NotThere(user)`, of an add", NotThere("user"), "active"),
    ("`NotThere(section)`, of an add", NotThere("section"), "active"),
    ("`NotThere(both)`, of an add", NotThere("both"), "active"),
    ("`NotThere(elsewhere)`, of an add", NotThere("elsewhere"), "active"),
    ("`NotThere(elsewhere)`, of a removal", NotThere("elsewhere"), "deleted"),
    ("`NoPermission`, of this seat", NoPermission(whole_token=False), "active"),
    ("`NoPermission`, of the whole token", NoPermission(whole_token=True), "active"),
    ("`Throttled`", Throttled(), "active"),
    ("`Refused`", Refused("validation"), "active"),
    ("`Concluded`", Concluded(), "active"),
    ("`ServerFault`", ServerFault("http_500"), "active"),
    ("`Unknown`", Unknown("timeout"), "active"),
    ("`WrongShape`", WrongShape("not_json"), "active"),
    ("`IdentityMismatch`", IdentityMismatch("user"), "active"),
    ("`NotSent`: its time was over before the call", NotSent(), "active"),
]
_WORK = {
    "now": "due at once",
    "wait": "waits for the object",
    "dead": "dead letter",
}


def _settlement(result: Outcome | NotSent, desired: SeatState, attempts: int = 0) -> Settlement:
    seat = Seat("canvas", "main", "p", "U/1/S", None, "S", "p", "StudentEnrollment", "StudentEnrollment")
    order = Order(
        "i", "k", seat, desired, "absent" if desired == "active" else "active", None, "e1", "c1", "write", False, True,
        attempts, result.label if attempts else None, 2, datetime(2026, 9, 1, tzinfo=UTC), time.monotonic() + 1,
    )  # fmt: skip
    return react(order, Attempt(result, None, wrote=not isinstance(result, NotSent)), 0)


def _work(result: Outcome | NotSent, desired: SeatState) -> str:
    first, third = _settlement(result, desired), _settlement(result, desired, attempts=2)
    if first.applied == desired:
        return "settled"
    if first.then != "retry":
        return _WORK[first.then]
    later = "dead letter" if third.then == "dead" else f"{third.delay_seconds:g} s"
    return f"again after {first.delay_seconds:g} s, the third time {later}"


def _token(result: Outcome | NotSent) -> str:
    """What one such answer, and five of different seats in a row, do to the token."""
    if isinstance(result, NotSent):
        return "-"
    pauses = []
    for answers in (1, 5):
        gate = Gate(10, Bucket(0), lambda: 0.0, lambda: 0.0)
        caller = Caller(ScriptedLms(), gate, MetricsObserver(Metrics(), "canvas"), 1, time.monotonic)
        for number in range(answers):
            caller._learn("write", str(number), result, 0.1)
        pauses.append(gate.pause_left)
    if pauses[0]:
        return f"pauses {pauses[0]:g} s and longer"
    return f"five seats in a row: pauses {pauses[1]:g} s and longer" if pauses[1] else "-"


def table() -> str:
    """The rows of the document."""
    rows = []
    for name, result, desired in CASES:
        what = _settlement(result, desired)
        marks = [
            _work(result, desired),
            "yes" if what.applied == "unknown" else "-",
            "yes" if what.late else "-",
            "yes" if what.attempts else "-",
            _token(result),
        ]
        rows.append(f"| {name} | `{what.outcome}` | {' | '.join(marks)} |")
    return "\n".join(rows)


def test_every_answer_has_a_row_in_the_document() -> None:
    """Add a case above when an outcome is added to the port."""
    assert {type(result) for _, result, _ in CASES} == {*get_args(Outcome), NotSent}


def test_the_document_says_what_the_driver_does() -> None:
    """When this fails, put the rows that it wants into docs/outcomes.md."""
    found = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("| `")]
    assert "\n".join(found) == table()
