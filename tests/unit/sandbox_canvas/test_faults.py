"""Which calls a fault hits, and for how long."""

from __future__ import annotations

import random
from typing import Any

import pytest

from services.sandbox.canvas.faults import Faults, FaultSpec, Subject

CREATE = Subject("POST", "enrollments.create", user="U1", section="S1")


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def faults(time: Time) -> Faults:
    return Faults(time, random.Random(1))  # noqa: S311  (faults must repeat)


def spec(**limits: Any) -> FaultSpec:
    return FaultSpec(kind="status", **limits)


def hits(faults: Faults, subject: Subject = CREATE) -> bool:
    return faults.pick(subject).spec is not None


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, True),
        ({"methods": ["POST"]}, True),
        ({"methods": ["GET"]}, False),
        ({"endpoints": ["enrollments.create", "users.get"]}, True),
        ({"endpoints": ["enrollments.delete"]}, False),
        ({"user": "U1"}, True),
        ({"user": "U2"}, False),
        ({"section": "S1", "user": "U1"}, True),
        ({"section": "S2", "user": "U1"}, False),
    ],
)
def test_all_limits_must_hold(faults: Faults, limits: dict[str, Any], expected: bool) -> None:
    fault = faults.add(spec(**limits))
    assert hits(faults) is expected
    assert fault.bit == int(expected)


def test_a_count_is_used_up_and_stays_on_record(faults: Faults) -> None:
    fault = faults.add(spec(count=2))
    assert [hits(faults) for _ in range(3)] == [True, True, False]
    assert faults.as_json() == [{"id": fault.id, "bit": 2, "over": True, "kind": "status", "count": 2}]


def test_a_time_runs_out(faults: Faults, time: Time) -> None:
    faults.add(spec(for_seconds=5))
    time.now = 4.9
    assert hits(faults)
    time.now = 5.0
    assert not hits(faults)


def test_chance_hits_about_as_often_as_asked(faults: Faults) -> None:
    faults.add(spec(probability=0.25))
    assert 200 < sum(hits(faults) for _ in range(1000)) < 300


def test_delays_add_up_and_the_first_other_fault_wins(faults: Faults) -> None:
    for kind in ("latency", "reset", "latency", "hang"):
        faults.add(FaultSpec(kind=kind, ms=100))
    picked = faults.pick(CREATE)
    assert picked.delay_seconds == pytest.approx(0.2)
    assert picked.spec is not None
    assert picked.spec.kind == "reset"
    assert [fault["bit"] for fault in faults.as_json()] == [1, 1, 1, 0]


def test_removed_faults_bite_no_more(faults: Faults) -> None:
    first, second = faults.add(spec()), faults.add(spec())
    assert faults.remove(first.id) == 1
    assert hits(faults)
    assert second.bit == 1
    assert faults.remove() == 1
    assert not hits(faults)


@pytest.mark.parametrize(
    ("kind", "applies"), [("reset", True), ("truncated", True), ("hang", False), ("status", False), ("html", False)]
)
def test_a_fault_takes_effect_first_where_that_is_the_nasty_case(kind: Any, applies: bool) -> None:
    assert FaultSpec(kind=kind).applies is applies
    assert FaultSpec(kind=kind, apply=not applies).applies is not applies
