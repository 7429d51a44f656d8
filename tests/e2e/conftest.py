"""Every end-to-end test gets processes, databases and topics of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import httpx
import pytest

from schemas.topics import Topics
from services.kit.kafka import KafkaSettings
from services.sandbox.postgres import EmbeddedPostgres
from tests.e2e.arena import HASTY_CONSUMER, Arena, arena
from tests.plain_http import NO_TLS

MakeArena = Callable[..., Arena]


@pytest.fixture(autouse=True)
def _plain_http(monkeypatch: pytest.MonkeyPatch) -> None:
    """For those who ask twenty times a second whether a service is ready."""
    monkeypatch.setattr(httpx, "get", partial(httpx.get, verify=NO_TLS))


@pytest.fixture
def make_arena(
    request: pytest.FixtureRequest, postgres_server: EmbeddedPostgres, kafka: KafkaSettings, topics: Topics
) -> Iterator[MakeArena]:
    """Build an arena: ``make_arena(publisher={...}, consumer={...}, canvas=[...])`` with further settings of the parts."""
    name = re.sub(r"[^A-Za-z0-9]+", "-", request.node.name).strip("-")
    with ExitStack() as stack:

        def make(
            publisher: dict[str, str] | None = None,
            consumer: dict[str, str] | None = None,
            canvas: list[str] | None = None,
            policy: str | None = None,
        ) -> Arena:
            hasty = HASTY_CONSUMER | (consumer or {})
            return stack.enter_context(arena(name, postgres_server, kafka, topics, publisher or {}, hasty, canvas or [], policy))

        yield make
