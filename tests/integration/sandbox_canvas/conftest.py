"""A Canvas behind a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from services.sandbox.canvas.server import CanvasServer
from tests.plain_http import NO_TLS
from tests.serving import serving

SECTION = "sections/sis_section_id:S1/enrollments"


class Client:
    """A blocking client with a short deadline."""

    def __init__(self, server: CanvasServer) -> None:
        self.server = server
        self.control = server.control
        self.http = httpx.Client(
            base_url=f"{server.url}/api/v1/",
            headers={"Authorization": f"Bearer {server.token}"},
            timeout=5,
            verify=NO_TLS,
            trust_env=False,
        )

    def create(self, user: str = "U1", **more: Any) -> httpx.Response:
        wanted = {"user_id": f"sis_user_id:{user}", "type": "StudentEnrollment", "enrollment_state": "active"}
        return self.http.post(SECTION, json={"enrollment": wanted}, **more)

    def delete(self, row: dict[str, Any], **parameters: str) -> httpx.Response:
        return self.http.delete(f"courses/{row['course_id']}/enrollments/{row['id']}", params=parameters)

    def states(self) -> dict[str, str]:
        """Person → stored state."""
        return {row["user"]: row["state"] for row in self.control.roster()}


@pytest.fixture
def client() -> Iterator[Client]:
    """Course C1 with section S1, people U1 and U2."""
    with serving(CanvasServer()) as server:
        server.control.users("U1", "U2")
        server.control.sections("S1", course="C1")
        client = Client(server)
        with client.http:
            yield client
