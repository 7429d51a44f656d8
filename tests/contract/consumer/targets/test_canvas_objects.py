"""Terms, courses, sections and people of Canvas as a target's objects, against the sandbox over real HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.consumer.nouns import ObjectKind
from services.consumer.targets.canvas.client import CanvasClient
from services.consumer.targets.canvas.objects import CanvasObjects
from services.consumer.targets.objects import Attribute, NoObject, NoParent, ShownObject, WantedObject
from services.consumer.targets.port import IdentityMismatch, NoPermission, Refused, ServerFault, Throttled, Unknown, WrongShape
from services.kit.credentials import SecretFile
from services.sandbox.canvas.server import CanvasServer
from tests.serving import serving

TERM = WantedObject("term", "T-1", {"name": "Fall", "starts": "2026-08-24T04:00:00Z", "ends": "2026-12-19T04:59:59Z"})
COURSE = WantedObject("course", "C-1", {"name": "Baroque Music", "code": "MUS 201"}, inside="T-1")
SECTION = WantedObject("section", "S-1", {"name": "MUS 201 1001"}, inside="C-1")
PERSON = WantedObject("person", "0009001", {"name": "Clara Wieck", "login": "0009001", "state": "active"})
WHOLE = (TERM, COURSE, SECTION, PERSON)
NAME: frozenset[Attribute] = frozenset({"name"})


class ObjectLab:
    """A Canvas, and its objects as a target offers them."""

    def __init__(self, server: CanvasServer, objects: CanvasObjects) -> None:
        self.control = server.control
        self.objects = objects

    async def made(self, *wanted: WantedObject) -> None:
        for one in wanted:
            assert isinstance(await self.objects.make(one), ShownObject)

    async def found(self, wanted: WantedObject) -> ShownObject:
        found = await self.objects.find(wanted)
        assert isinstance(found, ShownObject)
        return found

    def row(self, kind: str, sis_id: str) -> dict[str, Any]:
        return next(row for row in self.control.dump(kind) if sis_id in row.values())

    def changes(self) -> int:
        calls = self.control.calls()["calls"]
        return sum(one["count"] for one in calls if one["endpoint"].rpartition(".")[2] in ("create", "update"))


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[ObjectLab]:
    with serving(CanvasServer()) as server:
        token = tmp_path / "token"
        token.write_text(server.token)
        client = CanvasClient(server.url, SecretFile(token))
        yield ObjectLab(server, CanvasObjects(client, "self", 1.5))
        await client.close()


@pytest.mark.parametrize("wanted", WHOLE, ids=lambda wanted: wanted.kind)
async def test_what_was_never_made_is_not_there_and_what_was_made_is_as_wanted(lab: ObjectLab, wanted: WantedObject) -> None:
    await lab.made(*WHOLE[: WHOLE.index(wanted)])
    assert await lab.objects.find(wanted) == NoObject()
    made = await lab.objects.make(wanted)
    assert isinstance(made, ShownObject)
    assert made.values == wanted.values
    assert await lab.objects.find(wanted) == made
    assert made.usage.calls >= 1


async def test_one_call_makes_an_object_once_the_token_is_known_to_be_good(lab: ObjectLab) -> None:
    await lab.made(TERM)
    made = await lab.objects.make(COURSE)
    assert isinstance(made, ShownObject)
    assert made.usage.calls == 1


async def test_nobody_is_written_to_and_nothing_is_published(lab: ObjectLab) -> None:
    await lab.made(*WHOLE)
    assert lab.control.mails() == []
    assert lab.row("courses", "C-1")["state"] == "created"
    assert lab.row("users", "Clara Wieck")["state"] == "registered"


async def test_a_login_that_is_an_address_is_not_taken_for_one_that_may_be_written_to(lab: ObjectLab) -> None:
    """Canvas would, and write to whoever has it already."""
    login = "clara@example.edu"
    lab.control.objects(users=[{"sis_user_id": "9", "email": login}])
    await lab.made(replace(PERSON, values={**PERSON.values, "login": login}))
    assert lab.control.mails() == []
    assert lab.row("users", "Clara Wieck")["channels"] == []


async def test_an_address_that_the_token_may_not_see_is_not_followed(lab: ObjectLab) -> None:
    """What cannot be compared would be set again with every event, over the one that the person prefers."""
    person = replace(PERSON, values={**PERSON.values, "email": "clara@example.edu"})
    rights = ["manage_user_logins", "manage_sis", "manage_students"]
    lab.control.token("enrollstream", permissions=rights)
    made = await lab.objects.make(person)
    assert isinstance(made, ShownObject)
    assert made.values == person.values
    assert isinstance(await lab.objects.find(person), NoPermission)
    lab.control.token("enrollstream", permissions=[*rights, "read_email_addresses"])
    assert (await lab.found(person)).values == person.values


async def test_nobody_is_made_with_an_address_that_canvas_would_have_confirmed(lab: ObjectLab) -> None:
    lab.control.token("enrollstream", permissions=["manage_user_logins", "manage_sis"])
    person = replace(PERSON, values={**PERSON.values, "email": "clara@example.edu"})
    assert isinstance(await lab.objects.make(person), NoPermission)
    assert lab.changes() == 0
    await lab.made(PERSON)


@pytest.mark.parametrize(("wanted", "missing"), [(COURSE, "term"), (SECTION, "course")], ids=["course", "section"])
async def test_what_it_is_made_in_has_to_be_there(lab: ObjectLab, wanted: WantedObject, missing: ObjectKind) -> None:
    outcome = await lab.objects.make(wanted)
    assert isinstance(outcome, NoParent)
    assert outcome.kind == missing


async def test_a_course_without_a_term_is_in_the_default_one(lab: ObjectLab) -> None:
    await lab.made(replace(COURSE, inside=None))
    assert lab.row("courses", "C-1")["term"] == lab.row("terms", "Default Term")["id"]


@pytest.mark.parametrize("sis_id", ["T 1", "a/b", "ü.json", "%2F", "x?y#z"])
async def test_ids_with_any_character_reach_the_right_object(lab: ObjectLab, sis_id: str) -> None:
    objects = [replace(one, sis_id=sis_id, inside=one.inside and sis_id) for one in WHOLE]
    await lab.made(*objects)
    for one in objects:
        assert (await lab.found(one)).values == one.values


async def test_a_token_that_may_not_set_sis_ids_makes_nothing(lab: ObjectLab) -> None:
    """Canvas would drop the id without a word, and make one more course at every attempt."""
    lab.control.token(
        "enrollstream", permissions=["manage_courses_add", "manage_account_settings", "manage_user_logins", "read_sis"]
    )
    for wanted in (TERM, PERSON):
        outcome = await lab.objects.make(wanted)
        assert isinstance(outcome, NoPermission)
        assert not outcome.whole_token
    assert lab.changes() == 0


async def test_a_token_that_may_not_see_sis_ids_confirms_nothing(lab: ObjectLab) -> None:
    await lab.made(*WHOLE)
    lab.control.token("enrollstream", permissions=["manage_user_logins"])
    for wanted in WHOLE:
        assert isinstance(await lab.objects.find(wanted), IdentityMismatch)


async def test_what_somebody_deleted_stays_deleted(lab: ObjectLab) -> None:
    await lab.made(TERM, COURSE, SECTION)
    lab.control.objects(
        terms=[{"sis_term_id": "T-1", "state": "deleted"}],
        courses=[{"sis_course_id": "C-1", "state": "deleted"}],
        sections=[{"sis_section_id": "S-1", "course": "C-1", "state": "deleted"}],
    )
    for wanted in (TERM, COURSE, SECTION):
        assert isinstance(await lab.objects.find(wanted), NoObject)
    for wanted in (TERM, COURSE):
        assert await lab.objects.make(wanted) == Refused("sis_id_taken")
    lab.control.objects(courses=[{"sis_course_id": "C-1", "state": "created"}])
    assert await lab.objects.make(SECTION) == Refused("sis_id_taken")


async def test_a_login_that_somebody_else_has_is_not_taken(lab: ObjectLab) -> None:
    lab.control.objects(users=[{"sis_user_id": "9", "login": "0009001"}])
    assert await lab.objects.make(PERSON) == Refused("login_taken")
    assert isinstance(await lab.objects.find(PERSON), NoObject)


@pytest.mark.parametrize("wanted", WHOLE, ids=lambda wanted: wanted.kind)
async def test_a_name_is_changed_and_nothing_else(lab: ObjectLab, wanted: WantedObject) -> None:
    await lab.made(*WHOLE)
    seen = await lab.found(wanted)
    renamed = replace(wanted, values={**wanted.values, "name": "Another"})
    before = lab.control.snapshot()
    changed = await lab.objects.change(renamed, seen, NAME, gently=False)
    assert isinstance(changed, ShownObject)
    assert changed.values == renamed.values
    assert await lab.found(renamed) == changed
    columns = {column for one in lab.control.changes(before) for column in one["changed"]}
    assert columns <= {"name", "sortable_name", "short_name", "stuck_sis_fields", "updated_at"}


async def test_an_address_is_set_without_asking_the_person_and_changed(lab: ObjectLab) -> None:
    person = replace(PERSON, values={**PERSON.values, "email": "clara@example.edu"})
    await lab.made(person)
    assert (await lab.found(person)).values == person.values
    moved = replace(person, values={**person.values, "email": "clara.schumann@example.edu"})
    changed = await lab.objects.change(moved, await lab.found(moved), frozenset({"email"}), gently=True)
    assert isinstance(changed, ShownObject)
    assert changed.values == moved.values
    assert await lab.found(moved) == changed
    assert lab.control.mails() == []


async def test_gently_leaves_what_a_person_has_set(lab: ObjectLab) -> None:
    """Of an account that an import made, the first change goes through; what was changed since, or made by hand, stays."""
    lab.control.objects(users=[{"sis_user_id": PERSON.sis_id, "name": "Clara Wieck"}])
    by_hand = replace(PERSON, sis_id="0009002", values={**PERSON.values, "login": "0009002"})
    await lab.made(by_hand)

    async def renamed(person: WantedObject, name: str) -> str:
        wanted = replace(person, values={**person.values, "name": name})
        outcome = await lab.objects.change(wanted, await lab.found(wanted), NAME, gently=True)
        assert isinstance(outcome, ShownObject)
        return outcome.values["name"]

    assert await renamed(PERSON, "Clara Schumann") == "Clara Schumann"
    assert await renamed(PERSON, "C. Schumann") == "Clara Schumann"
    assert await renamed(by_hand, "Clara Schumann") == "Clara Wieck"


async def test_a_login_is_suspended_and_comes_back_and_the_enrollments_stay(lab: ObjectLab) -> None:
    await lab.made(*WHOLE)
    lab.control.objects(enrollments=[{"section": "S-1", "user": "0009001"}])
    state: frozenset[Attribute] = frozenset({"state"})
    for wanted in ("suspended", "active"):
        person = replace(PERSON, values={**PERSON.values, "state": wanted})
        changed = await lab.objects.change(person, await lab.found(person), state, gently=False)
        assert isinstance(changed, ShownObject)
        assert changed.values["state"] == wanted
        assert (await lab.found(person)).values["state"] == wanted
        assert [row["state"] for row in lab.control.roster("S-1")] == ["active"]


async def test_only_the_login_with_the_id_is_suspended(lab: ObjectLab) -> None:
    """A person with two ids of the student system keeps the other one."""
    await lab.made(PERSON)
    lab.control.objects(users=[{"sis_user_id": "0009002", "also": "0009001"}])
    person = replace(PERSON, values={"state": "suspended"})
    assert isinstance(await lab.objects.change(person, await lab.found(person), frozenset({"state"}), gently=False), ShownObject)
    other = await lab.found(WantedObject("person", "0009002", {"state": "active"}))
    assert other.values["state"] == "active"


@pytest.mark.parametrize(
    ("kind", "limits", "expected"),
    [
        ("reset", {"apply": True}, Unknown),
        ("hang", {}, Unknown),
        ("status", {"status": 503}, ServerFault),
        ("html", {"apply": True}, WrongShape),
        ("throttled", {}, Throttled),
    ],
)
async def test_a_change_that_goes_wrong_confirms_nothing(
    lab: ObjectLab, kind: str, limits: dict[str, object], expected: type
) -> None:
    await lab.made(TERM)
    lab.control.fault(kind, methods=["POST"], count=1, **limits)
    assert isinstance(await lab.objects.make(COURSE), expected)


async def test_a_read_is_never_unknown(lab: ObjectLab) -> None:
    lab.control.fault("hang", count=1)
    assert isinstance(await lab.objects.find(PERSON), ServerFault)


def test_no_name_is_in_what_a_log_would_show() -> None:
    assert "Clara" not in repr(PERSON)
    assert "Clara" not in repr(ShownObject("1", PERSON.values))
