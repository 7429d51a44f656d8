"""A campus that has another feed: it is compared, runs in shadow beside that feed, goes live, and is compared for good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from http import HTTPStatus
from typing import Any, NamedTuple

import pytest

from services.consumer.policy.model import default_text
from services.sandbox.sis.messages import RowChange
from services.sandbox.sis.school import INSTITUTION, TERM
from tests.e2e.arena import Arena, dropped, enrolled, eventually
from tests.e2e.conftest import MakeArena

PREFIX = f"{INSTITUTION}-{TERM}-"
POLICY = (
    default_text()
    .replace('user: "{person}"', f'user: "{PREFIX}P{{person}}"')
    .replace("{term}-{section}", "{term}-S{section}")
    .replace("wait_seconds: 60", "wait_seconds: 1")
)
"""The packaged policy, guard and all, with the sandbox's ids; it waits less for a burst."""
ROWS_A_MESSAGE = 1000
KEPT = {"start_at", "end_at", "limit_privileges", "sis_pseudonym", "sis_batch_id", "stuck_sis_fields"}
"""What nobody may lose because we look or write."""


class Place(NamedTuple):
    """A row of Canvas in the words of the student system."""

    emplid: str
    class_nbr: str


def place(row: dict[str, Any]) -> Place:
    return Place(row["sis"]["user"].removeprefix(PREFIX + "P"), row["sis"]["section"].removeprefix(PREFIX + "S"))


def act(arena: Arena, act: str, one: Place) -> None:
    """Somebody else does it."""
    arena.canvas.act(act, section=f"{PREFIX}S{one.class_nbr}", user=f"{PREFIX}P{one.emplid}")


def post(arena: Arena, rows: Iterable[RowChange]) -> None:
    """As a bulk load of the student system."""
    waiting = list(rows)
    for start in range(0, len(waiting), ROWS_A_MESSAGE):
        answer = arena.post(*waiting[start : start + ROWS_A_MESSAGE], timeout_seconds=60)
        assert answer.status_code == HTTPStatus.OK, answer.text


def compared(arena: Arena, *, repair: bool) -> dict[str, Any]:
    """A comparison of the whole term, from its start to its end."""
    scope = {"term": {"institution": INSTITUTION, "term": TERM}}
    started = arena.operate("POST", "/comparisons", {"scope": scope, "repair": repair})
    assert started.status_code == HTTPStatus.ACCEPTED, started.text
    path = f"/comparisons/{started.json()['comparison']}"
    eventually(lambda: arena.operate("GET", path).json()["state"] == "done", 180, "all rosters are compared")
    report: dict[str, Any] = arena.operate("GET", path).json()
    assert (report["open"], report["failed"], report["missing"]) == (0, 0, 0)
    return report


def differences(arena: Arena) -> dict[str, set[tuple[str | None, str]]]:
    """(person, class) of every difference that stands, by kind; read page by page."""
    found: dict[str, set[tuple[str | None, str]]] = {}
    after = 0
    while after is not None:
        page = arena.operate("GET", f"/differences?institution={INSTITUTION}&term={TERM}&limit=300&after={after}").json()
        for one in page["differences"]:
            found.setdefault(one["kind"], set()).add((one.get("person"), one["section"]["section"]))
        after = page["next_after"]
    return found


def switch(arena: Arena, **more: Any) -> Any:
    body = {"term": {"institution": INSTITUTION, "term": TERM}, "live": True, "reason": "the trial is over"}
    return arena.operate("POST", "/writing", body | more)


def written(arena: Arena) -> Counter[str]:
    return Counter(write["method"] for write in arena.canvas.writes() if write["applied"])


def lost(changes: Iterable[dict[str, Any]], allowed: Collection[Place] = ()) -> list[dict[str, Any]]:
    """Changes to columns that nobody may lose."""
    return [one for one in changes if KEPT & one.get("changed", {}).keys() and place(one) not in allowed]


@pytest.mark.parametrize("kafka", ["embedded"], indirect=True)
def test_adopt_shadow_and_go_live(make_arena: MakeArena) -> None:
    arena = make_arena(consumer={"START_IN_SHADOW": "true", "COMPARE_EVERY_HOURS": "0"}, policy=POLICY)
    arena.canvas.populate(prefix=PREFIX, sections=100, people=5_000, imported=20_000, manual=500)
    rows = arena.canvas.dump()
    imported = [place(row) for row in rows if row["sis_batch_id"]]
    manual = [place(row) for row in rows if not row["sis_batch_id"]]
    assert (len(imported), len(manual)) == (20_000, 500)
    left, unheard_of, barred, by_hand_and_right = imported[:100], imported[100:150], imported[150:170], manual[:50]
    new = {Place(str(number), str((number + 10) % 100 + 1)) for number in range(1, 101)}
    assert not new & {*imported, *manual}
    for one in barred:
        act(arena, "deactivate", one)
    before = arena.canvas.snapshot()

    # Shadow: everything is decided, nothing is applied.
    arena.start()
    post(arena, (dropped(*one) for one in left))
    post(arena, (enrolled(*one) for one in [*imported[150:], *by_hand_and_right, *sorted(new)]))
    eventually(lambda: not arena.unpublished() and not arena.unread(), 120, "the ledger knows all that the student system has")
    assert switch(arena).status_code == HTTPStatus.CONFLICT
    report = compared(arena, repair=False)
    assert (report["sections"], report["people"]) == (100, 20_500)
    shown = {
        "wrong_state": {*left, *barred},
        "missing": new,
        "extra_sis": set(unheard_of),
        "extra_manual": set(manual[50:]),
    }
    assert differences(arena) == shown
    (term,) = arena.operate("GET", "/agreement").json()["terms"]
    assert (term["seats"], term["agree"], term["unknown"], term["live"]) == (20_100, 19_880, 0, False)
    assert term["seats"] - term["agree"] == len(left) + len(barred) + len(new)
    assert arena.canvas.changes(before) == []

    # Live: what the report named is done, and nothing else.
    answer = switch(arena)
    assert answer.json()["released"] == {"adds": 120, "removals": 100, "updates": 0}
    eventually(arena.settled, 120, "what differed is as the student system has it")
    assert written(arena) == Counter(DELETE=100, POST=100, PUT=20)
    changes = arena.canvas.changes(before, "updated_at")
    assert {place(one) for one in changes} == {*left, *barred, *new}
    assert lost(changes) == []
    assert arena.canvas.violations() == []

    # For good: what somebody changes is found and put right.
    live = arena.canvas.snapshot()
    before_repair = written(arena)
    touched = dict(zip(imported[1000:1200], ["delete", "deactivate"] * 100, strict=True))
    for one, what in touched.items():
        act(arena, what, one)
    report = compared(arena, repair=True)
    assert report["repairs"] == 200
    eventually(arena.settled, 120, "what was changed is repaired")
    assert written(arena) - before_repair == Counter(POST=100, PUT=100)
    assert {place(one) for one in arena.canvas.changes(live, "updated_at")} <= touched.keys()
    deleted = {one for one, what in touched.items() if what == "delete"}
    assert lost(arena.canvas.changes(live), allowed=deleted) == []
    assert compared(arena, repair=True)["differences"] == 500
    assert differences(arena) == {"extra_sis": set(unheard_of), "extra_manual": set(manual[50:])}
    assert arena.violations() == []
