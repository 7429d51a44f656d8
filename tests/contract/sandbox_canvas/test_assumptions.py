"""What nobody has seen on a real installation: the reading that is assumed, and the switch to the other one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from tests.contract.sandbox_canvas.conftest import Api

START = "2190-01-01T00:00:00Z"
FUTURE = {"start_at": START, "end_at": "2190-06-01T00:00:00Z"}


async def assume(api: Api, **assumptions: Any) -> None:
    changed = await api.control("PATCH", "settings", json={"assumptions": assumptions})
    assert assumptions.items() <= changed["assumptions"].items()


async def mails(api: Api) -> list[tuple[str, bool]]:
    return [(mail["kind"], mail["sent"]) for mail in (await api.control("GET", "mails"))["mails"]]


@pytest.mark.parametrize("keeps", [True, False])
async def test_a_revival_keeps_or_clears_the_moment_of_the_conclusion(api: Api, keeps: bool) -> None:
    """app/models/course.rb#enroll_user writes no completed_at [inferred]"""
    await assume(api, revival_keeps_completed_at=keeps)
    row = await api.enroll()
    await api.remove(row, task="conclude")
    assert (await api.enroll())["enrollment_state"] == "active"
    assert (api.stored(row).completed_at is not None) is keeps


@pytest.mark.parametrize("at_once", [True, False])
async def test_what_a_row_is_made_with_is_sticky_at_once_or_not(api: Api, at_once: bool) -> None:
    """lib/sticky_sis_fields.rb: before_save, formerly before_update"""
    await assume(api, sticky_when_made=at_once)
    row = await api.enroll(**FUTURE)
    assert api.stored(row).stuck_sis_fields == ({"start_at", "end_at"} if at_once else set())


@pytest.mark.parametrize(("takes", "status"), [(True, 200), (False, 403)])
async def test_a_blueprint_course_takes_observers_or_not(api: Api, takes: bool, status: int) -> None:
    """app/models/user.rb#can_create_enrollment_for? [not confirmed for observers]"""
    await assume(api, blueprint_takes_observers=takes)
    api.seed(courses=[{"sis_course_id": "C1", "blueprint": True}])
    assert (await api.create(type="ObserverEnrollment")).status_code == status
    assert (await api.create()).status_code == 403


@pytest.mark.parametrize(
    ("switch", "hidden", "scheduled"),
    [
        ("always", False, True),
        ("always", True, True),
        ("hidden", False, False),
        ("hidden", True, True),
        ("never", True, False),
    ],
)
async def test_an_invitation_before_the_start_may_be_mailed_at_the_start_without_notify(
    api: Api, switch: str, hidden: bool, scheduled: bool
) -> None:
    """app/models/enrollment.rb#dispatch_invitations_later [inferred]"""
    await assume(api, invitation_at_start=switch)
    api.seed(courses=[{"sis_course_id": "C1", "restrict_future_view": hidden}])
    await api.enroll(enrollment_state="invited", notify=False, **FUTURE)
    assert await mails(api) == ([("enrollment_invitation", False)] if scheduled else [])
    api.canvas.clock.set(datetime.fromisoformat(START), frozen=True)
    assert await mails(api) == ([("enrollment_invitation", True)] if scheduled else [])


async def test_whoever_was_activated_meanwhile_gets_no_mail_at_the_start(api: Api) -> None:
    """app/models/enrollment.rb#re_send_confirmation_if_invited!"""
    await api.enroll(enrollment_state="invited", **FUTURE)
    await api.enroll(**FUTURE)
    api.canvas.clock.set(datetime.fromisoformat(START), frozen=True)
    assert await mails(api) == [("enrollment_invitation", False)]


@pytest.mark.parametrize("state", ["active", "invited", "inactive"])
async def test_without_notify_nothing_is_mailed_at_once(api: Api, state: str) -> None:
    """app/controllers/enrollments_api_controller.rb#create: no_notify"""
    await api.enroll(enrollment_state=state)
    assert await mails(api) == []


@pytest.mark.parametrize(
    ("wanted", "registered", "kinds"),
    [
        ({"enrollment_state": "active"}, True, ["enrollment_notification"]),
        ({"enrollment_state": "invited"}, True, ["enrollment_invitation"]),
        ({"enrollment_state": "invited"}, False, ["enrollment_registration"]),
        ({"enrollment_state": "inactive"}, True, []),
        ({"enrollment_state": "active", "type": "ObserverEnrollment"}, True, []),
        ({"enrollment_state": "active", "self_enrolled": True}, True, []),
        ({"enrollment_state": "invited", "self_enrolled": True}, True, []),
    ],
)
async def test_with_notify_the_mail_goes_by_state_and_person(
    api: Api, wanted: dict[str, Any], registered: bool, kinds: list[str]
) -> None:
    """app/models/enrollment.rb: set_broadcast_policy"""
    api.canvas.world.logins_by_sis["U1"].user.state = "registered" if registered else "pre_registered"
    await api.enroll(notify=True, **wanted)
    assert await mails(api) == [(kind, True) for kind in kinds]


async def test_a_repeated_create_mails_nobody_again(api: Api) -> None:
    """app/models/enrollment.rb: just_created or a changed state"""
    for _ in range(2):
        await api.enroll(notify=True)
        await api.enroll(notify=True, user_id="sis_user_id:U2", enrollment_state="invited")
    assert await mails(api) == [("enrollment_notification", True), ("enrollment_invitation", True)]


async def test_a_create_that_was_not_kept_mails_nobody(api: Api) -> None:
    """Not of Canvas: a fault that pretends."""
    await api.control("POST", "faults", json={"kind": "pretend", "count": 1})
    await api.enroll(notify=True)
    assert await mails(api) == []


async def test_a_bulk_enrollment_mails(api: Api) -> None:
    """app/models/enrollment/bulk_update.rb: no_notify false"""
    body = {"user_ids": ["sis_user_id:U1"], "course_ids": ["sis_course_id:C1"]}
    await api.call("POST", "accounts/self/bulk_enrollment", json=body)
    assert await mails(api) == [("enrollment_invitation", True)]
