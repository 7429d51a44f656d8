"""The page of the sandbox in a real browser, over a real sandbox process: what a visitor of the demo sees."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from services.sandbox.canvas.client import CanvasControl
from services.sandbox.demo.processes import Processes
from services.sandbox.demo.system import System, Wiring
from tests.browser import Tab, browsing
from tests.plain_http import NO_TLS

SECTION = "sections/sis_section_id:S1/enrollments"
PEOPLE = {"9000001": "Ada Amberg", "9000002": "Bao <b>Birkow</b>", "9000003": "Cyra Calden"}


class Sandbox:
    """A sandbox process with a section and some people; `http` is what a client of the REST side has."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.processes = processes
        system = System(processes, Wiring(folder, {}, "", ""))
        self.control: CanvasControl = system.start_canvas()
        self.url = system.canvas_url
        token = (system.secrets / "canvas-token").read_text().strip()
        self.http = httpx.Client(
            base_url=f"{self.url}/api/v1/", headers={"Authorization": f"Bearer {token}"}, verify=NO_TLS, trust_env=False
        )
        self.control.objects(
            courses=[{"sis_course_id": "C1", "name": "GEOL 1000"}],
            sections=[
                {"sis_section_id": "S1", "name": "GEOL 1000-001", "course": "C1"},
                {"sis_section_id": "S2", "name": "GEOL 1000-002", "course": "C1"},
            ],
            users=[{"sis_user_id": sis_id, "name": name} for sis_id, name in PEOPLE.items()],
        )

    def enroll(self, person: str, section: str = SECTION) -> dict[str, Any]:
        """As a program does it over REST."""
        wanted = {"user_id": f"sis_user_id:{person}", "type": "StudentEnrollment", "enrollment_state": "active", "notify": False}
        row: dict[str, Any] = self.http.post(section, json={"enrollment": wanted}).raise_for_status().json()
        return row

    def remove(self, row: dict[str, Any]) -> None:
        """The same."""
        self.http.delete(f"courses/{row['course_id']}/enrollments/{row['id']}", params={"task": "delete"}).raise_for_status()


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Sandbox]:
    with Processes(tmp_path) as processes:
        sandbox = Sandbox(tmp_path, processes)
        with sandbox.http, sandbox.control:
            yield sandbox


@pytest.fixture
async def tab() -> AsyncIterator[Tab]:
    async with browsing() as tab:
        yield tab


def member(row: dict[str, Any]) -> str:
    """The element of an enrollment, as an expression."""
    return f'document.getElementById("member-{row["id"]}")'


async def test_what_is_done_over_rest_is_shown_without_loading_the_page_again(sandbox: Sandbox, tab: Tab) -> None:
    stays = sandbox.enroll("9000003")
    await tab.open(f"{sandbox.url}/")
    await tab.value(f"window.since = 'the first load'; {member(stays)}.closest('article').querySelector('a').focus()")

    made = sandbox.enroll("9000001")
    await tab.until(f"{member(made)}?.matches('.gained')")
    assert await tab.value(f"{member(made)}.closest('td').cellIndex") == 1, "in the section"
    assert "Ada Amberg" in await tab.value("document.getElementById('changes').innerText")
    assert "enrollments.create" in await tab.value("document.querySelector('.calls').innerText")

    sandbox.remove(made)
    await tab.until(f"{member(made)}.matches('.is-deleted.lost')")
    assert await tab.value(f"{member(made)}.closest('td').cellIndex") == 2, "not any more"
    assert await tab.value(f"{member(stays)}.closest('td').cellIndex") == 1

    assert await tab.value("window.since") == "the first load"
    assert await tab.value("document.activeElement.closest('article') !== null"), "who tabs through it keeps the place"
    assert tab.complaints == []
    assert {urlsplit(url).netloc for url in tab.requested} == {urlsplit(sandbox.url).netloc}, "nothing from anywhere else"


async def test_what_somebody_does_by_hand_is_shown_as_well(sandbox: Sandbox, tab: Tab) -> None:
    row = sandbox.enroll("9000001")
    await tab.open(f"{sandbox.url}/")
    sandbox.control.act("deactivate", id=row["id"])
    await tab.until(f"{member(row)}.matches('.is-inactive.lost')")


async def test_a_mark_of_a_change_fades_by_itself(sandbox: Sandbox, tab: Tab) -> None:
    row = sandbox.enroll("9000001")
    await tab.open(f"{sandbox.url}/")
    await tab.until(f"{member(row)}.matches('.gained')")
    await tab.until(f"!{member(row)}.matches('.gained')", seconds=15)


async def test_a_person_is_found_and_named_in_no_address(sandbox: Sandbox, tab: Tab) -> None:
    row = sandbox.enroll("9000002", SECTION.replace("S1", "S2"))
    sandbox.enroll("9000001")
    await tab.open(f"{sandbox.url}/")

    await tab.value("find.value = 'birkow'; find.dispatchEvent(new Event('input'))")
    await tab.until("document.querySelectorAll('article').length === 1")

    assert await tab.value(f"{member(row)}.innerText") == "+ Bao <b>Birkow</b>", "a name is text, whatever it contains"
    assert await tab.value(f"{member(row)}.matches('.found')")
    assert tab.complaints == []
    assert not any("birkow" in url.lower() or "900000" in url for url in [*tab.requested, await tab.value("location.href")])


async def test_it_stands_still_for_who_asks(sandbox: Sandbox, tab: Tab) -> None:
    await tab.open(f"{sandbox.url}/")
    await tab.until("document.body.dataset.state === 'live'")
    await tab.value("pause.click()")
    asked = len(tab.requested)
    row = sandbox.enroll("9000001")
    await tab.value("new Promise((done) => setTimeout(done, 1500))")
    assert len(tab.requested) == asked
    assert await tab.value(f"{member(row)} === null")
    await tab.value("pause.click()")
    await tab.until(f"{member(row)} !== null")


async def test_it_says_when_what_it_shows_is_not_the_present(sandbox: Sandbox, tab: Tab) -> None:
    row = sandbox.enroll("9000001")
    await tab.open(f"{sandbox.url}/")
    sandbox.processes.stop()
    await tab.until("state.innerText.startsWith('No answer')")
    assert await tab.value(f"{member(row)} !== null")


async def test_without_scripts_it_is_a_table_that_loads_itself(sandbox: Sandbox, tab: Tab) -> None:
    await tab.command("Emulation.setScriptExecutionDisabled", value=True)
    row = sandbox.enroll("9000001")
    await tab.open(f"{sandbox.url}/")
    assert await tab.value("document.querySelector('#pause').hidden"), "nothing is offered that would not work"
    assert await tab.value(f"{member(row)}.closest('table').caption.innerText") == "Members of GEOL 1000-001"

    sandbox.remove(row)
    await tab.until(f"{member(row)}?.matches('.is-deleted')")

    await tab.value("document.querySelector('#find').value = 'birkow'; document.forms[0].submit()")
    await tab.until("document.querySelector('#rosters-title')?.innerText.includes('birkow')")
    assert await tab.value("location.href") == f"{sandbox.url}/"
    assert tab.complaints == []
