"""Custom roles: Canvas wants their id, a policy names them by label."""

from __future__ import annotations

import asyncio

from services.consumer.nouns import Seat
from services.consumer.targets.canvas.answers import NotFound, Payload
from services.consumer.targets.canvas.client import CanvasClient, Operation
from services.consumer.targets.port import Failure, Refused, WrongShape

_MAX_PAGES = 20
_REREAD_SECONDS = 60
"""An unknown label may be a role made a moment ago, so the list is read again, but not for every seat."""


class Roles:
    """The account's roles by (label, base type), read when first needed."""

    def __init__(self, client: CanvasClient, account: str) -> None:
        self._client = client
        self._account = account
        self._ids: dict[tuple[str, str], str] = {}
        self._read_at: float | None = None
        self._reading = asyncio.Lock()

    async def id_of(self, seat: Seat, operation: Operation) -> str | Failure | None:
        """The role id to send; None for a built-in role, which its type names well enough."""
        if seat.role == seat.base_role:
            return None
        wanted = (seat.role, seat.base_role)
        async with self._reading:
            if wanted not in self._ids and self._may_read():
                failure = await self._read(operation)
                if failure is not None:
                    return failure
        return self._ids.get(wanted) or Refused("unknown_role")

    def _may_read(self) -> bool:
        return self._read_at is None or asyncio.get_running_loop().time() - self._read_at > _REREAD_SECONDS

    async def _read(self, operation: Operation) -> Failure | None:
        params = [("show_inherited", "true"), ("per_page", "100"), ("state[]", "active")]
        page = await self._client.get(f"accounts/{self._account}/roles", operation, params)
        found: dict[tuple[str, str], str] = {}
        for _ in range(_MAX_PAGES):
            if isinstance(page, NotFound):
                return Refused("unknown_account")
            if not isinstance(page, Payload):
                return page
            try:
                found |= {(str(role["label"]), str(role["base_role_type"])): str(role["id"]) for role in page.value}
            except (KeyError, TypeError):
                return WrongShape("role")
            if page.next_page is None:
                break
            page = await self._client.get_page(page.next_page, operation)
        self._ids, self._read_at = found, asyncio.get_running_loop().time()
        return None
