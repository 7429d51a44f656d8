"""Others change Canvas behind our back."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import httpx

from services.sandbox.sis.school import INSTITUTION, TERM
from services.sandbox.sis.truth import section_id
from tests.drills.catalogue import drill
from tests.drills.rows.people import a_class, active, drop, enroll
from tests.drills.world import World
from tests.e2e.arena import eventually

CLASS = "99914"
PEOPLE = [f"97140{number:02}" for number in range(10)]
DELETED, CONCLUDED, DEACTIVATED, PROMOTED, DATED, CLAIMED, PURGED, PURGED_TOO, MERGED, LEFT_ALONE = PEOPLE
BY_HAND, BY_A_FEED, OTHER_SELF = "9714090", "9714091", "9714092"
_SECRET = "an administrator's token of the drill"


@drill(
    "V14",
    "others change Canvas: a teacher, a merge of users, a cross-listing, another feed whose batch mode deletes our rows",
    "each of them done to a class of ten amid traffic; the class compared, compared with repairs, and compared again",
)
def v14(world: World) -> None:
    with a_class(world, CLASS, PEOPLE), world.traffic() as traffic:
        enroll(world, CLASS, PEOPLE)
        _interfere(world)
        before = world.canvas.snapshot()

        told = _compared(world, repair=False)
        assert _kinds(world) == {
            "missing": {DELETED, PURGED, PURGED_TOO},
            "wrong_state": {CONCLUDED, DEACTIVATED},
            "wrong_role": {PROMOTED},
            "extra_manual": {BY_HAND},
            "extra_sis": {BY_A_FEED},
        }
        assert _changed(world, before) == set(), "a comparison changed something"

        repaired = _compared(world, repair=True)
        eventually(lambda: active(world, CLASS) == {*PEOPLE, BY_HAND, BY_A_FEED, OTHER_SELF} - {MERGED}, 60, "it is repaired")
        again = _compared(world, repair=True)
        assert _kinds(world) == {"extra_manual": {BY_HAND}, "extra_sis": {BY_A_FEED}}, "the policy has these listed, no more"
        assert _changed(world, before) == {DELETED, CONCLUDED, DEACTIVATED, PROMOTED, PURGED, PURGED_TOO}, "dates are a teacher's"
        world.seen |= {
            "differences": told["differences"],
            "repaired": repaired["repairs"],
            "left": again["differences"],
            "repaired again": again["repairs"],
        }
        assert again["repairs"] == 0

        # What the student system says later arrives, though the section is in another course and the person another user.
        drop(world, CLASS, [MERGED, LEFT_ALONE])
        assert active(world, CLASS) == {*PEOPLE, BY_HAND, BY_A_FEED} - {MERGED, LEFT_ALONE}
        traffic.await_sent(120)


def _interfere(world: World) -> None:
    canvas, section = world.canvas, section_id(CLASS)
    canvas.users(BY_HAND, BY_A_FEED, OTHER_SELF)
    canvas.objects(
        courses=[{"sis_course_id": f"{TERM}-009014"}],
        enrollments=[{"section": section, "user": BY_HAND}, {"section": section, "user": BY_A_FEED, "sis_import_id": 7}],
    )
    dates = {"start_at": "2027-01-10T00:00:00Z", "end_at": "2027-05-10T00:00:00Z"}
    for act, user, more in (
        ("delete", DELETED, {}),
        ("conclude", CONCLUDED, {}),
        ("deactivate", DEACTIVATED, {}),
        ("role", PROMOTED, {"to_role": "TaEnrollment"}),
        ("dates", DATED, dates),
        ("import", CLAIMED, dates),
        # Batch mode deletes what belongs to an import; so the other feed has it first.
        ("import", PURGED, {"import_id": 8}),
        ("import", PURGED_TOO, {"import_id": 8}),
        ("import", PURGED, {"import_id": 9, "status": "deleted"}),
        ("import", PURGED_TOO, {"import_id": 9, "status": "deleted"}),
    ):
        canvas.act(act, section=section, user=user, **more)
    canvas.token("administrator", secret=_SECRET)
    _administer(world, "PUT", f"users/sis_user_id:{MERGED}/merge_into/sis_user_id:{OTHER_SELF}")
    _administer(world, "POST", f"sections/sis_section_id:{section}/crosslist/sis_course_id:{TERM}-009014")


def _administer(world: World, method: str, path: str) -> None:
    """In Canvas's own API, as somebody else."""
    headers = {"authorization": f"Bearer {_SECRET}"}
    answer = httpx.request(method, f"{world.system.canvas_url}/api/v1/{path}", headers=headers, trust_env=False)
    assert answer.status_code == HTTPStatus.OK, answer.text


def _compared(world: World, *, repair: bool) -> dict[str, Any]:
    """A comparison of the class that could tell of every seat: not of one that has only just been confirmed."""
    report: dict[str, Any] = {}

    def complete() -> bool:
        scope = {"section": {"institution": INSTITUTION, "term": TERM, "section": CLASS}}
        started = world.arena.operate("POST", "/comparisons", {"scope": scope, "repair": repair})
        assert started.status_code == HTTPStatus.ACCEPTED, started.text
        path = f"/comparisons/{started.json()['comparison']}"
        eventually(lambda: world.arena.operate("GET", path).json()["state"] == "done", 60, "the class is compared")
        report.update(world.arena.operate("GET", path).json())
        return bool(report["untold"] == 0)

    eventually(complete, 60, "a comparison tells of every seat")
    return report


def _kinds(world: World) -> dict[str, set[str]]:
    """Whom the differences of the class are about."""
    path = f"/differences?institution={INSTITUTION}&term={TERM}&section={CLASS}"
    found: dict[str, set[str]] = {}
    for one in world.arena.operate("GET", path).json()["differences"]:
        found.setdefault(one["kind"], set()).add(one.get("person") or one["lms_user"])
    return found


def _changed(world: World, snapshot: int) -> set[str]:
    """Whose rows of the class are not as they were, in any column."""
    rows = [one for one in world.canvas.changes(snapshot) if one["kind"] == "enrollments"]
    return {str(one["sis"]["user"]) for one in rows if one["sis"].get("section") == section_id(CLASS)}
