"""The page at ``/``: what it shows, to whom, and how much of it however large the account is. In a browser: tests/e2e."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from itertools import product
from pathlib import Path

import httpx
import pytest

from services.sandbox.canvas import page
from services.sandbox.canvas.app import create_app
from services.sandbox.canvas.page import board
from services.sandbox.canvas.page.board import View, Wish
from services.sandbox.canvas.population import Population, populate
from tests.contract.sandbox_canvas.conftest import Api

HOME = "http://canvas.test/"


async def look(api: Api, **form: str) -> str:
    """The board as the script gets it."""
    answer = await api.http.post(f"{HOME}page/board", data=form)
    assert answer.status_code == 200
    return answer.text


def members(text: str) -> dict[str, str]:
    """Name → classes of everybody who is shown in a roster."""
    found = re.findall(r'<li class="([^"]*)" id="member-\d+">(.*?)</li>', text)
    return {
        unescape(re.sub(r"<small>.*|<span class=.sign.*?</span>|<[^>]*>", "", inner)).strip(): classes for classes, inner in found
    }


async def test_a_roster_tells_members_by_role_and_state(api: Api) -> None:
    await api.enroll(user_id="sis_user_id:U1")
    await api.enroll(user_id="sis_user_id:U2", type="TeacherEnrollment")
    gone = await api.enroll(user_id="sis_user_id:U3")
    await api.remove(gone, task="delete")

    text = (await api.http.get(HOME)).text

    assert members(text) == {
        "Ada Lovelace": "member is-active gained",
        "Kurt Gödel": "member is-active gained",
        "Emmy Noether": "member is-deleted lost",
    }
    assert text.index("Teacher") < text.index("Student")
    assert "<caption>Members of C1 · S1</caption>" in text
    assert "enrollments.delete" in text


async def test_looking_is_no_call_of_the_rest_side(api: Api) -> None:
    await api.http.get(HOME)
    await look(api)
    assert not api.canvas.calls
    assert api.canvas.log.attempts == []


async def test_what_looks_as_it_was_seen_is_not_sent_again(api: Api) -> None:
    stamp = re.search(r'data-stamp="([^"]*)"', await look(api))
    assert stamp
    assert (await api.http.post(f"{HOME}page/board", data={"seen": stamp[1]})).status_code == 204
    await api.enroll()
    assert (await api.http.post(f"{HOME}page/board", data={"seen": stamp[1]})).status_code == 200


async def test_a_repeated_create_changes_nothing_that_is_shown(api: Api) -> None:
    await api.enroll()
    changes = api.canvas.world.journal.number
    await api.enroll()
    assert api.canvas.world.journal.number == changes


async def test_people_are_found_by_a_part_of_their_name_or_by_their_whole_id(api: Api) -> None:
    await api.enroll(user_id="sis_user_id:U1")
    await api.enroll(user_id="sis_user_id:U2", path="sections/sis_section_id:S2/enrollments")
    assert members(await look(api, find="love")) == {"Ada Lovelace": "member is-active gained found"}
    assert members(await look(api, find="U2")) == {"Kurt Gödel": "member is-active gained found"}
    assert "nobody in one, is called so" in await look(api, find="Nobody")


async def test_one_section_is_shown_by_its_number_which_names_nobody(api: Api) -> None:
    await api.enroll(path="sections/sis_section_id:S2/enrollments")
    text = await look(api)
    for address in re.findall(r'href="([^"]*)"', text):
        assert re.fullmatch(r"/(\?section=\d+)?", address)
    section = api.canvas.world.sections_by_sis["S2"].id
    assert members((await api.http.get(f"{HOME}?section={section}")).text) == {"Ada Lovelace": "member is-active gained"}
    for nonsense in ("0", "-1", "x", "9" * 40):
        assert (await api.http.get(f"{HOME}?section={nonsense}")).status_code == 200


async def test_names_are_text(api: Api) -> None:
    name = "<script>alert(1)</script> & 'Söhne' \u202e"
    api.seed(users=[{"sis_user_id": "U9", "name": name}], courses=[{"sis_course_id": "C1", "name": name}])
    await api.enroll(user_id="sis_user_id:U9")
    text = (await api.http.post(HOME, data={"find": '"><script>'})).text + await look(api)
    assert "<script>" not in text
    assert name in members(text)


async def test_characters_that_no_page_can_hold_are_shown_as_missing(api: Api) -> None:
    await api.enroll(user_id="sis_user_id:U1")
    [ada] = [user for user in api.canvas.world.users.values() if user.name == "Ada Lovelace"]
    ada.name = "Ada\x01 \ud800Lovelace"
    text = (await api.http.post(HOME, data={"find": "Ada\x01"})).text
    assert members(text) == {"Ada� �Lovelace": "member is-active gained found"}
    assert 'value="Ada�"' in text


async def test_it_answers_to_this_machine_only(api: Api) -> None:
    elsewhere = httpx.ASGITransport(api.canvas, client=("192.0.2.7", 4711))
    async with httpx.AsyncClient(transport=elsewhere, base_url=HOME) as http:
        for path in ("", "page/style.css"):
            assert (await http.get(path)).status_code == 403
        assert (await http.post("page/board")).status_code == 403


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1:8300", "https://evil.example"),
        ("127.0.0.1:8300", "null"),
        ("evil.example:8300", "http://evil.example:8300"),  # its name has come to mean this machine
        ("evil.example:8300", None),
    ],
)
async def test_no_page_of_somebody_else_reaches_the_page_or_the_control_side(api: Api, host: str, origin: str | None) -> None:
    headers = {"host": host} | ({"origin": origin} if origin else {})
    for path in ("", "page/board", "_sandbox/clock"):
        assert (await api.http.post(f"{HOME}{path}", headers=headers, content="{}")).status_code == 403, path


async def test_its_own_form_is_taken(api: Api) -> None:
    own = {"host": "127.0.0.1:8300", "origin": "http://127.0.0.1:8300"}
    assert (await api.http.post(HOME, headers=own, data={"find": "Ada"})).status_code == 200


async def test_it_loads_nothing_from_anywhere_else_and_is_not_kept(api: Api) -> None:
    answer = await api.http.get(HOME)
    assert answer.headers["content-security-policy"].startswith("default-src 'none'; style-src 'self'; script-src 'self';")
    assert answer.headers["cache-control"] == "no-store"
    assert not re.findall(r'(?:src|href)="(?!/|#|data:)', answer.text)


@pytest.mark.parametrize("wish", [Wish(), Wish("Person"), Wish(section=300_001)])
def test_a_large_account_makes_no_large_page(wish: Wish) -> None:
    canvas = create_app()
    populate(canvas.world, Population())
    rows = list(canvas.world.enrollments.values())
    for row in rows[:2_000]:
        row.state = "deleted"
    canvas.world.journal.record(rows[:2_000])

    shown = View(canvas).board(wish)

    assert shown.active == 18_500
    assert len(shown.tiles) <= board.TILES
    assert len(shown.rosters) <= board.ROSTERS
    most = board.MEMBERS if wish.section is None else board.MEMBERS_OF_ONE
    for roster in shown.rosters:
        for group in roster.groups:
            assert (len(group.here), len(group.gone)) == (min(group.here_total, most), min(group.gone_total, most))
    assert len(shown.changes) == board.CHANGES
    assert len(canvas.world.journal.newest) == 500


def _pairs() -> Iterator[tuple[str, tuple[str, str]]]:
    style = (Path(page.__file__).parent / "style.css").read_text()
    for name, light, dark in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", style):
        yield name, (light, dark)


def _luminance(color: str) -> float:
    """WCAG 2.2, "relative luminance"."""
    parts = [int(color[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_stands_out_from_its_ground(scheme: int) -> None:
    """WCAG 2.2, 1.4.3: at least 4.5 : 1, in light and in dark."""
    colors = {name: pair[scheme] for name, pair in _pairs()}
    written = [
        *product(("text", "quiet", "accent", "lost", "gained", "found"), ("ground", "card")),
        *product(("text", "quiet", "found"), ("chip",)),
        *(("text", f"{mark}-ground") for mark in ("gained", "lost")),
        *((mark, f"{mark}-ground") for mark in ("gained", "lost")),
    ]
    for text, ground in written:
        lighter, darker = sorted((_luminance(colors[text]), _luminance(colors[ground])), reverse=True)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, (text, ground)
