"""A Canvas in this process, called over HTTP without a socket."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from services.sandbox.canvas.app import Canvas, create_app
from services.sandbox.canvas.seeding import Objects, seed
from services.sandbox.canvas.state import Enrollment

SECTION = "sections/sis_section_id:S1/enrollments"


class Api:
    """What a client sees: paths relative to ``/api/v1/``, everything allowed unless `allow` says otherwise."""

    def __init__(self, canvas: Canvas, http: httpx.AsyncClient) -> None:
        self.canvas = canvas
        self.http = http

    async def call(self, method: str, path: str, **more: Any) -> httpx.Response:
        return await self.http.request(method, path, **more)

    async def get(self, path: str, **parameters: Any) -> httpx.Response:
        return await self.call("GET", path, params=parameters)

    async def create(self, path: str = SECTION, **wanted: Any) -> httpx.Response:
        """A create that asks for an active student U1 unless told otherwise; a value of None leaves a parameter out."""
        given = {"user_id": "sis_user_id:U1", "type": "StudentEnrollment", "enrollment_state": "active"} | wanted
        return await self.call(
            "POST", path, json={"enrollment": {name: value for name, value in given.items() if value is not None}}
        )

    async def enroll(self, path: str = SECTION, **wanted: Any) -> dict[str, Any]:
        """A create that must succeed."""
        answer = await self.create(path, **wanted)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def remove(self, row: dict[str, Any], **parameters: str) -> httpx.Response:
        return await self.call("DELETE", f"courses/{row['course_id']}/enrollments/{row['id']}", params=parameters)

    async def control(self, method: str, path: str, **more: Any) -> Any:
        """What the control side answers."""
        answer = await self.http.request(method, f"http://canvas.test/_sandbox/{path}", **more)
        assert answer.is_success, answer.text
        return answer.json()

    async def act(self, act: str, **which: Any) -> list[int]:
        """What somebody else does; the ids of the rows that were touched."""
        done = await self.control("POST", "acts", json={"acts": [{"act": act, **which}]})
        touched: list[int] = done["touched"][0]
        return touched

    async def walk(self, path: str) -> tuple[list[dict[str, Any]], int]:
        """Every row of a list, page by page as ``Link`` leads, and the number of pages."""
        rows: list[dict[str, Any]] = []
        pages, url = 0, path
        while url:
            answer = await self.call("GET", url)
            assert answer.status_code == 200, answer.text
            rows += answer.json()
            pages += 1
            following = re.search(r'<([^>]*)>; rel="next"', answer.headers["link"])
            url = following[1] if following else ""
        return rows, pages

    def seed(self, **kinds: list[dict[str, Any]]) -> dict[str, Any]:
        return seed(self.canvas.world, Objects.model_validate(kinds))

    def id_of(self, sis_user_id: str) -> int:
        """Canvas's own id of a user."""
        return self.canvas.world.logins_by_sis[sis_user_id].user.id

    def stored(self, row: dict[str, Any]) -> Enrollment:
        return self.canvas.world.enrollments[row["id"]]

    def forbid(self, *permissions: str) -> None:
        """Take permissions from the token."""
        token = self.canvas.tokens.by_alias("enrollstream")
        assert token
        token.permissions -= set(permissions)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    """Course C1 with sections S1 and S2, course C2 with section S3, people U1 to U3."""
    canvas = create_app("secret")
    http = httpx.AsyncClient(
        transport=httpx.ASGITransport(canvas),
        base_url="http://canvas.test/api/v1/",
        headers={"Authorization": "Bearer secret"},
    )
    async with http:
        api = Api(canvas, http)
        api.seed(
            courses=[{"sis_course_id": "C1"}, {"sis_course_id": "C2"}],
            sections=[{"sis_section_id": name, "course": course} for name, course in (("S1", "C1"), ("S2", "C1"), ("S3", "C2"))],
            users=[
                {"sis_user_id": "U1", "name": "Ada Lovelace"},
                {"sis_user_id": "U2", "name": "Kurt Gödel"},
                {"sis_user_id": "U3", "name": "Emmy Noether"},
            ],
        )
        yield api
